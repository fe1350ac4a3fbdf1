// Package ahead keeps supervisors ready before there is a task for them: with an empty sandbox, or standing by, thawed. Which ones, is
// decided by what started last on the node; how many, by a budget of memory.
package ahead

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Member is a supervisor made ahead. Whoever takes it from the pool owns it.
type Member interface {
	// Standby tells whether it is thawed already; CanThaw whether one made now would be.
	Standby() bool
	CanThaw() bool
	// Memory is what it takes, in bytes.
	Memory() (int64, error)
	// Wait returns when it has ended by itself, or the context has ended.
	Wait(ctx context.Context) error
	// Drop ends it. Doing so again does no harm.
	Drop()
}

// Make makes a member: thawed where that is possible, unless it is to be empty.
type Make func(ctx context.Context, empty bool) (Member, error)

// Config bounds a pool.
type Config struct {
	// Memory is what all members may take, in bytes; 0 keeps none.
	Memory int64
	// Empty keeps empty sandboxes only: no memory of functions is held before it is needed.
	Empty bool
	// Idle is how long nobody must want a member for it to go. Needed.
	Idle time.Duration
}

const (
	// refillPause lets the task that took a member get on before the next one is made: both want the processors.
	refillPause = 250 * time.Millisecond
	// lookEvery is how often members are looked at: whether they are wanted still, and the node's memory is enough.
	lookEvery = 5 * time.Second
	// leastFree is the part of the node's memory that is kept free: below it, members go.
	leastFree = 0.05
	// emptyMemory is what an empty sandbox and its supervisor take; the first standby of a kind is thought to take as much.
	emptyMemory = 64 << 20
	// patience is how long making a member may take.
	patience = time.Minute
	// giveUpAfter is how many failures in a row end the making of a kind until somebody wants it again.
	giveUpAfter = 3
)

// kind is what members of one key have in common.
type kind struct {
	key      string
	make     Make
	member   Member // nil when there is none
	watching context.CancelFunc
	memory   int64 // of the member
	standby  int64 // what a standby takes, 0 when there was none yet
	large    bool  // a standby does not fit the budget: only empty ones are made
	wanted   time.Time
	failures int
}

// Pool keeps at most one member of each kind.
type Pool struct {
	cfg Config
	log zerolog.Logger
	// free is the part of the node's memory that is available.
	free func() (float64, error)

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	wake    chan struct{}

	mu    sync.Mutex
	kinds map[string]*kind
}

// Open begins to keep a pool. Close it.
func Open(ctx context.Context, cfg Config, log zerolog.Logger) *Pool {
	return open(ctx, cfg, availableMemory, log)
}

func open(ctx context.Context, cfg Config, free func() (float64, error), log zerolog.Logger) *Pool {
	p := &Pool{cfg: cfg, log: log, free: free, wake: make(chan struct{}, 1), kinds: make(map[string]*kind)}
	p.ctx, p.cancel = context.WithCancel(ctx)
	if cfg.Memory > 0 {
		p.running.Go(p.keep)
	}
	return p
}

// Want says that a task of this kind was started, so that the next one may find a member. make makes one.
func (p *Pool) Want(key string, make Make) {
	if p.cfg.Memory <= 0 {
		return
	}
	p.mu.Lock()
	k := p.kinds[key]
	if k == nil {
		k = &kind{key: key}
		p.kinds[key] = k
	}
	k.make, k.wanted, k.failures = make, time.Now(), 0
	p.mu.Unlock()
	p.poke()
}

// Take returns a member of the kind, or nil when there is none.
func (p *Pool) Take(key string) Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.kinds[key]
	if k == nil || k.member == nil {
		return nil
	}
	return k.takeLocked()
}

func (k *kind) takeLocked() Member {
	member := k.member
	k.member = nil
	k.watching()
	return member
}

func (p *Pool) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// keep makes what is wanted and drops what is not, one at a time.
func (p *Pool) keep() {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.wake:
			if !p.pause(refillPause) {
				return
			}
		case <-ticker.C:
		case <-p.ctx.Done():
			return
		}
		p.dropAll(p.superfluous())
		for p.ctx.Err() == nil && p.fill() {
			continue
		}
	}
}

func (p *Pool) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}

func (p *Pool) dropAll(members []Member) {
	for _, member := range members {
		member.Drop()
	}
}

// fill makes one member, the one wanted last; false when none is to be made.
func (p *Pool) fill() bool {
	k, make, empty, drop := p.next()
	p.dropAll(drop)
	if k == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	member, err := make(ctx, empty)
	if err != nil {
		p.mu.Lock()
		k.failures++
		p.mu.Unlock()
		if p.ctx.Err() == nil {
			p.log.Warn().Err(err).Msg("make a supervisor ahead")
		}
		return false
	}
	memory, err := member.Memory()
	if err != nil {
		p.log.Warn().Err(err).Msg("measure a supervisor made ahead")
		memory = emptyMemory
	}
	if !p.put(k, member, memory) {
		member.Drop()
	}
	return true
}

// put keeps a member; false for a standby that turns out to be too large for the budget.
func (p *Pool) put(k *kind, member Member, memory int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if member.Standby() {
		k.standby = memory
	}
	k.failures = 0
	if member.Standby() && p.usedLocked()+memory > p.cfg.Memory {
		k.large = memory > p.cfg.Memory
		return false
	}
	ctx, stop := context.WithCancel(p.ctx)
	k.member, k.memory, k.watching = member, memory, stop
	p.running.Go(func() { p.watch(ctx, k, member) })
	return true
}

// usedLocked is what all members take.
func (p *Pool) usedLocked() int64 {
	var sum int64
	for _, k := range p.kinds {
		if k.member != nil {
			sum += k.memory
		}
	}
	return sum
}

// Counts says how many members there are.
func (p *Pool) Counts() (standby, empty int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kinds {
		switch {
		case k.member == nil:
		case k.member.Standby():
			standby++
		default:
			empty++
		}
	}
	return standby, empty
}

// watch takes a member out that ended by itself: its sandbox died, or the kernel needed its memory.
func (p *Pool) watch(ctx context.Context, k *kind, member Member) {
	if member.Wait(ctx) != nil {
		return // it was taken
	}
	p.mu.Lock()
	mine := k.member == member
	if mine {
		k.takeLocked()
	}
	p.mu.Unlock()
	if mine {
		member.Drop()
	}
}

// Close drops all members and waits for that.
func (p *Pool) Close() {
	p.cancel()
	p.running.Wait()
	p.mu.Lock()
	var members []Member
	for _, k := range p.kinds {
		if k.member != nil {
			members = append(members, k.takeLocked())
		}
	}
	p.kinds = make(map[string]*kind)
	p.mu.Unlock()
	p.dropAll(members)
}
