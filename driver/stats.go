package driver

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	cstructs "github.com/hashicorp/nomad/client/structs"
)

// clockTicks is the kernel's USER_HZ, which is 100 on every Linux of the last decades (proc(5)).
const clockTicks = 100

// usage remembers the last sample, for the share of a processor since then.
type usage struct {
	at    time.Time
	ticks uint64
}

// sample sends what the worker's processes use, every interval, until the task ends or the context does.
func (t *task) sample(ctx context.Context, interval time.Duration, out chan<- *cstructs.TaskResourceUsage) {
	ticker := time.NewTicker(max(interval, time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-t.ended:
			return
		case <-ctx.Done():
			return
		}
		select {
		case out <- t.measure():
		case <-ctx.Done():
			return
		}
	}
}

// measure adds up the supervisor, the sentry and the gofer, and what they started.
func (t *task) measure() *cstructs.TaskResourceUsage {
	now := time.Now()
	var rss, ticks uint64
	if t.process != nil {
		for _, pid := range descendants(t.process.PID) {
			r, c := readProcess(pid)
			rss, ticks = rss+r, ticks+c
		}
	}
	var percent float64
	if elapsed := now.Sub(t.usage.at).Seconds(); !t.usage.at.IsZero() && ticks >= t.usage.ticks {
		percent = float64(ticks-t.usage.ticks) / clockTicks / elapsed * 100
	}
	t.usage.at, t.usage.ticks = now, ticks
	return &cstructs.TaskResourceUsage{
		ResourceUsage: &cstructs.ResourceUsage{
			MemoryStats: &cstructs.MemoryStats{RSS: rss, Usage: rss, Measured: []string{"RSS", "Usage"}},
			CpuStats:    &cstructs.CpuStats{Percent: percent, Measured: []string{"Percent"}},
		},
		Timestamp: now.UnixNano(),
	}
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

// readProcess reads resident bytes and the ticks of processor time; none for a process that ended.
func readProcess(pid int) (rss, ticks uint64) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0
	}
	// Fields are counted from the end of the name in parentheses: state is field 3 (proc(5)).
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	number := func(field int) uint64 {
		if field-3 >= len(fields) {
			return 0
		}
		n, _ := strconv.ParseUint(string(fields[field-3]), 10, 64) // 0 when it is none
		return n
	}
	return number(24) * uint64(os.Getpagesize()), number(14) + number(15)
}
