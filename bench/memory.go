package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// memory measures what the components hold in memory when all calls are done, in MB, the guests' worker of one sandbox
// among them.
func memory(ctx context.Context, s *system, _ *floors, r *report) error {
	for _, name := range [][2]string{{"bench", "thaw"}, {"bench", "cold"}, {"gosearch", "search"}} {
		if err := s.awaitZero(ctx, name[0], name[1]); err != nil {
			return err
		}
	}
	if _, _, err := s.call(ctx, "bench.warm"); err != nil {
		return err
	}
	kinds := []struct {
		name  string
		match func(program, args string) bool
	}{
		{"rss_gateway", func(program, args string) bool {
			return program == s.bin && strings.HasPrefix(args, "gateway ") && strings.Contains(args, s.local.NATS())
		}},
		{"rss_autoscaler", func(program, args string) bool {
			return program == s.bin && strings.HasPrefix(args, "autoscaler ") && strings.Contains(args, s.local.NATS())
		}},
		{"rss_supervisor", func(program, args string) bool {
			return filepath.Base(program) == "freshet-worker" && strings.Contains(args, s.state)
		}},
		{"rss_sandbox", func(_, args string) bool {
			return strings.Contains(args, s.state) && (strings.Contains(args, " boot ") || strings.Contains(args, " gofer "))
		}},
	}
	sums := make([]float64, len(kinds))
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range processes {
		data, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it ended
		}
		words := bytes.Split(bytes.TrimRight(data, "\x00"), []byte{0})
		program, args := string(words[0]), string(bytes.Join(words[1:], []byte{' '}))
		for i, kind := range kinds {
			if !kind.match(program, args) {
				continue
			}
			size, err := resident(dir)
			if err != nil {
				return err
			}
			sums[i] += size
		}
	}
	for i, kind := range kinds {
		if sums[i] == 0 {
			return fmt.Errorf("%s: no such process", kind.name)
		}
		r.add(values(kind.name, "MB", sums[i:i+1], slices.Max[[]float64], 0))
	}
	return nil
}

// resident reads VmRSS, which the kernel gives in kB.
func resident(dir string) (float64, error) {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kb, err := strconv.ParseFloat(fields[1], 64)
			return kb / 1024, err
		}
	}
	return 0, nil
}
