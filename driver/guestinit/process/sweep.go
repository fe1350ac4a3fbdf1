package process

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sweepWait bounds a sweep; a process that does not die of SIGKILL within it sits in the kernel, where nobody can help.
const sweepWait = 2 * time.Second

// Sweep kills the orphans that keep does not claim, and what they leave in turn, and returns when they are gone. An orphan is a
// process that left its group and whose parent ended: nothing else tells whose it was.
func (t *Table) Sweep(keep func(pid int) bool) {
	deadline := time.NewTimer(sweepWait)
	defer deadline.Stop()
	for t.killOrphans(keep) {
		select {
		case <-time.After(time.Millisecond): // a killed process takes a moment, and its children come to us only then
		case <-deadline.C:
			return
		}
		t.reap()
	}
}

// killOrphans tells whether there were any to kill. It holds the lock throughout: who is not reaped keeps its number.
func (t *Table) killOrphans(keep func(pid int) bool) bool {
	if _, err := anyEnded(); errors.Is(err, unix.ECHILD) {
		return false // no child at all, which is so after most calls
	}
	lists, err := filepath.Glob("/proc/self/task/*/children") // orphans come to any thread
	if err != nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	found := false
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that ended
		}
		for _, field := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(field)
			if err != nil || t.children[pid] != nil || keep(pid) {
				continue
			}
			found = true
			_ = unix.Kill(pid, unix.SIGKILL) // it may be dead already, and wait for reap
		}
	}
	return found
}

// Environ reads a variable of a process's environment as it was started; empty when it has none or is gone.
func Environ(pid int, name string) string {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return ""
	}
	for _, variable := range strings.Split(string(data), "\x00") {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value
		}
	}
	return ""
}
