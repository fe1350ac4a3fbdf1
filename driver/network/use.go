package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Ready is the number of namespaces that wait to be taken.
func (p *Pool) Ready() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

// Take gives the task a namespace with the policy in force. Taken again, with the same policy, it is the same one: whoever
// died after it was taken asks again. It is written down first, and stays the task's until Release or Sweep.
func (p *Pool) Take(ctx context.Context, task string, policy Policy) (Namespace, error) {
	fail := func(err error) (Namespace, error) {
		return Namespace{}, fmt.Errorf("take network namespace for %q: %w", task, err)
	}
	if task == "" {
		return fail(errors.New("name the task"))
	}
	defer p.wantMore()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		if p.closed {
			return fail(errClosed)
		}
		if l := p.leases[task]; l != nil && !l.Policy.equal(policy) {
			return fail(errors.New("it has one with another policy: release it first"))
		} else if l != nil {
			return p.namespace(l), nil
		}
		if len(p.ready) > 0 {
			break
		}
		if err := p.addLocked(); err != nil {
			return fail(err)
		}
	}
	l := &lease{Task: task, Number: p.ready[0].number, Address: p.ready[0].addr, Policy: policy, space: p.ready[0]}
	if err := p.ledger.write(l); err != nil {
		return fail(err)
	}
	p.ready = p.ready[1:]
	p.leases[task] = l
	if err := p.changeLocked(func(t *transaction) { t.grant(l) }); err != nil {
		return fail(err) // Release or Sweep frees it
	}
	return p.namespace(l), nil
}

func (p *Pool) namespace(l *lease) Namespace {
	return Namespace{Path: l.space.path, Address: l.space.addr, Resolvers: l.Policy.resolvers(p.resolvers)}
}

// Find is the namespace that the task has; ErrNotTaken when it has none.
func (p *Pool) Find(task string) (Namespace, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.leases[task]
	if l == nil {
		return Namespace{}, fmt.Errorf("find network namespace for %q: %w", task, ErrNotTaken)
	}
	return p.namespace(l), nil
}

// Release ends what the task's sandbox may reach, and its connections, and removes its namespace. A task without one is no
// error. When it fails, the namespace is still the task's; try again, or Sweep.
func (p *Pool) Release(task string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.leases[task]
	if l == nil {
		return nil
	}
	if err := p.releaseLocked(l); err != nil {
		if p.leases[task] == nil { // or it was taken again meanwhile: then the next pool removes what is left
			p.leases[task] = l
		}
		return fmt.Errorf("release network namespace of %q: %w", task, err)
	}
	delete(p.numbers.taken, l.Number)
	return nil
}

// releaseLocked lets go of the lock for what takes its time: nobody gets the number before that is done.
func (p *Pool) releaseLocked(l *lease) error {
	if p.closed {
		return errClosed
	}
	delete(p.leases, l.Task)
	err := p.changeLocked(func(t *transaction) {
		t.unpublish(l.space, l.Ports)
		t.revoke(l)
		t.removeSpace(l.space)
	})
	if err != nil {
		return err
	}
	return p.aside(func() error {
		if err := errors.Join(l.space.remove(p.host), l.space.forget(p.host)); err != nil {
			return err
		}
		return p.ledger.erase(l)
	})
}

// Sweep releases what belongs to none of the live tasks, and puts the table back where somebody has removed it: without it,
// sandboxes reach nothing at all.
func (p *Pool) Sweep(live []string) error {
	p.mu.Lock()
	var dead []string
	for task := range p.leases {
		if !slices.Contains(live, task) {
			dead = append(dead, task)
		}
	}
	err := p.restoreLocked()
	p.mu.Unlock()
	for _, task := range dead {
		p.log.Info().Str("task", task).Msg("release the network namespace of a task that is gone")
		err = errors.Join(err, p.Release(task))
	}
	return err
}

func (p *Pool) restoreLocked() error {
	if p.closed {
		return errClosed
	}
	there, err := p.rules.present()
	if err != nil || there {
		return err
	}
	p.log.Warn().Str("table", p.rules.table.Name).Msg("the table was removed by somebody else: put it back")
	return p.installLocked()
}

// Close ends the pool and removes what is ready. What is in use stays, with its rules: the next pool finds it.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.busy.Wait()

	p.mu.Lock()
	defer p.mu.Unlock()
	spaces := p.ready
	p.ready = nil
	var err error
	if len(p.leases) > 0 {
		err = p.installLocked()
	} else {
		err = p.rules.remove()
	}
	for _, s := range spaces {
		err = errors.Join(err, s.remove(p.host))
	}
	if len(p.leases) == 0 {
		err = errors.Join(err, p.ledger.unmount())
	}
	p.host.Close()
	err = errors.Join(err, p.held.Close())
	if err != nil {
		return fmt.Errorf("close network pool: %w", err)
	}
	return nil
}
