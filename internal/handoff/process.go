package handoff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone says that the process ended.
var ErrGone = errors.New("process is gone")

// Process is a supervisor, held by a pidfd, so that its pid cannot come to mean another process.
type Process struct {
	PID  int
	file *os.File // the pidfd, watched by the runtime's poller
}

type pidRecord struct {
	PID int `json:"pid"`
	// StartTime is field 22 of /proc/<pid>/stat, in clock ticks since boot.
	StartTime uint64 `json:"start_time"`
}

// WritePID records the process in the state directory, for whoever looks for it later.
func WritePID(stateDir string, pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(stateDir, PIDFile), pidRecord{PID: pid, StartTime: start}); err != nil {
		return fmt.Errorf("write pid: %w", err)
	}
	return nil
}

// FindProcess opens the process that the state directory records: ErrGone when it ended, os.ErrNotExist when none was
// recorded. Close it.
func FindProcess(stateDir string) (*Process, error) {
	var record pidRecord
	if err := readJSON(filepath.Join(stateDir, PIDFile), &record); err != nil {
		return nil, fmt.Errorf("read pid: %w", err)
	}
	process, err := OpenProcess(record.PID)
	if err != nil {
		return nil, err
	}
	start, err := startTime(record.PID)
	if err != nil || start != record.StartTime || process.ended() {
		process.Close()
		return nil, ErrGone
	}
	return process, nil
}

// ended tells of a process that ended although nobody has collected it: it still has its number.
func (p *Process) ended() bool {
	ended := false
	err := p.control(func(fd int) { ended = readable(fd) })
	return err == nil && ended
}

// readable tells whether the process of a pidfd ended (pidfd_open(2)).
func readable(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0 && err == nil
}

// OpenProcess opens a process that is known to be the right one, such as a child that nobody has waited for: ErrGone when it
// ended. Close it.
func OpenProcess(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &Process{PID: pid, file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Signal sends a signal; ErrGone when the process ended.
func (p *Process) Signal(signal unix.Signal) error {
	var sent error
	err := p.control(func(fd int) { sent = unix.PidfdSendSignal(fd, signal, nil, 0) })
	if errors.Is(sent, unix.ESRCH) {
		return ErrGone
	}
	if err = errors.Join(err, sent); err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

func (p *Process) control(use func(fd int)) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Control(func(fd uintptr) { use(int(fd)) })
}

// Wait returns nil when the process ended, or the context's error. A pidfd is readable from the process's end on
// (pidfd_open(2)), so waiting costs no thread.
func (p *Process) Wait(ctx context.Context) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", p.PID, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) }) // fails when it is closed
	defer stop()
	err = conn.Read(func(fd uintptr) bool { return readable(int(fd)) })
	if ctx.Err() != nil && err != nil {
		_ = p.file.SetReadDeadline(time.Time{}) // for whoever waits next
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", p.PID, err)
	}
	return nil
}

// Close lets the process go; it runs on.
func (p *Process) Close() { _ = p.file.Close() } // nothing is written through it

// startTime reads the start time of a process, which together with its pid names it for the life of the machine.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	// The name in parentheses may hold anything, so fields are counted from its end: state is field 3.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const startField = 22 - 3
	if len(fields) <= startField {
		return 0, fmt.Errorf("read start time of process %d: short stat line", pid)
	}
	start, err := strconv.ParseUint(string(fields[startField]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	return start, nil
}
