// Package builder is the process of a task that builds an image: it runs the steps in sandboxes, in the task's own control group and
// network, says on standard output what it does, and puts the image into the cluster's blob store.
package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/driver/image/build"
	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/driver/supervisor/logfile"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// errStopped ends a build that somebody stopped.
var errStopped = errors.New("the build was stopped")

// Run builds the task's image. When the context ends, so does the build.
func Run(ctx context.Context, task handoff.Task, log zerolog.Logger) handoff.Exit {
	b := &builder{task: task, want: *task.Config.Build, log: log}
	exit, err := b.run(ctx)
	if err != nil {
		exit.Code, exit.Reason = 1, err.Error()
	}
	return exit
}

// builder builds one image.
type builder struct {
	task handoff.Task
	want spec.Build
	log  zerolog.Logger

	groups *groups
	blobs  *blobs.Store
	images *image.Store
}

func (b *builder) run(ctx context.Context) (exit handoff.Exit, err error) {
	stdout, stderr, err := logfile.Open(b.task.Logs)
	if err != nil {
		return exit, err
	}
	said := &report{out: stdout, log: b.log}
	defer func() {
		if err != nil {
			_, _ = fmt.Fprintln(stderr, err) // the exit says it too
		}
		err = errors.Join(err, stdout.Close(), stderr.Close())
	}()
	asked := ctx
	ctx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	defer context.AfterFunc(asked, func() { stop(errStopped) })()
	if b.groups, err = openGroups(ctx, b.task); err != nil {
		return exit, err
	}
	defer b.groups.close()
	control, err := handoff.Serve(ctx, b.task.StateDir, answer(func() { stop(errStopped) }))
	if err != nil {
		return exit, err
	}
	defer control.Close()
	limit := b.want.Timeout.Std()
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the build did not end within build.timeout, %s", limit))
	defer cancel()
	err = b.build(limited, said)
	exit.OOM = errors.Is(err, errMemory)
	return exit, err
}

// answer takes what the driver asks of a running task: any signal that would end a program ends the build.
func answer(stop func()) handoff.Handler {
	return func(_ context.Context, request handoff.Request, _ <-chan handoff.Size, _ []*os.File) handoff.Answer {
		switch unix.Signal(request.Signal) {
		case unix.SIGTERM, unix.SIGINT, unix.SIGKILL, unix.SIGHUP, unix.SIGQUIT:
			stop()
			return handoff.Answer{}
		}
		return handoff.Answer{Error: "a build takes no commands and no signals but those that end it"}
	}
}

// build builds the image, stores it, and says what it is called.
func (b *builder) build(ctx context.Context, said *report) (err error) {
	if b.blobs, err = blobs.Open(ctx, b.task.Blobs); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.blobs.Close()) }()
	var images image.Config
	if err := json.Unmarshal(b.task.Build.Images, &images); err != nil {
		return fmt.Errorf("read the image store's settings: %w", err)
	}
	images.Blobs = b.blobs
	if b.images, err = image.OpenStore(images, b.log); err != nil {
		return err
	}
	defer b.images.Close()
	request, err := b.request(ctx)
	if err != nil {
		return err
	}
	request.Progress = said.tell
	steps := b.steps()
	built, err := steps.Build(ctx, request)
	if err != nil {
		return because(ctx, err)
	}
	said.line("storing the image: %d layers", len(parts(built)))
	stored, err := steps.Export(ctx, built, b.blobs)
	if err != nil {
		return because(ctx, err)
	}
	stored.Name = b.want.Name
	if err := b.blobs.Images().Put(ctx, stored); err != nil {
		return because(ctx, err)
	}
	if b.want.Push != "" {
		said.line("pushing it to %s", b.want.Push)
		if err := b.images.Push(ctx, stored.Digest, b.want.Push, request.Auth); err != nil {
			return because(ctx, err)
		}
	}
	said.line("%d steps, %d of them done before", built.Steps, built.Cached)
	said.line("%s%s", blobs.BuiltLine, stored.Digest)
	return nil
}

func parts(built *build.Result) []image.Part {
	if built.Image == nil {
		return nil
	}
	return built.Image.Parts()
}

// because makes an error that is only the context's end say why that ended.
func because(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// request is what the task wants built.
func (b *builder) request(ctx context.Context) (build.Request, error) {
	request := build.Request{
		Task: filepath.Base(b.task.StateDir), Name: b.want.File, Dockerfile: []byte(b.want.Dockerfile), Args: make(map[string]string),
		Secrets: b.task.Build.Secrets, HostPaths: b.task.Build.HostPaths, Target: b.want.Target, NoCache: b.want.NoCache, Context: b.task.Build.Context,
	}
	for _, args := range b.want.Args {
		maps.Copy(request.Args, args)
	}
	if auth := b.task.Config.Auth; auth != nil {
		request.Auth = image.Auth{Username: auth.Username, Password: auth.Password, Server: auth.ServerAddress}
	}
	if digest, ok := strings.CutPrefix(request.Context, "sha256:"); ok {
		request.Context = filepath.Join(b.task.StateDir, "context")
		if err := b.unpack(ctx, digest, request.Context); err != nil {
			return request, fmt.Errorf("unpack the build's context: %w", err)
		}
	}
	if len(request.Dockerfile) > 0 {
		return request, nil
	}
	var err error
	request.Dockerfile, err = readDockerfile(request.Context, b.want.File)
	return request, err
}

// steps builds in the task's own directory, control group and network.
func (b *builder) steps() *build.Builder {
	given := b.task.Build
	runner := &build.Sandboxes{
		Runsc: b.task.Runsc, Platform: b.task.Platform, SharedDir: b.task.SharedDir, Init: given.Init,
		Network: sandbox.Network(b.task.Network.Kind), NetNS: b.task.Network.Namespace, Enter: b.groups.enter, Log: b.log,
	}
	for _, file := range append(b.task.Files, given.Files...) {
		runner.Files = append(runner.Files, sandbox.File{Target: file.Target, Content: file.Content})
	}
	return &build.Builder{
		Images: b.images, Runner: &watched{Runner: runner, groups: b.groups}, Dir: given.Dir, Work: filepath.Join(b.task.StateDir, handoff.BuildDir),
		Fetch: newFetcher(b.task).fetch, DiskBytes: int64(b.want.DiskMB) << 20, Log: b.log,
		Env: given.Env, Caches: map[string]string{"PIP_CACHE_DIR": "pip", "UV_CACHE_DIR": "uv", "npm_config_cache": "npm"},
	}
}

// report says on standard output what a build does. Its methods may be called at once.
type report struct {
	log zerolog.Logger

	mu     sync.Mutex
	out    io.Writer
	failed bool
}

// tell says one piece of progress.
func (r *report) tell(event build.Event) {
	switch event.Kind {
	case build.StepBegan:
		r.line("[%s] %s", event.Stage, event.Step)
	case build.StepCached:
		r.line("[%s] %s (done before)", event.Stage, event.Step)
	case build.StepOutput:
		r.line("[%s] | %s", event.Stage, event.Text)
	case build.StepEnded:
		r.line("[%s] took %.1f s", event.Stage, event.Took.Seconds())
	}
}

// line says a line. A place that takes nothing must not stop the build.
func (r *report) line(format string, values ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := fmt.Fprintf(r.out, format+"\n", values...)
	if err != nil && !r.failed {
		r.log.Error().Err(err).Msg("write the build's output; some of it is lost")
	}
	r.failed = err != nil
}
