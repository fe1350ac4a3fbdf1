package storm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/freshet-dev/freshet/internal/queue"
)

// trouble is a fault that happened.
type trouble struct {
	kind, victim string
	from, to     time.Time
}

// storm makes faults by chance: which comes when is a matter of the seed, whom it hits also of what runs then.
type storm struct {
	*world
	t      *testing.T
	random *rand.Rand
	// least and most bound how long a fault lasts.
	least, most time.Duration

	done sync.WaitGroup
	mu   sync.Mutex
	all  []trouble
}

// fault does something to the cluster, and returns whom it hit; nobody when there was nobody. It may last.
type fault struct {
	kind string
	do   func(*storm) (victim string, lasts time.Duration)
}

// faults are all there are. The storm has each at least once.
var faults = []fault{
	{"kill supervisor", func(s *storm) (string, time.Duration) { return s.signal(syscall.SIGKILL, (*node).supervisors) }},
	{"kill sandbox", func(s *storm) (string, time.Duration) { return s.signal(syscall.SIGKILL, sandboxes) }},
	{"kill plugin", func(s *storm) (string, time.Duration) { return s.signal(syscall.SIGKILL, plugins) }},
	{"kill agent", func(s *storm) (string, time.Duration) { return s.signal(syscall.SIGKILL, agents) }},
	{"kill gateway", func(s *storm) (string, time.Duration) { return s.kill(s.gateways) }},
	{"kill autoscaler", func(s *storm) (string, time.Duration) { return s.kill(s.autoscalers) }},
	{"kill nats", func(s *storm) (string, time.Duration) { return s.killNATS(s.nats[s.random.IntN(len(s.nats))]) }},
	{"kill nats leader", func(s *storm) (string, time.Duration) { return s.killNATS(s.leader()) }},
	{"kill node", func(s *storm) (string, time.Duration) {
		n, away := s.node(), s.length()
		n.powerOff(away)
		return n.name, away
	}},
	{"part node", (*storm).part},
	{"stop supervisor", func(s *storm) (string, time.Duration) { return s.signal(syscall.SIGSTOP, (*node).supervisors) }},
	{"stop sandbox", func(s *storm) (string, time.Duration) { return s.signal(syscall.SIGSTOP, sandboxes) }},
	{"stop plugin", func(s *storm) (string, time.Duration) { return s.signal(syscall.SIGSTOP, plugins) }},
	{"stop agent", func(s *storm) (string, time.Duration) { return s.signal(syscall.SIGSTOP, agents) }},
	{"stop gateway", func(s *storm) (string, time.Duration) { return s.pause(s.gateways) }},
	{"stop autoscaler", func(s *storm) (string, time.Duration) { return s.pause(s.autoscalers) }},
	{"stop nats", func(s *storm) (string, time.Duration) {
		if !s.caughtUp() {
			return "", 0
		}
		return s.pause(s.nats)
	}},
}

func sandboxes(n *node) []int { return n.like("runsc-sandbox", "") }
func plugins(n *node) []int   { return n.like("freshet-driver", "") }
func agents(n *node) []int    { return n.like("nomad", "agent") }

// length is how long a fault lasts.
func (s *storm) length() time.Duration {
	return s.least + time.Duration(s.random.Int64N(int64(s.most-s.least)))
}

func (s *storm) node() *node { return s.nodes[s.random.IntN(len(s.nodes))] }

// rage makes faults for a time: all of them in turn, at least once, each turn in another order.
func (s *storm) rage(length, pause time.Duration) {
	over := time.Now().Add(length)
	for turn := 0; turn == 0 || time.Now().Before(over); turn++ {
		for _, i := range s.random.Perm(len(faults)) {
			if turn > 0 && time.Now().After(over) {
				break
			}
			s.make(faults[i])
			<-time.After(pause/2 + time.Duration(s.random.Int64N(int64(pause))))
		}
	}
	s.done.Wait()
}

// make makes a fault once there is somebody whom it can hit.
func (s *storm) make(f fault) {
	for began := time.Now(); time.Since(began) < patience; {
		from := time.Now()
		victim, lasts := f.do(s)
		if victim != "" {
			s.mu.Lock()
			s.all = append(s.all, trouble{f.kind, victim, from, from.Add(lasts)})
			s.mu.Unlock()
			s.t.Logf("%s %s: %s for %s", from.Format("05.000"), f.kind, victim, lasts.Round(time.Millisecond))
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	s.t.Errorf("%s hit nobody", f.kind)
}

// signal signals one of the processes on a node. One that is stopped goes on later.
func (s *storm) signal(signal syscall.Signal, of func(*node) []int) (string, time.Duration) {
	n := s.node()
	pids := of(n)
	if len(pids) == 0 {
		return "", 0
	}
	pid := pids[s.random.IntN(len(pids))]
	if syscall.Kill(pid, signal) != nil {
		return "", 0
	}
	victim := fmt.Sprintf("%s %d", n.name, pid)
	if signal != syscall.SIGSTOP {
		return victim, 0
	}
	return victim, s.resume(pid)
}

// resume has a stopped process go on after a time. The process may have been killed meanwhile.
func (s *storm) resume(pid int) time.Duration {
	after := s.length()
	s.done.Go(func() {
		<-time.After(after)
		_ = syscall.Kill(pid, syscall.SIGCONT)
	})
	return after
}

func (s *storm) kill(all []*kept) (string, time.Duration) {
	k := all[s.random.IntN(len(all))]
	if k.PID() == 0 {
		return "", 0
	}
	k.kill(0)
	return k.name, 0
}

func (s *storm) pause(all []*kept) (string, time.Duration) {
	k := all[s.random.IntN(len(all))]
	pid := k.PID()
	if pid == 0 || syscall.Kill(pid, syscall.SIGSTOP) != nil {
		return "", 0
	}
	return k.name, s.resume(pid)
}

// killNATS ends a server. Two at once would be more than three replicas survive without a pause.
func (s *storm) killNATS(k *kept) (string, time.Duration) {
	if k == nil || k.PID() == 0 || !s.caughtUp() {
		return "", 0
	}
	away := s.length()
	k.kill(away)
	return k.name, away
}

// caughtUp tells that all NATS servers are there and have what the others have.
func (s *storm) caughtUp() bool {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	for i := range s.nats {
		if s.natsHealthy(ctx, i) != nil {
			return false
		}
	}
	return true
}

// leader is the server that leads the stream of the results, or that of a function's calls.
func (s *storm) leader() *kept {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	stream := queue.ResultsStream
	if s.random.IntN(2) == 0 {
		stream = queue.Function{Namespace: "default", App: app, Name: "work"}.CallsStream()
	}
	info, err := s.js.Stream(ctx, stream)
	if err != nil || info.CachedInfo().Cluster == nil {
		return nil
	}
	for _, k := range s.nats {
		if k.name == info.CachedInfo().Cluster.Leader {
			return k
		}
	}
	return nil
}

// part takes a node off the network for a while.
func (s *storm) part() (string, time.Duration) {
	n, away := s.node(), s.length()
	link, err := netlink.LinkByName(n.name)
	if err != nil || netlink.LinkSetDown(link) != nil {
		return "", 0
	}
	s.done.Go(func() {
		<-time.After(away)
		if err := netlink.LinkSetUp(link); err != nil {
			s.t.Errorf("join %s again: %v", n.name, err)
		}
	})
	return n.name, away
}

// doubted are the kinds of fault that let a call run twice at once: whoever holds it is not heard for longer than a lost one is waited
// for, or the word that it is held is lost.
var doubted = []string{"part node", "stop supervisor", "stop nats", "kill nats", "kill nats leader"}
