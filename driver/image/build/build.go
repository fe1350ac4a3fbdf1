// Package build makes images from Dockerfiles: each RUN in a sandbox of its own, each change a layer, and nothing done again whose
// inputs are what they were.
//
// The language is Docker's (docs.docker.com/reference/dockerfile), read by buildkit's own parser.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-dev/freshet/driver/image"
)

// DefaultDiskBytes is how much one step may write.
const DefaultDiskBytes = 20 << 30

// Builder builds images on a node.
type Builder struct {
	// Images is where layers are unpacked, and base images come from.
	Images *image.Store
	// Runner runs the RUN steps.
	Runner Runner
	// Dir keeps what steps made and the caches that they share. Several builds may use it at once.
	Dir string
	// Work is the build's own directory, on the same file system. Default: one in Dir. A build whose process was killed leaves it, with
	// a sandbox's directory below each of its own.
	Work string
	// Fetch opens what ADD takes from an address; nil refuses such steps.
	Fetch func(ctx context.Context, address string) (Download, error)
	// Env is given to steps that have no such variables: what the node's operator says of package sources. It is in no layer and no key.
	Env map[string]string
	// Caches are variables that name a directory which steps share over builds, and that directory's own name.
	Caches map[string]string
	// DiskBytes is how much one step may write. Default DefaultDiskBytes.
	DiskBytes int64
	Log       zerolog.Logger
}

// Request asks for an image.
type Request struct {
	// Task holds the image, and what it is made of, until image.Store's Release.
	Task string
	// Name is the Dockerfile's name in errors. Default "Dockerfile".
	Name string
	// Dockerfile is its text.
	Dockerfile []byte
	// Context is a directory with what COPY and ADD take; empty: nothing.
	Context string
	// Ignore is the text of a .dockerignore. Default: the one in Context.
	Ignore []byte
	// Args are the values of ARG.
	Args map[string]string
	// HostPaths lets base images be files of the node, such as docker-archive:/srv/base.tar.
	HostPaths bool
	// Auth is how to log in to the registry of base images. Default: what the image store has.
	Auth image.Auth
	// Secrets are what RUN --mount=type=secret takes, by id. They are never part of a layer or a key.
	Secrets map[string][]byte
	// Target is the stage to build, by name or number. Default: the last one.
	Target string
	// NoCache runs each step again.
	NoCache bool
	// Progress is told what happens, from several goroutines at once. May be nil.
	Progress func(Event)
}

// EventKind is what an Event tells.
type EventKind string

// What Progress is told of a step.
const (
	// StepBegan, StepCached: it runs, or is taken from an earlier build.
	StepBegan  EventKind = "began"
	StepCached EventKind = "cached"
	// StepOutput is something that a RUN printed.
	StepOutput EventKind = "output"
	// StepEnded tells how long it took.
	StepEnded EventKind = "ended"
)

// Event is one piece of a build's progress.
type Event struct {
	Kind EventKind
	// Stage is the stage's name or number, Step the instruction.
	Stage, Step string
	Line        int
	Text        string
	Took        time.Duration
}

// Result is a built image.
type Result struct {
	// Image is what can be started; nil when the stage is scratch and has nothing in it.
	Image *image.Image
	// Config is what the Dockerfile says of how to run it.
	Config Config
	// Bases are the images of elsewhere that it is made of.
	Bases []image.Request
	// Steps and Cached count the steps that make layers, and those that did not have to run.
	Steps, Cached int
}

// Error is a fault of the Dockerfile or one of its steps.
type Error struct {
	// File and Line say where.
	File string
	Line int
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Build builds an image. Faults of the Dockerfile and its steps are an *Error.
func (b *Builder) Build(ctx context.Context, req Request) (*Result, error) {
	if req.Task == "" {
		return nil, errors.New("build image: no task to hold it for")
	}
	if req.Name == "" {
		req.Name = "Dockerfile"
	}
	file, err := parse(req.Name, req.Dockerfile, req.Args)
	if err != nil {
		return nil, err
	}
	target, err := file.find(req.Target)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(b.Dir, layersDir), 0o700); err != nil {
		return nil, fmt.Errorf("make build directory: %w", err)
	}
	run := &run{builder: b, req: req, file: file}
	defer run.close()
	if run.context, err = openContext(req.Context, req.Ignore); err != nil {
		return nil, err
	}
	return run.stages(ctx, target)
}

// run is one build.
type run struct {
	builder *Builder
	req     Request
	file    *dockerfile
	context *tree
	made    []*future
	count   counts
	scratch scratch

	mu    sync.Mutex
	bases []image.Request
}

// future is a stage that another may wait for.
type future struct {
	done  chan struct{}
	stage *stage
}

// stages builds the target and what it needs, stages that do not need each other at once.
func (r *run) stages(ctx context.Context, target int) (*Result, error) {
	r.made = make([]*future, len(r.file.stages))
	for i := range r.made {
		r.made[i] = &future{done: make(chan struct{})}
	}
	group, ctx := errgroup.WithContext(ctx)
	for i := range r.file.needed(target) {
		group.Go(func() error {
			made, err := r.stage(ctx, i)
			if err != nil {
				return err
			}
			r.made[i].stage = made
			close(r.made[i].done)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	last := r.made[target].stage
	result := &Result{
		Image: last.image, Config: last.config, Bases: r.bases, Steps: int(r.count.steps.Load()), Cached: int(r.count.cached.Load()),
	}
	if last.image == nil {
		return result, nil
	}
	var err error
	result.Image, err = r.builder.Images.Configure(ctx, r.req.Task, last.image, last.config.defaults())
	return result, err
}

// await waits for another stage of the build.
func (r *run) await(ctx context.Context, index int) (*stage, error) {
	select {
	case <-r.made[index].done:
		return r.made[index].stage, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (r *run) tell(event Event) {
	if r.req.Progress != nil {
		r.req.Progress(event)
	}
}

func (r *run) close() {
	if err := r.scratch.remove(); err != nil {
		r.builder.Log.Warn().Err(err).Msg("remove a build's files")
	}
}
