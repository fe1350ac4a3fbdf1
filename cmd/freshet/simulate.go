package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/scheduler-ext/simulator"
)

// simulation is what `freshet simulate` is asked for.
type simulation struct {
	shape, arrivals  string
	functions, calls int
	length           time.Duration
	seed             uint64
	model            simulator.Model
	svg              string
	asJSON           bool
}

func newSimulate() *cobra.Command {
	s := simulation{model: simulator.Model{Scale: 30 * time.Millisecond}}
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Try scaling policies on recorded or generated calls",
		Long: `Runs the autoscaler's own policy, in several settings, against recorded or generated calls, with Nomad and the starts
of workers modelled. It prints what workers cost and how long calls waited, beside policies like Kubernetes's and
nomad-autoscaler's, and says which setting of ours beats each of those: no more cost, no more wait, and less of one.

Recorded calls are lines of FUNCTION,SECONDS,SECONDS: when each came and how long it took. The shapes of generated ones:

` + shapes(),
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&s.shape, "shape", "bursty", "shape of generated calls")
	flags.StringVar(&s.arrivals, "arrivals", "", "file of recorded calls, instead of generated ones")
	flags.IntVar(&s.functions, "functions", 100, "number of functions, when generated")
	flags.IntVar(&s.calls, "calls", 100_000, "number of calls of all functions, when generated")
	flags.DurationVar(&s.length, "length", 2*time.Hour, "time that is simulated")
	flags.Uint64Var(&s.seed, "seed", 1, "another one makes other calls of the same shape")
	flags.DurationVar(&s.model.Start, "start", 300*time.Millisecond, "time from Nomad's start of a worker to its first call")
	flags.IntVar(&s.model.Concurrency, "concurrency", 1, "calls that a worker runs at once")
	flags.IntVar(&s.model.Max, "max", 1000, "most workers of a function")
	flags.StringVar(&s.svg, "svg", "", "file for a plot of cost against wait")
	flags.BoolVar(&s.asJSON, "json", false, "print JSON")
	return cmd
}

func shapes() string {
	var lines []string
	for _, shape := range simulator.Shapes() {
		lines = append(lines, fmt.Sprintf("  %-9s %s", shape.Name, shape.About))
	}
	return strings.Join(lines, "\n")
}

func (s simulation) run(cmd *cobra.Command) error {
	if s.functions < 1 || s.calls < 1 || s.length < time.Second || s.model.Concurrency < 1 || s.model.Max < 1 || s.model.Start < 0 {
		return usagef(cmd, "functions, calls, concurrency and max are at least 1, length at least 1s, and start is not negative")
	}
	trace, title, err := s.trace()
	if err != nil {
		return usagef(cmd, "%w", err)
	}
	var results []simulator.Result
	for _, policy := range append(simulator.Variants(s.model.Concurrency), simulator.References(s.model.Concurrency)...) {
		results = append(results, simulator.Run(trace, s.length, s.model, policy))
		if err := cmd.Context().Err(); err != nil {
			return err
		}
	}
	if s.svg != "" {
		if err := writePlot(s.svg, title, results); err != nil {
			return err
		}
	}
	verdicts := simulator.Compare(results)
	if s.asJSON {
		return printJSON(cmd.OutOrStdout(), map[string]any{"results": results, "verdicts": verdicts})
	}
	printSimulation(cmd.OutOrStdout(), title, results, verdicts)
	return nil
}

func (s simulation) trace() (simulator.Trace, string, error) {
	if s.arrivals == "" {
		trace, err := simulator.Generate(s.shape, s.functions, s.calls, s.length, s.seed)
		return trace, fmt.Sprintf("%s: %d calls of %d functions in %s", s.shape, s.calls, s.functions, s.length), err
	}
	file, err := os.Open(s.arrivals)
	if err != nil {
		return nil, "", fmt.Errorf("open arrivals: %w", err)
	}
	defer func() { _ = file.Close() }() // read only
	trace, err := simulator.Read(file)
	if err != nil {
		return nil, "", fmt.Errorf("arrivals of %s: %w", s.arrivals, err)
	}
	return trace, fmt.Sprintf("%s: %d calls of %d functions", s.arrivals, trace.Calls(), len(trace)), nil
}

func writePlot(path, title string, results []simulator.Result) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make plot: %w", err)
	}
	if err := simulator.Plot(file, title, results); err != nil {
		_ = file.Close() // the first error is the one to tell
		return err
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return nil
}

func printSimulation(out io.Writer, title string, results []simulator.Result, verdicts []simulator.Verdict) {
	fmt.Fprintf(out, "%s\n\n", title)
	t := newTable(out, "policy", "", "worker-seconds", "wait p50", "wait p99", "mean", "changes")
	short := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	for _, r := range results {
		t.AppendRow(table.Row{r.Family, strings.TrimPrefix(r.Policy, r.Family+", "), fmt.Sprintf("%.0f", r.Cost.Seconds()), short(r.P50), short(r.P99), short(r.Mean), r.Changes})
	}
	t.Render()
	fmt.Fprintln(out)
	for _, v := range verdicts {
		if !v.Better {
			fmt.Fprintf(out, "%s: beaten by no setting of freshet's: each costs more or waits longer\n", v.Reference.Policy)
			continue
		}
		fmt.Fprintf(out, "%s: beaten by freshet's %s, with %.0f %% of its cost and %.1f %% of its mean wait\n", v.Reference.Policy, v.Ours.Policy,
			100*v.Ours.Cost.Seconds()/v.Reference.Cost.Seconds(), 100*float64(v.Ours.Mean)/float64(max(v.Reference.Mean, 1)))
	}
}
