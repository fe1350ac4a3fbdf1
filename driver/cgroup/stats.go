package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Stats is what a group uses and has used since it was made, in Nomad's terms. What a missing controller would count is 0.
// Memory is in bytes.
type Stats struct {
	// CPU is the processors' time used so far, CPUUser and CPUSystem its parts. Two samples make a percentage.
	CPU, CPUUser, CPUSystem time.Duration
	// ThrottledPeriods counts the periods of 100 ms in which the CPUs limit stopped them, Throttled for how long.
	ThrottledPeriods uint64
	Throttled        time.Duration
	// RSS is memory that only the processes' end or their own doing gives back. A guest's memory is a file in the sentry's
	// memory (shmem), so that is counted here, where the kernel counts it as cache.
	RSS uint64
	// Cache is files' pages, which the kernel takes back when it needs them.
	Cache uint64
	// Swap is what lies in swap, MappedFile the part of cache and guest memory that is mapped into processes.
	Swap, MappedFile uint64
	// Usage is all that counts against the limit, MaxUsage its highest value so far, or 0 where the kernel does not know it
	// (v2 before Linux 5.19). Kernel is the kernel's own part of it.
	Usage, MaxUsage, Kernel uint64
	// OOMKills is how many processes were killed because memory was short.
	OOMKills uint64
	// PIDs is how many processes and threads there are.
	PIDs uint64
}

// Add returns the sum: of a task's two groups, for what the whole task uses. The highest usages need not have been at the same
// time, so the sum of MaxUsage is a bound.
func (s Stats) Add(other Stats) Stats {
	return Stats{
		CPU:              s.CPU + other.CPU,
		CPUUser:          s.CPUUser + other.CPUUser,
		CPUSystem:        s.CPUSystem + other.CPUSystem,
		ThrottledPeriods: s.ThrottledPeriods + other.ThrottledPeriods,
		Throttled:        s.Throttled + other.Throttled,
		RSS:              s.RSS + other.RSS,
		Cache:            s.Cache + other.Cache,
		Swap:             s.Swap + other.Swap,
		MappedFile:       s.MappedFile + other.MappedFile,
		Usage:            s.Usage + other.Usage,
		MaxUsage:         s.MaxUsage + other.MaxUsage,
		Kernel:           s.Kernel + other.Kernel,
		OOMKills:         s.OOMKills + other.OOMKills,
		PIDs:             s.PIDs + other.PIDs,
	}
}

// reader reads a group's files and keeps the first error. Files of controllers that are not there count as empty.
type reader struct {
	dir func(controller string) string
	has func(controller string) bool
	err error
}

func (r *reader) keyed(controller, file string) map[string]uint64 {
	if r.err != nil || !r.has(controller) {
		return nil
	}
	values, err := readKeyed(filepath.Join(r.dir(controller), file))
	r.err = err
	return values
}

func (r *reader) number(controller, file string) uint64 {
	if r.err != nil || !r.has(controller) {
		return 0
	}
	value, err := readNumber(filepath.Join(r.dir(controller), file))
	r.err = err
	return value
}

func (r *reader) duration(controller, file string) time.Duration {
	return nanoseconds(r.number(controller, file))
}

// readKeyed reads a file of lines with a name and a number.
func readKeyed(path string) (map[string]uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	values, err := parseKeyed(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return values, nil
}

// parseKeyed parses lines of a name and a number. Lines that have another form are of no concern here: the kernel adds some.
func parseKeyed(data []byte) (map[string]uint64, error) {
	values := make(map[string]uint64)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 2 {
			continue
		}
		value, err := strconv.ParseUint(fields[1], 10, 64)
		if errors.Is(err, strconv.ErrSyntax) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fields[0], err)
		}
		values[fields[0]] = value
	}
	return values, lines.Err()
}

func readNumber(path string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	value, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return value, nil
}

func readFields(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(data)), nil
}

// write writes to one of the kernel's files, which must be there.
func write(path, value string) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.WriteString(value); err != nil {
		return &fs.PathError{Op: "write " + value + " to", Path: path, Err: errors.Unwrap(err)}
	}
	return nil
}

// less subtracts without going below 0: the kernel's counters are not read at one time.
func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

func nanoseconds(n uint64) time.Duration  { return time.Duration(min(n, math.MaxInt64)) }
func microseconds(n uint64) time.Duration { return nanoseconds(min(n, math.MaxInt64/1000) * 1000) }
