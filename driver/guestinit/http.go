package guestinit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet/driver/guestinit/process"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	// checkWait bounds one check of a server that starts.
	checkWait = 10 * time.Second
	// thawWait bounds the wait for a thawed server: one that takes longer is no better than a cold start.
	thawWait = 10 * time.Second
	// firstPause and lastPause are between two checks of a server that starts: servers that start at once are ready at once.
	firstPause = 2 * time.Millisecond
	lastPause  = 100 * time.Millisecond
	// diedWait is how long after a broken connection a server's end may show, which is then the reason.
	diedWait = 100 * time.Millisecond
)

// httpHandler fronts a server.
type httpHandler struct {
	*session
	server *process.Child
	stderr tail
	// exited is closed when the server ended and its last words are read.
	exited chan struct{}
	// stopping says that its end is wanted.
	stopping atomic.Bool
	// address is where the server was reached last, one of its loopback addresses.
	address atomic.Pointer[string]
	// rest ends the checks of a server that serves.
	rest func()
}

// load starts the server and waits until it is ready; the host knows for how long.
func (h *httpHandler) load(ctx context.Context) error {
	if err := h.start(); err != nil {
		return err
	}
	if err := h.ready(ctx); err != nil {
		return err
	}
	h.work.Go(func() { h.guard(ctx) })
	h.watch(ctx)
	return nil
}

// start starts the server; what it prints is the guest's log.
func (h *httpHandler) start() error {
	command := h.settings.HTTP.Command
	program, err := findProgram(command[0], h.settings.Dir)
	if err != nil {
		return err
	}
	streams, err := openStreams()
	if err != nil {
		return err
	}
	defer streams.closeChild()
	_ = streams.stdin.ours.Close() // the server reads the end at once
	h.server, err = h.procs.Start(process.Command{
		Path: program, Args: command, Dir: h.settings.Dir, User: h.settings.User.credential(),
		Env:   append(h.env[:len(h.env):len(h.env)], "PORT="+strconv.Itoa(h.settings.HTTP.Port)),
		Stdin: streams.stdin.child, Stdout: streams.stdout.child, Stderr: streams.stderr.child,
	})
	if err != nil {
		closeAll(streams.ours()...)
		return err
	}
	h.work.Go(func() { h.collect(streams.stdout.ours, streams.stderr.ours) })
	return nil
}

// collect logs what the server prints until it ended.
func (h *httpHandler) collect(stdout, stderr *os.File) {
	var reading sync.WaitGroup
	for _, out := range []*os.File{stdout, stderr} {
		reading.Go(func() {
			eachLine(out, func(line string) {
				h.stderr.add(line)
				h.log(0, "", line)
			})
		})
	}
	<-h.server.Done()
	timer := time.AfterFunc(pipesWait, func() { closeAll(stdout, stderr) }) // what left the server's group may hold them open
	reading.Wait()
	timer.Stop()
	closeAll(stdout, stderr)
	close(h.exited)
}

// ended says how the server ended, with the exit code for the guest.
func (h *httpHandler) ended(when string) *Stopped {
	exit := h.server.Exit()
	stopped := &Stopped{Code: exit.Code, Message: "the server " + exit.String() + when + h.stderr.quote()}
	if exit.Signal != 0 {
		stopped.Code = 128 + int(exit.Signal)
	}
	if stopped.Code == 0 {
		stopped.Code = 1
		stopped.Message = "the server exited with code 0" + when + ": it must stay in the foreground" + h.stderr.quote()
	}
	return stopped
}

// ready waits until the server answers.
func (h *httpHandler) ready(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := firstPause; ; pause = min(pause*2, lastPause) {
		select {
		case <-timer.C:
		case <-h.exited:
			return h.ended(" before it was ready")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if h.check(ctx, h.settings.HTTP.Ready, checkWait, http.StatusBadRequest) == nil {
			return nil
		}
		timer.Reset(pause)
	}
}

// check asks the server once; its answer must be below the status. An empty path is answered by a connection.
func (h *httpHandler) check(ctx context.Context, path string, limit time.Duration, below int) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if path == "" {
		conn, err := h.dial(ctx)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url(path), nil)
	if err != nil {
		return err
	}
	status := 0
	err = h.roundTrip(request, func(response *http.Response) error {
		status = response.StatusCode
		return nil
	})
	if err == nil && status >= below {
		err = fmt.Errorf("GET %s: status %d", path, status)
	}
	return err
}

// dial connects to the server on the loopback interface, which some servers know by one of its two addresses alone.
func (h *httpHandler) dial(ctx context.Context) (net.Conn, error) {
	port := strconv.Itoa(h.settings.HTTP.Port)
	addresses := []string{net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}
	if known := h.address.Load(); known != nil {
		addresses = []string{*known}
	}
	var errs error
	for _, address := range addresses {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			h.address.Store(&address)
			return conn, nil
		}
		errs = errors.Join(errs, err)
	}
	return nil, errs
}

// guard ends the guest when the server ended.
func (h *httpHandler) guard(ctx context.Context) {
	select {
	case <-h.exited:
		if !h.stopping.Load() {
			h.end(h.fail(h.ended("")))
		}
	case <-ctx.Done():
	}
}

// watch begins to check the server that serves, where that is wanted, until rest.
func (h *httpHandler) watch(ctx context.Context) {
	if h.settings.HTTP.Live == "" {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	h.rest = func() {
		cancel()
		<-done
	}
	h.work.Go(func() {
		defer close(done)
		defer cancel()
		h.live(ctx)
	})
}

func (h *httpHandler) live(ctx context.Context) {
	settings := h.settings.HTTP
	ticker := time.NewTicker(settings.Every.Std())
	defer ticker.Stop()
	for failures := 0; ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		busy := h.calls.busy()
		err := h.check(ctx, settings.Live, settings.Every.Std(), http.StatusInternalServerError)
		switch {
		case err == nil || ctx.Err() != nil:
			failures = 0
		case busy || h.calls.busy(): // it may do one thing at a time
		default:
			failures++
		}
		if failures >= settings.Failures {
			h.end(h.fail(&Stopped{Code: 1, Message: fmt.Sprintf("the server failed %d checks in a row: %v%s", failures, err, h.stderr.quote())}))
			return
		}
	}
}

func (h *httpHandler) freeze(context.Context) error {
	h.rest()
	return nil
}

func (h *httpHandler) thawed(ctx context.Context) error {
	waiting, cancel := context.WithTimeoutCause(ctx, thawWait, &wire.Error{
		Kind: wire.KindUser, Message: fmt.Sprintf("the server did not answer within %s of its thaw", thawWait),
	})
	defer cancel()
	if err := h.ready(waiting); err != nil {
		return err
	}
	h.watch(ctx)
	return nil
}

// drain ends the server as its operator would.
func (h *httpHandler) drain(ctx context.Context) error {
	h.rest()
	h.stopping.Store(true)
	h.server.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(h.settings.Grace.Std(), func() { h.server.Signal(syscall.SIGKILL) })
	defer timer.Stop()
	return wait(ctx, h.exited)
}
