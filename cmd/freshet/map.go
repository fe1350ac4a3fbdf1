package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// maxLine is the longest input line of a map, in bytes: what fits into a call, and its line end.
const maxLine = 1<<20 + 2

type mapOptions struct {
	classOptions

	addr, namespace, input, output string
	concurrency                    int
	quiet, ordered                 bool
}

func newMap(env environment) *cobra.Command {
	var o mapOptions
	cmd := &cobra.Command{
		Use:   "map APP.FUNCTION --input FILE.ndjson",
		Short: "Call a function once for each line of a file",
		Long: `Calls a function once for each line of the input and prints a line of JSON for each call as it ends: its index, and its
output or its error. Items that fail do not end the others; exit code 3 says that some failed. A connection that breaks is no end: the
map goes on where it was.`,
		Example:           `  freshet map gosearch.search --input examples/gosearch/queries.ndjson --output results.ndjson`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeFunction(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			if _, _, err := splitName(given[0]); err != nil {
				return usagef(cmd, "%w", err)
			}
			if o.input == "" {
				return usagef(cmd, "--input: name a file of lines, or - for standard input")
			}
			if o.concurrency < 1 {
				return usagef(cmd, "--concurrency %d: use 1 or more", o.concurrency)
			}
			return runMap(cmd, env, given[0], o)
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	o.classOptions.addFlags(cmd)
	cmd.Flags().StringVarP(&o.input, "input", "i", "", "file with one input a line, or - for standard input")
	cmd.Flags().StringVarP(&o.output, "output", "o", "-", "file for the results, or - for standard output")
	cmd.Flags().IntVarP(&o.concurrency, "concurrency", "c", 64, "calls in flight")
	cmd.Flags().BoolVar(&o.ordered, "ordered", false, "print the results in the order of the inputs")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

// mapLine is a result as it is printed.
type mapLine struct {
	Index  int             `json:"index"`
	Output json.RawMessage `json:"output,omitempty"`
	Error  *wire.Error     `json:"error,omitempty"`
}

// mapSummary counts the ends of a map's calls.
type mapSummary struct {
	done, failed int
	took         time.Duration
}

func runMap(cmd *cobra.Command, env environment, function string, o mapOptions) error {
	c, err := env.client(o.addr, client.Namespace(o.namespace))
	if err != nil {
		return err
	}
	lines, err := openLines(cmd.InOrStdin(), o.input)
	if err != nil {
		return err
	}
	out, err := createOutput(cmd.OutOrStdout(), o.output)
	if err != nil {
		return err
	}
	results := bufio.NewWriter(out)
	summary, err := mapLines(cmd, c, function, lines, results, o)
	err = errors.Join(err, results.Flush(), out.Close())
	if err != nil {
		return err
	}
	rate := float64(summary.done) / summary.took.Seconds()
	fmt.Fprintf(cmd.ErrOrStderr(), "%d answered, %d failed, in %s (%.0f a second)\n", summary.done-summary.failed, summary.failed, short(summary.took), rate)
	if summary.failed > 0 {
		return &callFailed{&client.Error{Fault: wire.Error{Kind: wire.KindUser, Message: fmt.Sprintf("%d of %d items failed; their lines say why", summary.failed, summary.done)}}}
	}
	return nil
}

// mapLines makes the calls and writes a line for each.
func mapLines(cmd *cobra.Command, c *client.Client, function string, lines *lines, results io.Writer, o mapOptions) (mapSummary, error) {
	began := time.Now()
	bar := newBar(cmd.ErrOrStderr(), lines.count, o.quiet)
	var summary mapSummary
	encoder := json.NewEncoder(results)
	items := c.MapUnordered
	if o.ordered {
		items = c.Map
	}
	for item, err := range items(cmd.Context(), o.request(function), lines.all(), o.concurrency) {
		if err != nil {
			return summary, errors.Join(err, lines.err, lines.close())
		}
		summary.done++
		if item.Err != nil {
			summary.failed++
		}
		if err := encoder.Encode(lineOf(item)); err != nil {
			return summary, fmt.Errorf("write result: %w", err)
		}
		_ = bar.Add(1) // a bar that cannot be drawn is no reason to stop
	}
	_ = bar.Finish()
	summary.took = time.Since(began)
	return summary, errors.Join(lines.err, lines.close(), cmd.Context().Err())
}

func lineOf(item client.Item) mapLine {
	line := mapLine{Index: item.Index}
	var failed *client.Error
	switch {
	case errors.As(item.Err, &failed):
		line.Error = &failed.Fault
	case json.Valid(item.Response.Body):
		line.Output = bytes.TrimSpace(item.Response.Body)
	default:
		line.Output, _ = json.Marshal(string(item.Response.Body)) // a string is always JSON
	}
	return line
}

func newBar(out io.Writer, count int, quiet bool) *progressbar.ProgressBar {
	visible := !quiet && onTerminal(out)
	return progressbar.NewOptions(count,
		progressbar.OptionSetWriter(out), progressbar.OptionSetVisibility(visible),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("calls"),
		progressbar.OptionThrottle(65*time.Millisecond), progressbar.OptionFullWidth(), progressbar.OptionSetPredictTime(true),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(out) }),
	)
}

// lines is a file of inputs, one a line; empty lines are left out.
type lines struct {
	file  io.ReadCloser
	count int // -1 when it is not known before the end
	err   error
}

func openLines(stdin io.Reader, name string) (*lines, error) {
	if name == "-" {
		return &lines{file: io.NopCloser(stdin), count: -1}, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open input: %w", err)
	}
	l := &lines{file: file}
	for range l.all() {
		l.count++
	}
	if l.err != nil {
		return nil, errors.Join(l.err, file.Close())
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("read input: %w", err), file.Close())
	}
	return l, nil
}

func (l *lines) all() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		scanner := bufio.NewScanner(l.file)
		scanner.Buffer(make([]byte, 0, 64<<10), maxLine)
		for number := 1; scanner.Scan(); number++ {
			line := bytes.TrimSpace(scanner.Bytes())
			if len(line) > 0 && !yield(bytes.Clone(line)) {
				return
			}
		}
		if err := scanner.Err(); err != nil {
			l.err = fmt.Errorf("read input: %w: a line holds one input of at most 1 MiB", err)
		}
	}
}

func (l *lines) close() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("close input: %w", err)
	}
	return nil
}

// keepOpen does not close what is not its own.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

func createOutput(stdout io.Writer, name string) (io.WriteCloser, error) {
	if name == "-" {
		return keepOpen{stdout}, nil
	}
	file, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create output: %w", err)
	}
	return file, nil
}
