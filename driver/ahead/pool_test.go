package ahead

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// fake is a member that takes memory and remembers its end.
type fake struct {
	standby bool
	node    *node
	memory  int64
	died    chan struct{}
	drop    sync.Once
}

func (f *fake) Standby() bool { return f.standby }

func (f *fake) Memory() (int64, error) { return f.memory, nil }
func (f *fake) CanThaw() bool {
	f.node.mu.Lock()
	defer f.node.mu.Unlock()
	return f.node.snapshot
}

func (f *fake) Drop() {
	f.drop.Do(func() {
		f.node.mu.Lock()
		f.node.alive--
		f.node.mu.Unlock()
	})
}

func (f *fake) Wait(ctx context.Context) error {
	select {
	case <-f.died:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// node makes fakes. Its fields are changed by set.
type node struct {
	mu          sync.Mutex
	alive, made int
	snapshot    bool
	broken      bool
	free        float64
	size        int64 // of a standby
	last        *fake
}

func (n *node) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *node) freeMemory() (float64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.free, nil
}

func (n *node) make(_ context.Context, empty bool) (Member, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.made++
	if n.broken {
		return nil, errors.New("broken")
	}
	n.alive++
	f := &fake{standby: n.snapshot && !empty, node: n, memory: 50 << 20, died: make(chan struct{})}
	if f.standby {
		f.memory = n.size
	}
	n.last = f
	return f, nil
}

const budget = 200 << 20

// pool runs a test with a pool on a clock that only it moves.
func pool(t *testing.T, test func(t *testing.T, p *Pool, n *node)) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{free: 1, snapshot: true, size: 90 << 20}
		p := open(t.Context(), Config{Memory: budget, Idle: time.Hour}, n.freeMemory, zerolog.Nop())
		test(t, p, n)
		p.Close()
		if n.alive != 0 {
			t.Errorf("%d members are left", n.alive)
		}
	})
}

// settle lets the pool do all that it does within two looks.
func settle(t *testing.T) {
	t.Helper()
	time.Sleep(2*lookEvery + time.Second) //nolint:forbidigo // the bubble's clock, which nobody waits for
	synctest.Wait()
}

func expect(t *testing.T, p *Pool, standby, empty int) {
	t.Helper()
	settle(t)
	if s, e := p.Counts(); s != standby || e != empty {
		t.Errorf("%d standbys and %d empty ones, want %d and %d", s, e, standby, empty)
	}
}

func TestWhatStartedOnceIsThereNextTime(t *testing.T) {
	pool(t, func(t *testing.T, p *Pool, n *node) {
		if p.Take("a") != nil {
			t.Error("took what nobody made")
		}
		p.Want("a", n.make)
		expect(t, p, 1, 0)
		member := p.Take("a")
		if member == nil || !member.Standby() || p.Take("a") != nil {
			t.Errorf("took %v, and another one", member)
		}
		p.Want("a", n.make)
		expect(t, p, 1, 0)
		member.Drop()
	})
}

func TestBudgetGoesToWhatStartedLast(t *testing.T) {
	pool(t, func(t *testing.T, p *Pool, n *node) {
		for _, key := range []string{"a", "b", "c"} {
			p.Want(key, n.make)
			settle(t)
		}
		if p.Take("a") != nil {
			t.Error("the one that started first is kept")
		}
		for _, key := range []string{"b", "c"} {
			member := p.Take(key)
			if member == nil {
				t.Fatalf("%s is not kept", key)
			}
			member.Drop()
		}
	})
}

func TestWhatIsTooLargeIsHeldEmpty(t *testing.T) {
	pool(t, func(t *testing.T, p *Pool, n *node) {
		n.size = budget + 1
		p.Want("a", n.make)
		expect(t, p, 0, 1)
		made := n.made
		expect(t, p, 0, 1)
		if n.made != made {
			t.Errorf("made %d more, though nothing changed", n.made-made)
		}
	})
}

func TestEmptyOneIsReplacedOnceThereIsASnapshot(t *testing.T) {
	pool(t, func(t *testing.T, p *Pool, n *node) {
		n.snapshot = false
		p.Want("a", n.make)
		expect(t, p, 0, 1)
		n.set(func() { n.snapshot = true })
		expect(t, p, 1, 0)
	})
}

func TestMembersGoWhenMemoryIsShort(t *testing.T) {
	pool(t, func(t *testing.T, p *Pool, n *node) {
		p.Want("a", n.make)
		p.Want("b", n.make)
		expect(t, p, 2, 0)
		n.set(func() { n.free = leastFree / 2 })
		expect(t, p, 0, 0)
		n.set(func() { n.free = 1 })
		expect(t, p, 2, 0)
	})
}

func TestMembersGoWhenNobodyWantsThem(t *testing.T) {
	pool(t, func(t *testing.T, p *Pool, n *node) {
		p.Want("a", n.make)
		expect(t, p, 1, 0)
		time.Sleep(2 * time.Hour) //nolint:forbidigo // the bubble's clock
		expect(t, p, 0, 0)
	})
}

func TestMemberThatDiedIsMadeAnew(t *testing.T) {
	pool(t, func(t *testing.T, p *Pool, n *node) {
		p.Want("a", n.make)
		expect(t, p, 1, 0)
		close(n.last.died)
		expect(t, p, 1, 0)
		if n.made != 2 || n.alive != 1 {
			t.Errorf("made %d, %d live", n.made, n.alive)
		}
	})
}

func TestWhatCannotBeMadeIsGivenUp(t *testing.T) {
	pool(t, func(t *testing.T, p *Pool, n *node) {
		n.broken = true
		p.Want("a", n.make)
		for range 10 {
			settle(t)
		}
		if n.made != giveUpAfter {
			t.Errorf("tried %d times, want %d", n.made, giveUpAfter)
		}
		n.set(func() { n.broken = false })
		p.Want("a", n.make)
		expect(t, p, 1, 0)
	})
}

func TestMemoryOfThisMachine(t *testing.T) {
	if free, err := availableMemory(); err != nil || free <= 0 || free >= 1 {
		t.Errorf("got %f, %v", free, err)
	}
}
