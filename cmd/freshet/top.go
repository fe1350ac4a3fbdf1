package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
)

type topOptions struct {
	addr, namespace string
	every           time.Duration
	count           int
	asJSON          bool
}

func newTop(env environment) *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use:   "top [APP[.FUNCTION]]",
		Short: "Watch functions and their workers: queue, rate, time of calls, processor, memory",
		Long: `Shows functions and workers again and again until Ctrl-C: on a terminal in place, elsewhere one snapshot after the other, one alone unless
--count says more. Rate and times are of what was between two looks; the times are of calls whose callers wait, at the gateway that answers.`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeFunction(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			if o.every <= 0 || o.count < 0 {
				return usagef(cmd, "--every %s, --count %d: use more than 0, and 0 or more", o.every, o.count)
			}
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			err = top(cmd, env, api, given, o)
			if errors.Is(err, context.Canceled) {
				return nil // that is how it is meant to end
			}
			return err
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().DurationVar(&o.every, "every", time.Second, "time between two looks")
	cmd.Flags().IntVarP(&o.count, "count", "n", 0, "looks to take (default: without end on a terminal, else one)")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print a line of JSON for each look")
	return cmd
}

// look is what there is at a time.
type look struct {
	Time      time.Time      `json:"time"`
	Functions []*topFunction `json:"functions"`
	Workers   []topWorker    `json:"workers"`

	done map[string]int64     // by worker
	runs map[string]histogram // by function
}

type topFunction struct {
	Function string `json:"function"`
	Workers  int    `json:"workers"`
	Ready    int    `json:"ready"`
	// Queued wait for a worker, Running are with one.
	Queued  int64 `json:"queued"`
	Running int64 `json:"running"`
	// Rate is calls a second, P50 their time in milliseconds; nil when there were none, or before the second look.
	Rate *float64 `json:"rate,omitempty"`
	P50  *float64 `json:"p50_ms,omitempty"`
	// CPU is in percent of a processor, Memory in bytes.
	CPU    float64 `json:"cpu_percent"`
	Memory uint64  `json:"memory_bytes"`
}

type topWorker struct {
	queue.Heartbeat

	Usage *jobs.Usage `json:"usage,omitempty"`
}

func top(cmd *cobra.Command, env environment, api apiClient, given []string, o topOptions) error {
	out, count := cmd.OutOrStdout(), o.count
	live := onTerminal(out) && !o.asJSON
	if count == 0 && !onTerminal(out) {
		count = 1
	}
	paint := env.painter(out)
	ticker := time.NewTicker(o.every)
	defer ticker.Stop()
	var before *look
	for n := 1; ; n++ {
		now, err := takeLook(cmd.Context(), api, given, o.namespace, before)
		if err != nil {
			return err
		}
		switch {
		case o.asJSON:
			if err := json.NewEncoder(out).Encode(now); err != nil {
				return fmt.Errorf("print JSON: %w", err)
			}
		case live:
			fmt.Fprint(out, "\x1b[H\x1b[2J")
			now.print(out, paint)
		default:
			now.print(out, paint)
		}
		if n == count {
			return nil
		}
		before = now
		select {
		case <-ticker.C:
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		}
	}
}

func takeLook(ctx context.Context, api apiClient, given []string, namespace string, before *look) (*look, error) {
	var functions []functionRow
	if err := api.get(ctx, "/v1/functions", url.Values{"namespace": {namespace}}, &functions); err != nil {
		return nil, err
	}
	now := &look{Time: time.Now(), Functions: []*topFunction{}, Workers: []topWorker{}, done: make(map[string]int64)}
	var workers []topWorker
	if err := api.get(ctx, "/v1/workers", url.Values{"namespace": {namespace}, "usage": {"true"}}, &workers); err != nil {
		return nil, err
	}
	now.runs = readRuns(ctx, api, namespace)
	byName := make(map[string]*topFunction)
	for _, f := range functions {
		name := f.App + "." + f.Function
		if len(given) == 1 && given[0] != f.App && given[0] != name {
			continue
		}
		byName[name] = &topFunction{Function: name, Workers: f.Workers, Ready: f.Ready, Queued: f.Pending}
		now.Functions = append(now.Functions, byName[name])
	}
	for _, w := range workers {
		if f := byName[w.App+"."+w.Function]; f != nil {
			f.add(w)
			now.Workers, now.done[w.Alloc] = append(now.Workers, w), w.Done
		}
	}
	if before != nil {
		for _, w := range now.Workers {
			byName[w.App+"."+w.Function].count(w.Done-before.done[w.Alloc], now.Time.Sub(before.Time))
		}
		for name, f := range byName {
			f.P50 = now.runs[name].minus(before.runs[name]).median()
		}
	}
	return now, nil
}

