package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/freshet-dev/freshet/sdk/client"
)

// Exit codes, so that scripts can tell; docs/cli.md lists them.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitCall        = 3 // or a build
	exitRefused     = 4
	exitUnreachable = 5
	exitInterrupted = 128 + int(syscall.SIGINT)
)

// report prints the error for people, with the next step where the error does not say it, and picks the exit code.
func report(err error) int {
	var usage *usageError
	var call *callFailed
	var build *buildFailed
	var remote *remoteEnded
	var address *url.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &remote):
		return remote.code
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "Error: %v\n\nRun '%s --help' for how it is used.\n", err, usage.command)
		return exitUsage
	case refused(err):
		fmt.Fprintf(os.Stderr, "Error: %v\n\nShow another token in FRESHET_TOKEN. `freshet token create NAME --verbs …` makes one, for who has one with the verb admin.\n", err)
		return exitRefused
	case errors.As(err, &call):
		call.print(os.Stderr)
		return exitCall
	case errors.As(err, &build):
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		return exitCall
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "Interrupted.")
		return exitInterrupted
	case errors.As(err, &address):
		fmt.Fprintf(os.Stderr, "Error: reach %s: %v\n\nIs it up? `freshet status` tells of the cluster on this machine; --addr or FRESHET_ADDR names another one.\n", base(address.URL), address.Err)
		return exitUnreachable
	}
	fmt.Fprintf(os.Stderr, "Error: %v\n", err)
	return exitFailure
}

// refused tells whether the gateway does not know who asks, or does not let them.
func refused(err error) bool {
	var failure *apiFailure
	var call *client.Error
	status := 0
	switch {
	case errors.As(err, &failure):
		status = failure.status
	case errors.As(err, &call):
		status = call.Status
	}
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// base is an address without its path.
func base(address string) string {
	parsed, err := url.Parse(address)
	if err != nil {
		return address
	}
	return parsed.Scheme + "://" + parsed.Host
}

// usageError is a wrong command line.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// callFailed is a call that ended in an error of its own.
type callFailed struct{ cause *client.Error }

func (c *callFailed) Error() string { return c.cause.Error() }

func (c *callFailed) Unwrap() error { return c.cause }

func (c *callFailed) print(out io.Writer) {
	fmt.Fprintf(out, "Call failed (%s): %v\n", c.cause.Fault.Kind, c.cause)
	if c.cause.Fault.Traceback != "" {
		fmt.Fprintf(out, "\n%s\n", strings.TrimSpace(c.cause.Fault.Traceback))
	}
	if c.cause.Call != "" {
		fmt.Fprintf(out, "Its id is %s.\n", c.cause.Call)
	}
	if c.cause.Status == http.StatusNotFound && len(c.cause.Near) == 0 {
		fmt.Fprintln(out, "`freshet ps` lists the functions that there are.")
	}
}

// failed makes a call's own error one with an exit code of its own.
func failed(err error) error {
	var own *client.Error
	if errors.As(err, &own) {
		return &callFailed{own}
	}
	return err
}
