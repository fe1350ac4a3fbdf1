//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/local"
	"github.com/freshet-dev/freshet/sdk/client"
)

const (
	demoFunction = "gosearch.search"
	demoQuery    = `{"q":"http server","limit":3}`
	// demoWarmCalls are made one after the other, for their median; demoBeat is the pause between the single calls that are
	// made while the map runs.
	demoWarmCalls = 200
	demoBeat      = 50 * time.Millisecond
	// demoPatience bounds the wait for a function to go back to zero: its window of 5 s and the stop of its workers.
	demoPatience = time.Minute
)

func newDemo(env environment) *cobra.Command {
	var o upOptions
	var app string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole path: cluster, deploy, cold start, thaw, map, back to zero",
		Long: `Starts a cluster on this machine unless one runs, deploys the app gosearch, and shows what happens: a cold start, the
scaling to zero, a thaw, a map of 10,000 queries with single calls beside it. The cluster stays up.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return demo(cmd, env, o, app) },
	}
	o.addFlags(cmd, env)
	cmd.Flags().StringVar(&app, "app", "examples/gosearch", "folder of gosearch")
	return cmd
}

// demonstration is one round of the demo; it collects the rows of the summary.
type demonstration struct {
	cmd   *cobra.Command
	out   io.Writer
	state *local.State
	calls *client.Client
	api   apiClient
	rows  []table.Row
}

func demo(cmd *cobra.Command, env environment, o upOptions, app string) error {
	if os.Geteuid() != 0 {
		return errors.New("start the cluster: sandboxes and cgroups need root: run `sudo make demo`")
	}
	queries, err := openLines(nil, filepath.Join(app, "queries.ndjson"))
	if err != nil {
		return fmt.Errorf("%w: run the demo in the repository, or name the app's folder with --app", err)
	}
	d := &demonstration{cmd: cmd, out: cmd.OutOrStdout()}
	if err := d.start(env, o); err != nil {
		return err
	}
	if err := d.deploy(env, app); err != nil {
		return err
	}
	cold, err := d.fromZero()
	if err != nil {
		return err
	}
	if err := d.thaw(cold); err != nil {
		return err
	}
	if err := d.warm(); err != nil {
		return err
	}
	if err := d.fanOut(queries); err != nil {
		return err
	}
	if err := d.back(); err != nil {
		return err
	}
	d.summary(env, o)
	return nil
}

func (d *demonstration) say(format string, values ...any) {
	fmt.Fprintf(d.out, format+"\n", values...)
}

func (d *demonstration) row(what, took, note string) {
	d.rows = append(d.rows, table.Row{what, took, note})
}

// start starts the cluster unless it runs.
func (d *demonstration) start(env environment, o upOptions) (err error) {
	if _, err := local.Holder(o.state); err == nil {
		if d.state, err = local.LoadState(o.state); err != nil {
			return err
		}
		d.say("==> A cluster runs already from %s", o.state)
	} else {
		d.say("==> Starting a cluster: NATS, Nomad with the freshet driver, gateway, autoscaler")
		began := time.Now()
		if d.state, err = upDetached(d.cmd.Context(), env, o); err != nil {
			return err
		}
		d.say("    ready after %s, state in %s", short(time.Since(began)), o.state)
		d.row("Cluster ready", short(time.Since(began)).String(), "")
	}
	d.calls, d.api = client.New(d.state.Gateway(), client.Token(d.state.Token)), newAPIClient(d.state.Gateway(), d.state.Token)
	return nil
}

// deploy deploys the app with something new in its environment: nothing that an earlier demo froze fits it.
func (d *demonstration) deploy(env environment, app string) error {
	d.say("==> Deploying %s", app)
	began := time.Now()
	fresh := map[string]string{"GOSEARCH_DEMO": strconv.FormatInt(began.Unix(), 10)}
	answer, err := deploy(d.cmd.Context(), d.api, app, deployOptions{namespace: "default", env: fresh, sdk: sdk{env.cache}})
	if err != nil {
		return err
	}
	answer.print(indent{d.out}, time.Since(began))
	d.row("Deploy", short(time.Since(began)).String(), "build, upload, one Nomad job")
	return d.awaitZero() // workers of an earlier demo
}

// timed calls the demo's query and says where the time went.
func (d *demonstration) timed() (client.Response, time.Duration, error) {
	began := time.Now()
	response, err := d.calls.Do(d.cmd.Context(), client.Request{
		Function: demoFunction, Body: []byte(demoQuery), ContentType: "application/json",
	})
	return response, time.Since(began), err
}

// cold is the first call's answer and how long it took.
type cold struct {
	body []byte
	took time.Duration
}

func (d *demonstration) fromZero() (cold, error) {
	d.say("==> First call, %s: no worker runs, nothing is frozen; the enter hook indexes the Go standard library", demoQuery)
	response, took, err := d.timed()
	if err != nil {
		return cold{}, err
	}
	d.say("    answered after %s:", short(took))
	d.hits(response.Body)
	d.row("From zero, cold", short(took).String(), "start, index, freeze, answer")
	return cold{body: response.Body, took: took}, nil
}

// hits prints what the function answered.
func (d *demonstration) hits(body []byte) {
	var answer struct {
		Symbols int
		Hits    []struct {
			Symbol, File string
			Line         int
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		d.say("    %s", body)
		return
	}
	for _, hit := range answer.Hits {
		d.say("      %-28s %s:%d", hit.Symbol, hit.File, hit.Line)
	}
	d.say("      (of %d symbols)", answer.Symbols)
}

func (d *demonstration) thaw(first cold) error {
	d.say("==> Waiting for the function to scale to zero (its window is 5 s)")
	if err := d.awaitZero(); err != nil {
		return err
	}
	d.say("    no worker is left")
	d.say("==> The same call again: a worker thaws with the index in its memory")
	response, took, err := d.timed()
	if err != nil {
		return err
	}
	if !bytes.Equal(response.Body, first.body) {
		return fmt.Errorf("the thawed worker answered %s, the cold one %s", response.Body, first.body)
	}
	times := fmt.Sprintf("%.0f times faster than cold, same answer", first.took.Seconds()/took.Seconds())
	d.say("    answered after %s: %s", short(took), times)
	d.row("From zero, thawed", short(took).String(), times)
	return nil
}

func (d *demonstration) warm() error {
	times := make([]time.Duration, 0, demoWarmCalls)
	for range demoWarmCalls {
		_, took, err := d.timed()
		if err != nil {
			return err
		}
		times = append(times, took)
	}
	d.row("Warm call", short(at(times, 0.5)).String(), fmt.Sprintf("median of %d, p99 %s", len(times), short(at(times, 0.99))))
	return nil
}

// at is a quantile of the durations, which it sorts.
func at(times []time.Duration, quantile float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(int(quantile*float64(len(times))), len(times)-1)]
}

// fanOut maps all queries while single calls go on beside it.
func (d *demonstration) fanOut(queries *lines) error {
	d.say("==> Mapping %d queries, 64 in flight, with single calls beside them", queries.count)
	ctx, cancel := context.WithCancel(d.cmd.Context())
	defer cancel()
	var singles []time.Duration
	var failed error
	var beside sync.WaitGroup
	beside.Go(func() { singles, failed = d.singles(ctx) })
	summary, err := mapLines(d.cmd, d.calls, demoFunction, queries, io.Discard, mapOptions{concurrency: 64})
	cancel()
	beside.Wait()
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if summary.failed > 0 {
		return fmt.Errorf("map: %d of %d queries failed", summary.failed, summary.done)
	}
	rate := fmt.Sprintf("%.0f a second, all answered", float64(summary.done)/summary.took.Seconds())
	d.say("    %d answered in %s: %s", summary.done, short(summary.took), rate)
	d.row(fmt.Sprintf("Map of %d", summary.done), short(summary.took).String(), rate)
	d.row("Single calls meanwhile", short(at(singles, 0.5)).String(), fmt.Sprintf("median of %d, p99 %s", len(singles), short(at(singles, 0.99))))
	return nil
}

// singles makes one call after the other until the context ends, and returns how long each took.
func (d *demonstration) singles(ctx context.Context) ([]time.Duration, error) {
	var times []time.Duration
	beat := time.NewTicker(demoBeat)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
		case <-ctx.Done():
			return times, nil
		}
		_, took, err := d.timed()
		if err != nil {
			return times, fmt.Errorf("single call beside the map: %w", err)
		}
		times = append(times, took)
	}
}

func (d *demonstration) back() error {
	d.say("==> Waiting for the function to scale to zero")
	began := time.Now()
	if err := d.awaitZero(); err != nil {
		return err
	}
	d.row("Back to zero", short(time.Since(began)).String(), "after the last call")
	return nil
}

// awaitZero waits until no worker is wanted and none is left.
func (d *demonstration) awaitZero() error {
	ctx, cancel := context.WithTimeout(d.cmd.Context(), demoPatience)
	defer cancel()
	for {
		var view functionRow
		if err := d.api.get(ctx, "/v1/functions/gosearch/search", nil, &view); err != nil {
			return fmt.Errorf("wait for zero: %w", err)
		}
		if view.Count == 0 && view.Workers == 0 {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for zero: %d workers are left after %s: see `freshet ps`", view.Workers, demoPatience)
		}
	}
}

func (d *demonstration) summary(env environment, o upOptions) {
	d.say("")
	t := newTable(d.out, "", "took", "")
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight, AlignHeader: text.AlignRight}})
	t.AppendRows(d.rows)
	t.Render()
	freshet, nomad := os.Args[0], "nomad"
	if programs, err := local.FindPrograms(o.nomad, o.runsc, env.cache); err == nil {
		nomad = programs.Nomad
	}
	if o.state != env.state {
		freshet = "FRESHET_STATE=" + o.state + " " + freshet
	}
	fmt.Fprintf(d.out, `
The cluster is still up. Gateway %[1]s, Nomad %[2]s

  curl %[1]s/v1/functions/gosearch/search/call -H 'Content-Type: application/json' -d '{"q":"json decoder"}'
  %[3]s call gosearch.search '{"q":"strings.Builder"}' -v
  %[3]s ps
  %[3]s logs gosearch.search
  NOMAD_ADDR=%[2]s %[4]s job status gosearch.search
  %[3]s down
`, d.state.Gateway(), d.state.Nomad(), freshet, nomad)
}

// indent puts lines under the step that they belong to.
type indent struct{ out io.Writer }

func (i indent) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if _, err := fmt.Fprintf(i.out, "    %s", line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
