package autoscaler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/fleet"
)

// Timing of a shrink.
const (
	// restFor is what a worker is asked for, restAgain when it is asked again, and restSure how long after its last word it surely
	// rests still.
	restFor   = 10 * time.Second
	restAgain = 2 * time.Second
	restSure  = 7 * time.Second
)

// shrink is the taking away of a group's workers: those that Nomad will stop, which are the highest-named, are asked to rest; as
// many of them as have ended their calls, from the highest-named on, are taken off the count.
type shrink struct {
	group   string
	least   int
	victims map[string]*victim
	// listed is when Nomad was last asked which they are.
	listed time.Time
}

// victim is a worker that is to go.
type victim struct {
	rank    int
	asked   time.Time
	pending bool // Nomad has not started it
	settled bool
}

// ranked is an allocation and the number in its name.
type ranked struct {
	id      string
	rank    int
	pending bool
}

// shrinkTo goes on with taking a group's workers away, down to a count.
func (a *scaler) shrinkTo(ctx context.Context, function queue.Function, s *state, entry jobs.Entry, group string, count, least int) {
	now := time.Now()
	if s.shrink != nil && s.shrink.group != group {
		a.rests.callIn(function, s, s.shrink.group)
	}
	if s.shrink == nil {
		s.shrink = &shrink{group: group, victims: make(map[string]*victim)}
	}
	changed := s.shrink.least != least
	s.shrink.least = least
	var settled []string
	news := false
	for alloc, v := range s.shrink.victims {
		was := v.settled
		v.settled = a.rests.settled(function, alloc, v, now)
		news = news || v.settled && !was
		if v.settled {
			settled = append(settled, alloc)
		} else if now.Sub(v.asked) > restAgain {
			a.rests.askToRest(function, alloc, v, now)
		}
	}
	if !changed && !news && now.Sub(s.shrink.listed) < restAgain {
		return
	}
	s.shrink.listed = now
	reason := s.decision.Reason
	a.start(ctx, function, s, func(ctx context.Context) applied {
		return a.target.lower(ctx, entry, group, count, least, settled, reason)
	}, time.Time{})
}

// rests tells workers to rest and to go on.
type rests struct {
	nc     *nats.Conn
	leader Leader
	fleet  *fleet.Fleet
	log    zerolog.Logger
}

// settled tells that a worker which is to go has no calls and gets none: it said so and was asked to rest not long ago, or it
// never took any.
func (r *rests) settled(function queue.Function, alloc string, v *victim, now time.Time) bool {
	if v.asked.IsZero() || now.Sub(v.asked) > restSure {
		return false
	}
	beat, known := r.fleet.Worker(function, alloc)
	if !known {
		return v.pending || now.Sub(v.asked) > queue.DeadAfter // it does not run yet, or no more
	}
	switch beat.State {
	case queue.StateStarting, queue.StateRestoring:
		return true
	case queue.StateReady, queue.StateBusy, queue.StateDraining, queue.StateStopped:
	}
	return beat.State == queue.StateStopped || beat.Resting && beat.Busy == 0
}

func (r *rests) askToRest(function queue.Function, alloc string, v *victim, now time.Time) {
	v.asked = now
	r.tellWorker(function, alloc, restFor)
}

// tellWorker asks a worker to rest, or with no time to go on.
func (r *rests) tellWorker(function queue.Function, alloc string, length time.Duration) {
	lease, acts := r.leader.Lease()
	if !acts {
		return
	}
	data, err := queue.Rest{Lease: lease.Index, For: length}.Encode()
	if err == nil {
		err = r.nc.Publish(function.ControlSubject(alloc), data)
	}
	if err != nil {
		r.log.Debug().Err(err).Msg("ask a worker to rest")
	}
}

// callIn ends the shrink of a group: its workers go on.
func (r *rests) callIn(function queue.Function, s *state, group string) {
	if s.shrink == nil || s.shrink.group != group {
		return
	}
	for alloc := range s.shrink.victims {
		r.tellWorker(function, alloc, 0)
	}
	s.shrink = nil
}

// rest takes the list of those that are to go: new ones are asked to rest, and those that may stay to go on.
func (r *rests) rest(function queue.Function, s *state, done applied) {
	if s.shrink == nil || s.shrink.group != done.group {
		return
	}
	now := time.Now()
	victims := make(map[string]*victim)
	for _, one := range highest(done.live, len(done.live)-s.shrink.least) {
		v := s.shrink.victims[one.id]
		if v == nil {
			v = &victim{}
			r.askToRest(function, one.id, v, now)
		}
		v.rank, v.pending = one.rank, one.pending
		victims[one.id] = v
	}
	stopped := make(map[string]bool) // Nomad stops these: they are not to go on
	for _, one := range highest(done.live, len(done.live)-done.to) {
		if done.index > 0 {
			stopped[one.id] = true
		}
	}
	for alloc := range s.shrink.victims {
		if victims[alloc] == nil && !stopped[alloc] {
			r.tellWorker(function, alloc, 0)
		}
	}
	for alloc := range stopped {
		delete(victims, alloc)
	}
	s.shrink.victims = victims
	if done.to <= s.shrink.least {
		s.shrink = nil
	}
}

// lower lists a group's allocations and takes off its count what does not run and those highest-named that have settled.
func (t *target) lower(ctx context.Context, entry jobs.Entry, group string, count, least int, settled []string, reason string) applied {
	done := applied{group: group, from: count, to: count}
	listing, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	allocs, _, err := t.nomad.Jobs().Allocations(entry.Job, false, (&api.QueryOptions{Namespace: entry.Spec.Namespace}).WithContext(listing))
	if err != nil {
		done.err = fmt.Errorf("list allocations of %s: %w", entry.Key(), err)
		return done
	}
	live := liveOf(allocs, group)
	free := 0
	for _, one := range live {
		if !slices.Contains(settled, one.id) {
			break
		}
		free++
	}
	for free > 0 && free < len(live) && live[free].rank == live[free-1].rank { // Nomad stops any of the same name
		free--
	}
	if to := max(least, len(live)-free); to < count {
		done = t.scale(ctx, entry, group, count, to, reason)
	}
	done.live = append([]ranked{}, live...) // not nil, also without any
	return done
}

// liveOf is a group's allocations that run or will, the highest-named first.
func liveOf(allocs []*api.AllocationListStub, group string) []ranked {
	var live []ranked
	for _, alloc := range allocs {
		pending := alloc.ClientStatus == api.AllocClientStatusPending
		if alloc.TaskGroup == group && alloc.DesiredStatus == api.AllocDesiredStatusRun && (pending || alloc.ClientStatus == api.AllocClientStatusRunning) {
			live = append(live, ranked{alloc.ID, rank(alloc.Name), pending})
		}
	}
	slices.SortFunc(live, func(a, b ranked) int { return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.id, b.id)) })
	return live
}

// rank is the number in an allocation's name, such as 3 in "app.f.worker[3]".
func rank(name string) int {
	open := strings.LastIndexByte(name, '[')
	number, err := strconv.Atoi(strings.TrimSuffix(name[open+1:], "]"))
	if err != nil {
		return -1
	}
	return number
}

// highest is the first of a list, and those of the same name as the last of them.
func highest(live []ranked, count int) []ranked {
	count = min(max(count, 0), len(live))
	for count > 0 && count < len(live) && live[count].rank == live[count-1].rank {
		count++
	}
	return live[:count]
}
