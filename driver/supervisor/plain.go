package supervisor

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/driver/supervisor/logfile"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// plain is an ordinary task: one process in a sandbox, without calls.
type plain struct {
	task handoff.Task
	log  zerolog.Logger
	box  *sandbox.Sandbox

	groups *groups
}

// runPlain runs an ordinary task to its end. When the context ends, the guest is asked to end as by kill(1).
func runPlain(ctx context.Context, task handoff.Task, log zerolog.Logger) handoff.Exit {
	p := &plain{task: task, log: log}
	exit, err := p.run(ctx)
	if err != nil {
		return failure(err)
	}
	return exit
}

func (p *plain) run(ctx context.Context) (exit handoff.Exit, err error) {
	stdout, stderr, err := logfile.Open(p.task.Logs)
	if err != nil {
		return exit, err
	}
	defer func() { err = errors.Join(err, stdout.Close(), stderr.Close()) }()
	if p.groups, err = openGroups(ctx, p.task.Cgroups, p.log); err != nil {
		return exit, err
	}
	defer p.groups.close()
	if p.box, err = createSandbox(p.task, p.groups, "task", p.log); err != nil {
		return exit, err
	}
	var copying sync.WaitGroup
	defer func() { // in this order: what the guest said last is written before its end is told
		err = errors.Join(err, p.box.Destroy())
		copying.Wait()
		closeStreams(p.box)
	}()
	if err := p.box.Start(); err != nil {
		return exit, err
	}
	// From here on the plugin can ask: its socket says that the guest runs.
	control, err := handoff.Serve(ctx, p.task.StateDir, newControl(p.box, p.task).answer)
	if err != nil {
		return exit, err
	}
	defer control.Close()
	copying.Go(func() { p.pour(p.box.Stdout, stdout) })
	if !p.task.Program.TTY {
		_ = p.box.Stdin.Close() // nobody types
		copying.Go(func() { p.pour(p.box.Stderr, stderr) })
	}
	stop := context.AfterFunc(ctx, func() { p.signal(unix.SIGTERM) })
	defer stop()
	end, err := p.box.Wait()
	if err != nil {
		return exit, err
	}
	return p.ended(end), nil
}

// ended says how the guest ended, as a shell does, and whether it was for want of memory.
func (p *plain) ended(end sandbox.Exit) handoff.Exit {
	exit := handoff.Exit{Code: end.Code, Signal: end.Signal}
	if end.Signal != 0 {
		exit.Code = 128 + end.Signal
	}
	if end.Lost != "" {
		exit.Reason = "the task " + end.String()
	}
	if p.groups.outOfMemory() {
		exit.OOM = true
		exit.Reason = memoryReason(p.task)
	}
	return exit
}

func (p *plain) signal(signal unix.Signal) {
	if err := p.box.Signal(signal); err != nil {
		p.log.Info().Err(err).Msg("signal the guest")
	}
}

// pour copies one of the guest's streams to its place, as it comes. A place that takes nothing must not stop the guest.
func (p *plain) pour(from *os.File, to io.Writer) {
	buffer := make([]byte, 32<<10)
	failed := false
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			_, written := to.Write(buffer[:n])
			if written != nil && !failed {
				p.log.Error().Err(written).Msg("write the guest's output; some of it is lost")
			}
			failed = written != nil
		}
		if err != nil {
			return // the guest closed it, or ended
		}
	}
}

func closeStreams(box *sandbox.Sandbox) {
	for _, file := range []*os.File{box.Stdin, box.Stdout, box.Stderr} {
		_ = file.Close() // pipes to nobody; a terminal has no third one, and a nil file's error is nothing
	}
}
