// Command bench measures a real one-machine cluster and, in the same run, what its parts cost by themselves: the floors. A
// machine's speed and noise are then in both, and the ratios can be compared between machines.
//
// It prints a table and writes bench/out.json. Run it with `make bench`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const outFile = "bench/out.json"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures all parts, or after -only the one that is named. With another argument it is one of the processes that a floor needs.
func run(ctx context.Context, args []string) error {
	only := ""
	if len(args) == 2 && args[0] == "-only" {
		only, args = args[1], nil
	}
	if len(args) > 0 {
		return runFloor(ctx, args[0], args[1:])
	}
	work, err := os.MkdirTemp("", "freshet-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	s, err := startSystem(ctx, work)
	if err != nil {
		return errors.Join(err, os.RemoveAll(work))
	}
	r := &report{}
	err = measure(ctx, s, r, only)
	err = errors.Join(err, s.stop(), os.RemoveAll(work))
	r.print(os.Stdout)
	if err != nil || only != "" {
		return err
	}
	aims(os.Stdout, r)
	return r.write(outFile)
}

// measure fills the report, part by part.
func measure(ctx context.Context, s *system, r *report, only string) (err error) {
	f, err := startFloors(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	for _, part := range []struct {
		name string
		run  func(context.Context, *system, *floors, *report) error
	}{
		{"warm calls", warmCalls},
		{"rates", rates},
		{"python calls", pythonCalls},
		{"maps", mapCalls},
		{"half load", halfLoad},
		{"durability", durability},
		{"from zero", fromZero},
		{"scaling", scaling},
		{"starts", starts},
		{"thaw against cold", thawAgainstCold},
		{"memory", memory},
		{"density", density},
		{"restores of 1 GiB", restores},
		{"beside a deep batch", besideDeep}, // last: its calls go on
	} {
		if only != "" && only != part.name {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s\n", part.name)
		if err := part.run(ctx, s, f, r); err != nil {
			return fmt.Errorf("measure %s: %w", part.name, err)
		}
	}
	return nil
}

// aims says how the figures stand to what the project promises.
func aims(out *os.File, r *report) {
	warm, rate := r.find("warm_call"), r.find("rate_64")
	fmt.Fprintln(out)
	aim(out, warm.Ratio <= 1.35, "a warm call takes %.2f times its floor (aim: at most 1.35)", warm.Ratio)
	aim(out, rate.P50 >= min(3000, 0.25*rate.Floor), "at 64 in flight %.0f calls/s, %.2f of JetStream's (aim: 3,000, or 0.25)", rate.P50, rate.Ratio)
	mapped, half, deep := r.find("map_10000"), r.find("half_load_tail"), r.find("online_beside_deep_p99")
	aim(out, mapped.Ratio >= 0.4, "a map of 10,000 at %.2f of the queue's own rate (aim: 0.4)", mapped.Ratio)
	aim(out, half.P50 <= 3, "at half load p99 is %.1f times p50, the queue's own %.1f times (aim: 3)", half.P50, half.Floor)
	aim(out, deep.Ratio <= 2, "beside %d waiting calls of a batch an online function's p99 is %.1f times what it is alone (aim: 2)", deep.N, deep.Ratio)
	accepted, peer := r.find("scale_accepted"), r.find("peer_nomad_autoscaler")
	aim(out, accepted.P50 < 10, "from a call on an empty function to Job.Scale accepted %.1f ms, where nomad-autoscaler takes %.0f ms (aim: under 10)", accepted.P50, peer.P50)
	ratio := r.find("thaw_vs_cold")
	aim(out, ratio.P50 >= 5, "gosearch thaws %.0f times faster than it starts (aim: 5)", ratio.P50)
	for name, most := range map[string]float64{"start_standby": 15, "start_ahead": 70, "start_neither": 130, "from_zero_thaw": 60} {
		row := r.find(name)
		aim(out, row.P50 < most, "%s %.0f ms, %.1f times a driver that does nothing (aim: under %.0f ms)", name, row.P50, row.Ratio, most)
	}
	python := r.find("python_warm")
	aim(out, python.Ratio <= 1.5, "a warm call in Python takes %.2f times one in Go (aim: 1.5)", python.Ratio)
	idle := r.find("idle_worker_memory")
	aim(out, idle.P50 < 60, "an idle worker has %.0f MB of its own, %.2f %% of a processor (aim: under 60 MB, none)", idle.P50, r.find("idle_worker_cpu").P50)
	for _, name := range []string{"restore_1g_cached", "restore_1g_disk"} {
		row := r.find(name)
		aim(out, row.Ratio <= 2, "%s takes %.2f times reading it once (aim: 2)", name, row.Ratio)
	}
	for name, most := range map[string]float64{"rss_gateway": 60, "rss_autoscaler": 60} {
		row := r.find(name)
		aim(out, row.P50 <= most, "%s %.0f MB (aim: %.0f)", name, row.P50, most)
	}
}

func aim(out *os.File, met bool, format string, values ...any) {
	mark := "met   "
	if !met {
		mark = "MISSED"
	}
	fmt.Fprintf(out, "%s  %s\n", mark, fmt.Sprintf(format, values...))
}
