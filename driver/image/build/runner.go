package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// Step is a command to run for a layer.
type Step struct {
	// Root is the root so far; it is not written to.
	Root string
	// StateDir is a directory of the step's own.
	StateDir string
	Args     []string
	// Env is the whole environment, as NAME=value.
	Env  []string
	Dir  string
	User string
	// Mounts and Files are what the step sees beside the root; nothing of them gets into the layer.
	Mounts []sandbox.Mount
	Files  []sandbox.File
	// Network lets the step reach what the node's operator lets it reach.
	Network bool
	// DiskBytes is how much it may write to its root.
	DiskBytes int64
	// Output takes what it prints.
	Output io.Writer
	// Upper reads what it changed, as a tar stream of the overlay, when it ended well.
	Upper func(io.Reader) error
}

// Runner runs the commands of steps.
type Runner interface {
	// Run runs a step to its end, or the context's.
	Run(ctx context.Context, step Step) (sandbox.Exit, error)
}

// Sandboxes runs each step in a gVisor sandbox.
type Sandboxes struct {
	// Runsc, Platform and SharedDir are those of sandbox.Config.
	Runsc, Platform, SharedDir string
	// Init is the path of freshet-init.
	Init string
	// Network and NetNS are what steps with a network get; several use it one after the other and at once.
	Network sandbox.Network
	NetNS   string
	// Files are the node's own, such as /etc/resolv.conf.
	Files []sandbox.File
	// Enter runs what starts a sandbox, in the control group that pays for it. Nil: it is run as it is.
	Enter func(start func() error) error
	Log   zerolog.Logger

	creating sync.Mutex // gVisor takes a sandbox's streams from this process's own
}

const (
	// initPath is in /tmp because gVisor mounts memory over an empty one, which no layer would be made of.
	initPath = "/tmp/.freshet/init"
	// drainWait is for what a step has printed when it ends, where something that it left running keeps the stream open.
	drainWait = 200 * time.Millisecond
)

// Run implements Runner.
func (r *Sandboxes) Run(ctx context.Context, step Step) (exit sandbox.Exit, err error) {
	config := sandbox.Config{
		ID: "step", Runsc: r.Runsc, Platform: r.Platform, SharedDir: r.SharedDir, StateDir: filepath.Join(step.StateDir, handoff.SandboxDir),
		Rootfs: step.Root, Overlay: &sandbox.Overlay{Dir: step.StateDir, Size: step.DiskBytes},
		Args: []string{initPath, "wait"}, Env: step.Env, AllowNewPrivileges: true,
		Mounts: append([]sandbox.Mount{{Source: r.Init, Target: initPath}}, step.Mounts...), Files: append(step.Files, r.Files...),
	}
	if config.Capabilities, err = sandbox.Capabilities(nil, nil); err != nil {
		return exit, err
	}
	if step.Network {
		config.Network, config.NetNS = r.Network, r.NetNS
	}
	box, err := r.create(config)
	if err != nil {
		return exit, err
	}
	var copying sync.WaitGroup
	defer func() {
		err = errors.Join(err, box.Destroy())
		copying.Wait()
		for _, file := range []*os.File{box.Stdin, box.Stdout, box.Stderr} {
			_ = file.Close() // pipes to nobody
		}
	}()
	for _, file := range []*os.File{box.Stdout, box.Stderr} {
		copying.Go(func() { _, _ = io.Copy(io.Discard, file) }) // the first process says nothing
	}
	if err := box.Start(); err != nil {
		return exit, err
	}
	if exit, err = command(ctx, box, step); err != nil || exit != (sandbox.Exit{}) {
		return exit, err
	}
	if err := upper(box, step); err != nil { // such as one that ended the sandbox's first process
		return exit, fmt.Errorf("the command ended and its changes cannot be read: %w", err)
	}
	return exit, nil
}

func (r *Sandboxes) create(config sandbox.Config) (box *sandbox.Sandbox, err error) {
	r.creating.Lock()
	defer r.creating.Unlock()
	if r.Enter == nil {
		return sandbox.Create(config, r.Log)
	}
	err = r.Enter(func() (err error) {
		box, err = sandbox.Create(config, r.Log)
		return err
	})
	if err != nil && box != nil {
		err = errors.Join(err, box.Destroy())
	}
	return box, err
}

// command runs the step's command and passes on what it prints.
func command(ctx context.Context, box *sandbox.Sandbox, step Step) (sandbox.Exit, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return sandbox.Exit{}, fmt.Errorf("make a pipe: %w", err)
	}
	var copying sync.WaitGroup
	copying.Go(func() { _, _ = io.Copy(step.Output, read) })
	exit, err := box.Exec(ctx, sandbox.ExecConfig{Args: step.Args, Cwd: step.Dir, User: step.User, Stdout: write, Stderr: write})
	_ = write.Close() // the sandbox has its own
	if errors.Is(err, sandbox.ErrNotFound) {
		exit, err = sandbox.Exit{Code: 127}, nil
		_, _ = fmt.Fprintf(step.Output, "%s: not found\n", step.Args[0]) // to a buffer
	}
	// What the step left running may hold its streams; the sandbox's end closes them.
	if stopped := box.Pause(); stopped != nil && err == nil && exit == (sandbox.Exit{}) {
		err = fmt.Errorf("the command ended its sandbox: %w", stopped)
	}
	_ = read.SetReadDeadline(time.Now().Add(drainWait)) // an os.Pipe has deadlines
	copying.Wait()
	_ = read.Close()
	return exit, err
}

// upper hands on what the step changed.
func upper(box *sandbox.Sandbox, step Step) error {
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	failed := make(chan error, 1)
	go func() { // ends with the pipe, and is waited for below
		failed <- errors.Join(box.TarUpper(write), write.Close())
	}()
	err = step.Upper(read)
	_ = read.Close() // a writer that goes on is told
	return errors.Join(err, <-failed)
}
