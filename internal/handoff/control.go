package handoff

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Request is what the plugin asks a running supervisor; exactly one field is set. One connection carries one request and its
// answer.
type Request struct {
	// Exec runs a further process in the sandbox; its three standard streams come as file descriptors with the request.
	Exec *Exec `json:"exec,omitempty"`
	// Signal is sent to the guest's first process.
	Signal int `json:"signal,omitempty"`
}

// Exec is a further process in a sandbox.
type Exec struct {
	Args []string `json:"args"`
	// Terminal runs it in a terminal of that size, whose other end the streams are.
	Terminal *Size `json:"terminal,omitempty"`
}

// Size is a terminal's, in characters.
type Size struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// Answer is what the supervisor says.
type Answer struct {
	// Code and Signal are how an Exec ended.
	Code   int `json:"code,omitempty"`
	Signal int `json:"signal,omitempty"`
	// Error says why the request could not be fulfilled.
	Error string `json:"error,omitempty"`
}

// dialWait bounds how long a supervisor may take to accept; it does nothing else meanwhile.
const dialWait = 5 * time.Second

// ErrNoControl says that no supervisor listens for the task: it has not come up yet, or has ended.
var ErrNoControl = errors.New("the task's supervisor does not answer")

// socketAddress names the socket through a descriptor of its directory: the path itself may be longer than the 108 bytes that
// unix(7) allows.
func socketAddress(dir *os.File) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), ControlFile)
}

// Ask sends a request with its files to the supervisor of a state directory and waits for the answer. When the context ends,
// the connection closes, and the supervisor gives the request up. It leaves the files open. resize, which may be nil, brings later
// sizes of an Exec's terminal; whoever sends them must not wait for that to succeed.
func Ask(ctx context.Context, stateDir string, request Request, resize <-chan Size, files ...*os.File) (Answer, error) {
	conn, err := dialControl(ctx, stateDir)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = conn.Close() }() // the answer is here, or nobody wants it
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	data, err := json.Marshal(request)
	if err != nil {
		return Answer{}, fmt.Errorf("encode request: %w", err)
	}
	fds := make([]int, len(files))
	for i, file := range files {
		fds[i] = int(file.Fd())
	}
	if err := sendRequest(conn, data, fds); err != nil {
		return Answer{}, err
	}
	answered := make(chan struct{})
	var sizes sync.WaitGroup
	sizes.Go(func() { passOn(conn, resize, answered) })
	var answer Answer
	err = json.NewDecoder(conn).Decode(&answer)
	close(answered)
	sizes.Wait()
	if err != nil {
		if ctx.Err() != nil {
			return Answer{}, context.Cause(ctx)
		}
		return Answer{}, fmt.Errorf("%w: %w", ErrNoControl, err)
	}
	if answer.Error != "" {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}

// passOn sends a terminal's sizes until the answer is there.
func passOn(conn *net.UnixConn, resize <-chan Size, answered <-chan struct{}) {
	out := json.NewEncoder(conn)
	for {
		select {
		case size, ok := <-resize:
			if !ok || out.Encode(size) != nil {
				return // the answer says more
			}
		case <-answered:
			return
		}
	}
}

func dialControl(ctx context.Context, stateDir string) (*net.UnixConn, error) {
	dir, err := os.Open(stateDir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoControl, err)
	}
	defer func() { _ = dir.Close() }() // a directory
	dialer := net.Dialer{Timeout: dialWait}
	conn, err := dialer.DialContext(ctx, "unix", socketAddress(dir))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoControl, err)
	}
	return conn.(*net.UnixConn), nil
}

// Listens tells whether a supervisor takes requests for the state directory.
func Listens(ctx context.Context, stateDir string) bool {
	conn, err := dialControl(ctx, stateDir)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was asked
	return true
}

// sendRequest writes the request, with the descriptors beside its first byte.
func sendRequest(conn *net.UnixConn, data []byte, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(data[:1], rights, nil)
	if err == nil && n == 1 {
		_, err = conn.Write(data[1:])
	}
	if err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	return nil
}
