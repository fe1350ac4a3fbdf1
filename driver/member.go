package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/oklog/ulid/v2"

	"github.com/freshet-dev/freshet/driver/ahead"
	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/internal/handoff"
)

// member is a supervisor made ahead.
type member struct {
	starter *starter
	work    handoff.Task
	process *handoff.Process
	reap    func()
	// socket's end tells the supervisor that nobody will come.
	socket  *os.File
	standby bool
	dropped sync.Once
}

var _ ahead.Member = (*member)(nil)

// prepare makes a supervisor ahead.
func (s *starter) prepare(ctx context.Context, p plan, empty bool) (ahead.Member, error) {
	dir := filepath.Join(s.config.DataDir, aheadDir, ulid.Make().String())
	p.cpuset = ""       // that of the task before, which may be gone; the next one's is taken at its adoption
	if p.image != nil { // it is there: this holds it for the new one too
		held, err := s.images.Image(ctx, image.Request{Task: filepath.Base(dir), Reference: p.config.Image})
		if err == nil && held.Content != p.image.Content {
			err = errors.Join(errors.New("the image's tag means another one by now"), s.images.Release(filepath.Base(dir)))
		}
		if err != nil {
			return nil, err
		}
	}
	work, err := s.lend(ctx, dir, p)
	if err != nil {
		return nil, err
	}
	work.Empty = empty
	m, err := s.launchAhead(ctx, work)
	if err != nil {
		return nil, errors.Join(err, s.giveBack(context.WithoutCancel(ctx), dir))
	}
	return m, nil
}

func (s *starter) launchAhead(ctx context.Context, work handoff.Task) (*member, error) {
	if err := handoff.WriteTemplate(work); err != nil {
		return nil, err
	}
	ours, theirs, err := handoff.SocketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }() // the supervisor has its own
	m := &member{starter: s, work: work, socket: ours}
	if m.process, m.reap, err = s.launch(work, theirs, "--ahead", work.StateDir); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = ours.Close() })
	defer stop()
	var said handoff.Prepared
	if err = said.Hear(ours); err == nil && said.Error != "" {
		err = errors.New(said.Error)
	}
	if err != nil {
		m.end()
		return nil, err
	}
	m.standby = said.Standby
	return m, nil
}

// Standby tells whether it is thawed already.
func (m *member) Standby() bool { return m.standby }

// CanThaw tells whether another one made now would be.
func (m *member) CanThaw() bool {
	if m.work.Snapshots == nil {
		return false
	}
	_, err := os.Stat(filepath.Join(m.work.Snapshots.Dir, m.work.Snapshots.Key))
	return err == nil
}

// Memory is what it takes, in bytes.
func (m *member) Memory() (int64, error) {
	var sum int64
	for _, id := range []string{m.work.Cgroups.Guest, m.work.Cgroups.Supervisor} {
		group, err := m.starter.groups.Load(id)
		if err != nil {
			return 0, err
		}
		stats, err := group.Stats()
		if err != nil {
			return 0, err
		}
		sum += int64(stats.RSS)
	}
	return sum, nil
}

// Wait returns when it has ended, or the context has.
func (m *member) Wait(ctx context.Context) error { return m.process.Wait(ctx) }

// end ends the supervisor and waits for that.
func (m *member) end() {
	_ = m.socket.Close()
	ended, cancel := context.WithTimeout(context.WithoutCancel(m.starter.ctx), endWait)
	defer cancel()
	if err := m.process.Wait(ended); err != nil {
		_ = m.process.Signal(syscall.SIGKILL) // ErrGone when it ended meanwhile
	}
	m.reap()
	m.process.Close()
}

// Drop ends it and gives back what it was lent.
func (m *member) Drop() {
	m.dropped.Do(func() {
		m.end()
		if err := m.starter.giveBack(context.WithoutCancel(m.starter.ctx), m.work.StateDir); err != nil {
			m.starter.log.Warn().Err(err).Msg("drop a supervisor made ahead")
		}
	})
}

// adopt gives the task to a supervisor made ahead.
func (s *starter) adopt(m *member, cfg *drivers.TaskConfig, p plan, dir string, times *steps) (*task, error) {
	work := finish(m.work, cfg, times)
	work.Link = dir
	if p.cpuset != "" {
		group, err := s.groups.Load(work.Cgroups.Guest)
		if err != nil {
			return nil, err
		}
		if err := group.UseCPUs(p.cpuset); err != nil {
			return nil, err
		}
	}
	if err := handoff.Adopt(work, dir, m.socket); err != nil {
		return nil, err
	}
	_ = m.socket.Close() // it has been told
	return newTask(cfg, taskState{StateDir: dir, Started: work.Started}, s, m.process, m.reap), nil
}
