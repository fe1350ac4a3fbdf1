package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// idleTime is how long an idle worker is watched.
const idleTime = 10 * time.Second

// density measures what one idle worker costs the node beside its guest's own pages: memory that nobody else has, descriptors, threads,
// and, over some time, processor time and the times that its threads woke.
func density(ctx context.Context, s *system, _ *floors, r *report) error {
	if _, _, err := s.call(ctx, "bench.warm", input); err != nil {
		return err
	}
	pids, err := s.processesOf(ctx, "bench", "warm")
	if err != nil {
		return err
	}
	if err := pause(ctx, idleTime/5); err != nil {
		return err
	}
	before, err := costOf(pids)
	if err != nil {
		return err
	}
	if err := pause(ctx, idleTime); err != nil {
		return err
	}
	after, err := costOf(pids)
	if err != nil {
		return err
	}
	one := func(name, unit string, value float64) row {
		return values(name, unit, []float64{value}, slices.Max[[]float64], 0)
	}
	r.add(
		one("idle_worker_memory", "MB", after.own), one("idle_worker_descriptors", "", after.descriptors), one("idle_worker_threads", "", after.threads),
		one("idle_worker_cpu", "%", (after.ticks-before.ticks)/ticksPerSecond/idleTime.Seconds()*100),
		one("idle_worker_wakeups", "/s", (after.wakeups-before.wakeups)/idleTime.Seconds()),
	)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// processesOf are the supervisor, the sentry, the gofer and what else runs for the only worker of a function.
func (s *system) processesOf(ctx context.Context, app, function string) ([]int, error) {
	dirs, err := filepath.Glob(filepath.Join(s.local.DriverDir(), "tasks", "*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		task, err := handoff.ReadTask(filepath.Join(dir, handoff.TaskFile))
		if err != nil || task.Identity.App != app || task.Identity.Function != function {
			continue // another one, or on its way out
		}
		process, err := handoff.FindProcess(dir)
		if err != nil {
			continue // it ended
		}
		process.Close()
		return descendants(process.PID), ctx.Err()
	}
	return nil, fmt.Errorf("no worker of %s.%s", app, function)
}

// descendants are the process and all below it.
func descendants(pid int) []int {
	all := []int{pid}
	files, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	if err != nil {
		return all
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread ended
		}
		for field := range bytes.FieldsSeq(data) {
			if child, err := strconv.Atoi(string(field)); err == nil {
				all = append(all, descendants(child)...)
			}
		}
	}
	return all
}

// ticksPerSecond is the kernel's USER_HZ, which is 100 on every Linux of the last decades (proc(5)).
const ticksPerSecond = 100

// cost is what processes take.
type cost struct{ own, descriptors, threads, ticks, wakeups float64 }

func costOf(pids []int) (cost, error) {
	var sum cost
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		size, err := residentOf(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended
		}
		if err != nil {
			return sum, err
		}
		sum.own += size.own
		descriptors, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			return sum, err
		}
		sum.descriptors += float64(len(descriptors))
		if err := sum.addThreads(dir); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// addThreads adds the threads of a process, and how often they ran and slept (proc_pid_status(5)).
func (c *cost) addThreads(dir string) error {
	threads, err := filepath.Glob(filepath.Join(dir, "task", "*"))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(filepath.Join(thread, "stat"))
		if err != nil {
			continue // it ended
		}
		status, err := os.ReadFile(filepath.Join(thread, "status"))
		if err != nil {
			continue // it ended
		}
		c.threads++
		// Fields are counted from the end of the name in parentheses: state is field 3, user and system time 14 and 15.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		for _, field := range []int{14, 15} {
			ticks, err := strconv.ParseFloat(string(fields[field-3]), 64)
			if err != nil {
				return err
			}
			c.ticks += ticks
		}
		for line := range strings.Lines(string(status)) {
			if text, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				switches, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				if err != nil {
					return err
				}
				c.wakeups += switches
			}
		}
	}
	return nil
}
