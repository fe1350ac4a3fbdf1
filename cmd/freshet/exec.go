package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/freshet-dev/freshet/internal/execwire"
)

func newExec(env environment) *cobra.Command {
	var addr string
	var noTTY bool
	cmd := &cobra.Command{
		Use:   "exec WORKER -- COMMAND...",
		Short: "Run a command in a running worker",
		Long: `Runs a command beside the function in one of its workers, which 'freshet ps' lists, with this terminal where there is one, else with
standard input, output and error. Exit code and all are the command's own. A part of the worker's id is enough, of four characters at least.`,
		Example: `  freshet exec 1f2e3d4c -- ps aux
  freshet exec 1f2e3d4c -- tar -c /tmp/profile > profile.tar`,
		Args: args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			return newRemote(cmd, given[1:], noTTY).run(api, "/v1/workers/"+url.PathEscape(given[0])+"/exec", nil)
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "", addrUsage)
	cmd.Flags().BoolVar(&noTTY, "no-tty", false, "pass on plain streams, though this is a terminal")
	return cmd
}

func newShell(env environment) *cobra.Command {
	var addr, namespace string
	var fresh, noTTY bool
	cmd := &cobra.Command{
		Use:   "shell APP.FUNCTION [-- COMMAND...]",
		Short: "Open a shell in one of a function's workers, or in a sandbox like theirs",
		Long: `Opens a shell beside the function in one of its workers. Where none runs, and with --fresh, it is in a sandbox made for it, with the
function's image, mounts, environment, network and limits, but without its handler and what that loads; it ends with the shell. The
function's image must have /bin/sh.`,
		Example: `  freshet shell llm.generate
  freshet shell llm.generate --fresh -- python -i`,
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeFunction(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			app, function, err := splitName(given[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			command := given[1:]
			if len(command) == 0 {
				command = []string{"/bin/sh", "-c", "if command -v bash >/dev/null; then exec bash; else exec sh; fi"}
			}
			query := url.Values{"namespace": {namespace}, "fresh": {strconv.FormatBool(fresh)}}
			return newRemote(cmd, command, noTTY).run(api, "/v1/functions/"+url.PathEscape(app)+"/"+url.PathEscape(function)+"/exec", query)
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	cmd.Flags().BoolVar(&fresh, "fresh", false, "make a sandbox for it, though a worker runs")
	cmd.Flags().BoolVar(&noTTY, "no-tty", false, "pass on plain streams, though this is a terminal")
	return cmd
}

// remoteEnded is a command elsewhere that ended with a code of its own, which becomes this program's.
type remoteEnded struct{ code int }

func (e *remoteEnded) Error() string { return fmt.Sprintf("the command ended with code %d", e.code) }

// remote is a command in a worker, as it is seen from here.
type remote struct {
	cmd     *cobra.Command
	command []string
	// terminal is the one that it is shown in; -1 for none.
	terminal int
	conn     *websocket.Conn
}

func newRemote(cmd *cobra.Command, command []string, noTTY bool) *remote {
	r := &remote{cmd: cmd, command: command, terminal: -1}
	if in, ok := cmd.InOrStdin().(*os.File); ok && !noTTY && term.IsTerminal(int(in.Fd())) && onTerminal(cmd.OutOrStdout()) {
		r.terminal = int(in.Fd())
	}
	return r
}

// run runs the command to its end. The terminal is raw meanwhile: what is typed, Ctrl-C too, is for the command.
func (r *remote) run(api apiClient, path string, query url.Values) (err error) {
	text, err := json.Marshal(r.command)
	if err != nil {
		return fmt.Errorf("encode command: %w", err)
	}
	if query == nil {
		query = url.Values{}
	}
	query.Set("command", string(text))
	if r.terminal >= 0 {
		query.Set("tty", "true")
		if columns, rows, err := term.GetSize(r.terminal); err == nil {
			query.Set("rows", strconv.Itoa(rows))
			query.Set("columns", strconv.Itoa(columns))
		}
	}
	if r.conn, err = api.dial(r.cmd.Context(), path, query); err != nil {
		return err
	}
	defer func() { _ = r.conn.CloseNow() }() // all is said
	r.conn.SetReadLimit(execwire.MaxMessage)
	if r.terminal >= 0 {
		before, failed := term.MakeRaw(r.terminal)
		if failed != nil {
			return fmt.Errorf("prepare the terminal: %w", failed)
		}
		defer func() { err = errors.Join(err, term.Restore(r.terminal, before)) }()
	}
	ctx, cancel := context.WithCancel(r.cmd.Context())
	var sizes sync.WaitGroup
	defer sizes.Wait()
	defer cancel()
	go r.typing(ctx) // ends with standard input, which nobody can interrupt: not waited for
	if r.terminal >= 0 {
		sizes.Go(func() { watchSize(ctx, r.terminal, func(rows, columns int) { r.resize(ctx, rows, columns) }) })
	}
	return r.show(ctx)
}

// typing passes on what is typed.
func (r *remote) typing(ctx context.Context) {
	in, buffer := r.cmd.InOrStdin(), make([]byte, 32<<10)
	for {
		n, err := in.Read(buffer)
		if n > 0 && r.conn.Write(ctx, websocket.MessageBinary, buffer[:n]) != nil {
			return // what is shown ends too, and says why
		}
		if err != nil {
			r.tell(ctx, execwire.Message{End: true})
			return
		}
	}
}

func (r *remote) resize(ctx context.Context, rows, columns int) {
	r.tell(ctx, execwire.Message{Size: &execwire.Size{Rows: uint16(rows), Columns: uint16(columns)}})
}

func (r *remote) tell(ctx context.Context, message execwire.Message) {
	data, err := json.Marshal(message)
	if err != nil {
		return // it is always JSON
	}
	_ = r.conn.Write(ctx, websocket.MessageText, data) // what is shown ends too, and says why
}

// show prints what the command writes, until it has ended.
func (r *remote) show(ctx context.Context) error {
	for {
		kind, data, err := r.conn.Read(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("the connection to the worker ended before the command did: %w", err)
		}
		if kind == websocket.MessageBinary && len(data) > 0 {
			out := r.cmd.OutOrStdout()
			if data[0] == execwire.Stderr {
				out = r.cmd.ErrOrStderr()
			}
			if _, err := out.Write(data[1:]); err != nil {
				return fmt.Errorf("print output: %w", err)
			}
			continue
		}
		var message execwire.Message
		if err := json.Unmarshal(data, &message); err != nil {
			return fmt.Errorf("read the gateway's answer: %w", err)
		}
		switch {
		case message.Error != nil:
			return &apiFailure{kind: string(message.Error.Kind), message: message.Error.Message}
		case message.Exit != nil && *message.Exit != 0:
			return &remoteEnded{*message.Exit}
		case message.Exit != nil:
			return nil
		case message.Fresh && r.terminal >= 0:
			fmt.Fprintf(r.cmd.ErrOrStderr(), "In a fresh sandbox, which ends with the shell.\r\n")
		}
	}
}

// dial opens a WebSocket.
func (a apiClient) dial(ctx context.Context, path string, query url.Values) (*websocket.Conn, error) {
	header := http.Header{}
	if a.token != "" {
		header.Set("Authorization", "Bearer "+a.token)
	}
	conn, response, err := websocket.Dial(ctx, a.base+path+"?"+query.Encode(), &websocket.DialOptions{HTTPClient: a.http, HTTPHeader: header}) //nolint:bodyclose // Dial has closed it
	if err == nil {
		return conn, nil
	}
	if response != nil && response.StatusCode != http.StatusSwitchingProtocols {
		return nil, apiError(response)
	}
	var address *url.Error
	if errors.As(err, &address) {
		return nil, fmt.Errorf("reach the gateway: %w", address)
	}
	return nil, fmt.Errorf("reach the gateway: %w", err)
}
