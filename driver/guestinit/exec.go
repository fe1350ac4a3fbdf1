package guestinit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/freshet-dev/freshet/driver/guestinit/process"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// callEnv names the variable by which the processes of a call are known, also those that left its group.
const callEnv = "FRESHET_CALL"

// pipesWait bounds the wait for a command's output after all its processes are gone.
const pipesWait = time.Second

// execHandler runs a command for each call.
type execHandler struct {
	*session
	template template
	program  string

	running sync.Map // the ids of the calls that run
}

func newExec(s *session) (*execHandler, error) {
	parsed, err := parseTemplate(s.settings.Exec.Command)
	if err != nil {
		return nil, err
	}
	return &execHandler{session: s, template: parsed}, nil
}

// load finds the program, so that a wrong name is known before the first call.
func (e *execHandler) load(context.Context) error {
	var err error
	e.program, err = findProgram(e.settings.Exec.Command[0], e.settings.Dir)
	return err
}

// findProgram looks a program up as a shell would.
func findProgram(name, dir string) (string, error) {
	if strings.Contains(name, "/") && !filepath.IsAbs(name) {
		name = filepath.Join("/", dir, name)
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	var cause *exec.Error
	if errors.As(err, &cause) {
		err = cause.Err
	}
	return "", fieldError("command[0]", name, "name a program that is in the image: %v", err)
}

func (e *execHandler) freeze(context.Context) error { return nil }
func (e *execHandler) thawed(context.Context) error { return nil }
func (e *execHandler) drain(context.Context) error  { return nil }

func (e *execHandler) call(ctx context.Context, c call) (wire.Result, []byte, error) {
	args, err := e.template.expand(c.meta, c.input)
	if err != nil {
		return wire.Result{}, nil, err
	}
	e.running.Store(c.meta.ID, true)
	defer e.running.Delete(c.meta.ID)
	run, err := e.start(ctx, c, args)
	if err != nil {
		return wire.Result{}, nil, err
	}
	run.wait(ctx, e.settings.Grace.Std())
	e.running.Delete(c.meta.ID)
	e.procs.Sweep(func(pid int) bool {
		_, runs := e.running.Load(process.Environ(pid, callEnv))
		return runs
	})
	run.finish()
	if err := run.verdict(ctx); err != nil {
		return wire.Result{}, nil, err
	}
	return wire.Result{ContentType: e.contentType(run.output)}, run.output, nil
}

// contentType is the setting, or what the output looks like.
func (e *execHandler) contentType(output []byte) string {
	switch {
	case e.settings.Exec.ContentType != "":
		return e.settings.Exec.ContentType
	case json.Valid(output):
		return "application/json"
	case utf8.Valid(output) || int64(len(output)) > e.greeting().MaxPayload && utf8.Valid(trimRune(output)):
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// trimRune leaves out a character that is cut off at the end.
func trimRune(text []byte) []byte {
	for cut := 1; cut < utf8.UTFMax && cut < len(text); cut++ {
		if last := text[len(text)-cut:]; utf8.RuneStart(last[0]) && !utf8.FullRune(last) {
			return text[:len(text)-cut]
		}
	}
	return text
}

// environ is what a call's command sees beside the sandbox's environment.
func (e *execHandler) environ(c call) []string {
	id := e.greeting().Identity
	return append(e.env[:len(e.env):len(e.env)],
		callEnv+"="+c.meta.ID,
		"FRESHET_METHOD="+c.meta.Method,
		fmt.Sprintf("FRESHET_ATTEMPT=%d", c.meta.Attempt),
		"FRESHET_DEADLINE="+deadlineText(c.meta),
		"FRESHET_CONTENT_TYPE="+c.meta.ContentType,
		"FRESHET_APP="+id.App, "FRESHET_FUNCTION="+id.Function, "FRESHET_ALLOC="+id.Alloc,
		"TRACEPARENT="+c.meta.Traceparent,
	)
}

// run is a command that runs for a call.
type run struct {
	child   *process.Child
	pipes   []*os.File // our ends
	copying sync.WaitGroup
	limit   int64
	output  []byte
	over    bool // the output passed the limit
	stderr  tail
}

// start starts a call's command and what feeds and reads it.
func (e *execHandler) start(ctx context.Context, c call, args []string) (*run, error) {
	input, err := e.reader(ctx, c)
	if err != nil {
		return nil, err
	}
	streams, err := openStreams()
	if err != nil {
		return nil, err
	}
	defer streams.closeChild()
	r := &run{limit: e.greeting().MaxPayload, pipes: streams.ours()}
	r.child, err = e.procs.Start(process.Command{
		Path: e.program, Args: args, Env: e.environ(c), Dir: e.settings.Dir, User: e.settings.User.credential(),
		Stdin: streams.stdin.child, Stdout: streams.stdout.child, Stderr: streams.stderr.child,
	})
	if err != nil {
		closeAll(r.pipes...)
		return nil, &wire.Error{Kind: wire.KindUser, Type: "start", Message: err.Error()}
	}
	r.copying.Go(func() { feed(streams.stdin.ours, input) })
	r.copying.Go(func() {
		r.collect(streams.stdout.ours, func(rest io.Reader) (bool, error) { return e.passOn(ctx, c, r.output, rest) })
	})
	r.copying.Go(func() {
		eachLine(streams.stderr.ours, func(line string) {
			r.stderr.add(line)
			e.log(c.number, "", line)
		})
	})
	return r, nil
}

// feed writes the input, unless the command does not want it all.
func feed(stdin *os.File, input io.Reader) {
	_, _ = io.Copy(stdin, input)
	_ = stdin.Close()
}

// firstRoom is where the room for an output begins, in bytes.
const firstRoom = 4 << 10

// collect keeps the output, up to the limit of a message; its room never grows beyond that. What is longer is passed on.
func (r *run) collect(stdout *os.File, passOn func(rest io.Reader) (bool, error)) {
	most := int(r.limit) + 1
	output := make([]byte, 0, min(firstRoom, most))
	for len(output) < most {
		if len(output) == cap(output) {
			output = append(make([]byte, 0, min(2*cap(output), most)), output...)
		}
		n, err := stdout.Read(output[len(output):cap(output)])
		output = output[:len(output)+n]
		if err != nil { // its writers are gone, or it was closed
			r.output = output
			return
		}
	}
	r.output = output
	passed, err := passOn(stdout)
	if r.over = !passed; r.over || err != nil && !errors.Is(err, os.ErrClosed) { // the host wants no more
		r.child.Signal(syscall.SIGKILL)
	}
}

// wait waits for the command to end, and ends it when the call is over first.
func (r *run) wait(ctx context.Context, grace time.Duration) {
	select {
	case <-r.child.Done():
		return
	case <-ctx.Done():
	}
	r.child.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-r.child.Done():
	case <-timer.C:
		r.child.Signal(syscall.SIGKILL)
		<-r.child.Done()
	}
}

// finish takes what is left in the pipes. All processes are gone by now: what still holds a pipe open cannot be helped.
func (r *run) finish() {
	timer := time.AfterFunc(pipesWait, func() { closeAll(r.pipes...) })
	r.copying.Wait()
	timer.Stop()
	closeAll(r.pipes...)
}

// verdict is nil for a command that did its work.
func (r *run) verdict(ctx context.Context) error {
	var ended *wire.Error
	if errors.As(context.Cause(ctx), &ended) {
		return ended
	}
	if r.over {
		return &wire.Error{
			Kind: wire.KindUser, Type: "output",
			Message: fmt.Sprintf("the command wrote more than %d bytes to standard output, which is the limit of a result", r.limit),
		}
	}
	exit := r.child.Exit()
	switch {
	case exit.Signal != 0:
		return &wire.Error{Kind: wire.KindUser, Type: "signal", Message: "the command " + exit.String() + r.stderr.quote()}
	case exit.Code != 0:
		return &wire.Error{Kind: wire.KindUser, Type: "exit", Message: "the command " + exit.String() + r.stderr.quote()}
	}
	return nil
}