// add adds a worker to its function.
func (f *topFunction) add(w topWorker) {
	f.Running += int64(w.Busy)
	f.Queued = max(0, f.Queued-int64(w.Busy))
	if w.Usage != nil {
		f.CPU += w.Usage.CPU
		f.Memory += w.Usage.Memory
	}
}

// count adds the calls that a worker did meanwhile.
func (f *topFunction) count(calls int64, meanwhile time.Duration) {
	rate := float64(max(0, calls)) / meanwhile.Seconds()
	if f.Rate != nil {
		rate += *f.Rate
	}
	f.Rate = &rate
}

func (l *look) print(out io.Writer, paint func(text.Color, string) string) {
	t := newTable(out, "function", "workers", "ready", "queued", "running", "calls/s", "p50", "cpu", "memory")
	for _, f := range l.Functions {
		rate, p50, queued := "-", "-", fmt.Sprint(f.Queued)
		if f.Rate != nil {
			rate = fmt.Sprintf("%.1f", *f.Rate)
		}
		if f.P50 != nil {
			p50 = short(time.Duration(*f.P50 * float64(time.Millisecond))).String()
		}
		if f.Queued > 0 {
			queued = paint(text.FgYellow, queued)
		}
		t.AppendRow(table.Row{f.Function, f.Workers, f.Ready, queued, f.Running, rate, p50, fmt.Sprintf("%.0f%%", f.CPU), fmt.Sprintf("%d MB", f.Memory>>20)})
	}
	t.Render()
	if len(l.Workers) == 0 {
		return
	}
	fmt.Fprintln(out)
	t = newTable(out, "worker", "function", "state", "busy", "calls", "failed", "cpu", "memory", "node")
	for _, w := range l.Workers {
		cpu, memory := "-", "-"
		if w.Usage != nil {
			cpu, memory = fmt.Sprintf("%.0f%%", w.Usage.CPU), fmt.Sprintf("%d MB", w.Usage.Memory>>20)
		}
		t.AppendRow(table.Row{w.Alloc[:min(8, len(w.Alloc))], w.App + "." + w.Function, w.State, fmt.Sprintf("%d/%d", w.Busy, w.Slots), w.Done, w.Failed, cpu, memory, or(w.Node, "-")})
	}
	t.Render()
}

// histogram counts calls by the bounds that their times, in seconds, are below.
type histogram []bucket

type bucket struct {
	bound float64
	count uint64 // of this bound and all before
}

// readRuns reads how long the functions' calls ran; nothing where the gateway's metrics are not to be had.
func readRuns(ctx context.Context, api apiClient, namespace string) map[string]histogram {
	runs := make(map[string]histogram)
	response, err := api.do(ctx, http.MethodGet, "/metrics", nil, nil)
	if err != nil {
		return runs
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return runs
	}
	for _, metric := range families["freshet_gateway_call_phase_seconds"].GetMetric() {
		labels := labelsOf(metric)
		if labels["namespace"] != namespace || labels["phase"] != "run" {
			continue
		}
		var h histogram
		for _, b := range metric.GetHistogram().GetBucket() {
			h = append(h, bucket{b.GetUpperBound(), b.GetCumulativeCount()})
		}
		runs[labels["app"]+"."+labels["function"]] = h
	}
	return runs
}

func labelsOf(metric *dto.Metric) map[string]string {
	labels := make(map[string]string)
	for _, label := range metric.GetLabel() {
		labels[label.GetName()] = label.GetValue()
	}
	return labels
}

// minus is what came after another, earlier one.
func (h histogram) minus(before histogram) histogram {
	since := make(histogram, len(h))
	for i, b := range h {
		since[i] = b
		if i < len(before) && before[i].count <= b.count {
			since[i].count -= before[i].count
		}
	}
	return since
}

// median is the middle time in milliseconds, as even within a bucket as can be supposed; nil where nothing was counted.
func (h histogram) median() *float64 {
	if len(h) == 0 || h[len(h)-1].count == 0 {
		return nil
	}
	middle, low, counted := float64(h[len(h)-1].count)/2, 0.0, uint64(0)
	for i, b := range h {
		if float64(b.count) >= middle {
			bound := b.bound
			if i == len(h)-1 {
				bound = low // it has no end
			}
			ms := 1000 * (low + (bound-low)*(middle-float64(counted))/float64(max(1, b.count-counted)))
			return &ms
		}
		low, counted = b.bound, b.count
	}
	return nil
}
