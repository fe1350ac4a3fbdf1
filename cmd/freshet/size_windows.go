package main

import (
	"context"
	"time"

	"golang.org/x/term"
)

// watchSize says each new size of a terminal until the context ends. Windows tells of them among what is typed alone, so it is asked.
func watchSize(ctx context.Context, terminal int, tell func(rows, columns int)) {
	columns, rows, _ := term.GetSize(terminal)
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if c, r, err := term.GetSize(terminal); err == nil && (c != columns || r != rows) {
				columns, rows = c, r
				tell(rows, columns)
			}
		case <-ctx.Done():
			return
		}
	}
}
