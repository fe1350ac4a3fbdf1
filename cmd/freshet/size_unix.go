//go:build unix

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// watchSize says each new size of a terminal until the context ends.
func watchSize(ctx context.Context, terminal int, tell func(rows, columns int)) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-changed:
			if columns, rows, err := term.GetSize(terminal); err == nil {
				tell(rows, columns)
			}
		case <-ctx.Done():
			return
		}
	}
}
