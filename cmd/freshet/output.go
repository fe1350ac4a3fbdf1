package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/sdk/client"
)

// callJSON is what --json prints of a call.
type callJSON struct {
	Call        string `json:"call,omitempty"`
	Worker      string `json:"worker,omitempty"`
	Attempt     int    `json:"attempt,omitempty"`
	ContentType string `json:"content_type,omitempty"`
	// Output is JSON as the function wrote it, or text; Base64 is any other output.
	Output json.RawMessage `json:"output,omitempty"`
	Base64 []byte          `json:"output_base64,omitempty"`
	Error  *callErrorJSON  `json:"error,omitempty"`
	// Queued, Started and Run are where the time went, in milliseconds.
	Queued  float64 `json:"queued_ms"`
	Started float64 `json:"started_ms"`
	Run     float64 `json:"run_ms"`
}

type callErrorJSON struct {
	Kind      string `json:"kind"`
	Type      string `json:"type,omitempty"`
	Message   string `json:"message"`
	Traceback string `json:"traceback,omitempty"`
}

// printResponse prints a call and its output as JSON.
func printResponse(out io.Writer, response client.Response, output io.ReadCloser) error {
	body, err := io.ReadAll(output)
	if err = errors.Join(err, output.Close()); err != nil {
		return fmt.Errorf("read output: %w", err)
	}
	printed := callJSON{
		Call: response.Call, Worker: response.Worker, Attempt: response.Attempt, ContentType: response.ContentType,
		Queued: millis(response.Queued), Started: millis(response.Started), Run: millis(response.Run),
	}
	switch {
	case strings.HasPrefix(response.ContentType, "application/json") && json.Valid(body):
		printed.Output = body
	case utf8.Valid(body):
		if printed.Output, err = json.Marshal(string(body)); err != nil {
			return fmt.Errorf("print output: %w", err)
		}
	default:
		printed.Base64 = body
	}
	return printJSON(out, printed)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// failedCall makes a call's own error one with an exit code of its own, and with --json prints it.
func failedCall(cmd *cobra.Command, err error, asJSON bool) error {
	var own *client.Error
	if !asJSON || !errors.As(err, &own) {
		return failed(err)
	}
	fault := own.Fault
	printed := callJSON{Call: own.Call, Error: &callErrorJSON{Kind: string(fault.Kind), Type: fault.Type, Message: fault.Message, Traceback: fault.Traceback}}
	return errors.Join(printJSON(cmd.OutOrStdout(), printed), failed(err))
}

// late says of a call that was given up for the time that it took.
func late(ctx context.Context, err error, timeout time.Duration) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("no answer within %s, the --timeout: the call was taken back", timeout)
}
