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

// memory measures what gateway and autoscaler hold in memory when all calls are done, in MB; density measures workers.
func memory(ctx context.Context, s *system, _ *floors, r *report) error {
	for _, name := range [][2]string{{"bench", "thaw"}, {"bench", "cold"}, {"gosearch", "search"}} {
		if err := s.awaitZero(ctx, name[0], name[1]); err != nil {
			return err
		}
	}
	if _, _, err := s.call(ctx, "bench.warm", input); err != nil {
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
	}
	sums := make([]resident, len(kinds))
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
			size, err := residentOf(dir)
			if err != nil {
				return err
			}
			sums[i].own += size.own
			sums[i].file = max(sums[i].file, size.file) // the pages of one program, which its processes share
		}
	}
	for i, kind := range kinds {
		if sums[i].own == 0 {
			return fmt.Errorf("%s: no such process", kind.name)
		}
		r.add(values(kind.name, "MB", []float64{sums[i].own + sums[i].file}, slices.Max[[]float64], 0))
	}
	return nil
}

// resident is memory in MB: a process's own, and pages of files, which processes of one program have in common.
type resident struct{ own, file float64 }

// residentOf reads the parts of VmRSS, which the kernel gives in kB (proc_pid_status(5)).
func residentOf(dir string) (resident, error) {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return resident{}, err
	}
	var r resident
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kb, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			continue // another field
		}
		switch fields[0] {
		case "RssAnon:", "RssShmem:":
			r.own += kb / 1024
		case "RssFile:":
			r.file += kb / 1024
		}
	}
	return r, nil
}
