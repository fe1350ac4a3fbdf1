// Package fleet knows the workers of all functions from what they say of themselves: how many take calls, how long calls and
// starts take, and whether starts fail. It belongs to one goroutine and has no clock.
package fleet

import (
	"slices"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
)

// Fleet is the workers of all functions. New makes it.
type Fleet struct{ functions map[queue.Function]*crew }

// crew is one function's workers, and what was measured of them.
type crew struct {
	members map[string]*member
	// busy is the slots' time in use, done the calls that ended meanwhile; both are halved when there are many, so that new
	// calls count more than old ones.
	busy time.Duration
	done float64
	all  int64 // calls that ended
	// start is the moving mean of the workers' starts.
	start    time.Duration
	failures int
	failure  string
	version  string
	// ended are the workers that were last heard to end.
	ended []string
}

type member struct {
	queue.Heartbeat
	heard time.Time
	ready bool // it took calls at some time
}

// remembered is how many of the workers that ended are known by name.
const remembered = 32

// enough is the number of calls after which the sums are halved, weight how much a new start counts in the mean.
const (
	enough = 200
	weight = 0.3
)

// View is a function's workers at one time.
type View struct {
	// Workers report, Ready of them take calls; Resting were asked not to. Busy slots are in use, Web of them by requests that never
	// were in the queue.
	Workers, Ready, Resting, Busy, Web int
	// Ended counts the calls that ended since the function was first heard of.
	Ended int64
	// Service is the mean time that a call held a slot, Start the mean time of a start; 0 while not known.
	Service, Start time.Duration
	// Failures is the number of failed starts since the last one that succeeded; Failure says why the last one did.
	Failures int
	Failure  string
}

// New makes a fleet without workers.
func New() *Fleet { return &Fleet{functions: make(map[queue.Function]*crew)} }

// Hear takes a heartbeat.
func (f *Fleet) Hear(beat queue.Heartbeat, now time.Time) {
	c := f.functions[beat.Key()]
	if c == nil {
		c = &crew{members: make(map[string]*member)}
		f.functions[beat.Key()] = c
	}
	if beat.Version != c.version { // another version may start where the last one did not
		c.version, c.failures, c.failure = beat.Version, 0, ""
	}
	m := c.members[beat.Alloc]
	if m == nil {
		m = &member{Heartbeat: beat, heard: now}
		if beat.Done > 0 { // it was there before this instance listened
			m.ready = true
		}
		c.members[beat.Alloc] = m
	}
	c.measure(m, beat, now)
	m.Heartbeat, m.heard = beat, now
	if !m.ready && takesCalls(beat.State) {
		m.ready = true
		c.started(beat.Ready.Sub(beat.Started))
	}
	if beat.State == queue.StateStopped {
		delete(c.members, beat.Alloc)
		c.ended = append(c.ended[max(0, len(c.ended)-remembered):], beat.Alloc)
		if !m.ready && beat.Reason != "" && !strings.Contains(beat.Reason, "context canceled") { // nobody stopped it
			c.failed(beat.Reason)
		}
	}
}

func takesCalls(state queue.State) bool { return state == queue.StateReady || state == queue.StateBusy }

// measure adds what a worker did since its last heartbeat.
func (c *crew) measure(m *member, beat queue.Heartbeat, now time.Time) {
	c.busy += time.Duration(m.Busy) * now.Sub(m.heard)
	ended := max(beat.Done-m.Done, 0)
	c.done += float64(ended)
	c.all += ended
	if c.done > enough {
		c.busy, c.done = c.busy/2, c.done/2
	}
}

func (c *crew) started(took time.Duration) {
	c.failures, c.failure = 0, ""
	if c.start == 0 {
		c.start = took
		return
	}
	c.start += time.Duration(weight * float64(took-c.start))
}

func (c *crew) failed(reason string) {
	c.failures++
	c.failure = reason
}

// Failed notes a start that Nomad saw fail. One whose worker said so itself counts once.
func (f *Fleet) Failed(function queue.Function, alloc, reason string) {
	c := f.functions[function]
	if c == nil {
		c = &crew{members: make(map[string]*member)}
		f.functions[function] = c
	}
	if _, heard := c.members[alloc]; heard || slices.Contains(c.ended, alloc) {
		return
	}
	c.ended = append(c.ended[max(0, len(c.ended)-remembered):], alloc)
	c.failed(reason)
}

// Bury forgets the workers that were not heard since a time.
func (f *Fleet) Bury(before time.Time) {
	for _, c := range f.functions {
		for alloc, m := range c.members {
			if m.heard.Before(before) {
				delete(c.members, alloc)
			}
		}
	}
}

// Forget drops what was measured of a function that is gone.
func (f *Fleet) Forget(function queue.Function) { delete(f.functions, function) }

// View is the function's workers as last heard.
func (f *Fleet) View(function queue.Function) View {
	c := f.functions[function]
	if c == nil {
		return View{}
	}
	v := View{Workers: len(c.members), Ended: c.all, Start: c.start, Failures: c.failures, Failure: c.failure}
	for _, m := range c.members {
		v.Busy += m.Busy
		v.Web += m.Web
		switch {
		case takesCalls(m.State):
			v.Ready++
		case m.Resting:
			v.Resting++
		}
	}
	if c.done >= 1 {
		v.Service = time.Duration(float64(c.busy) / c.done)
	}
	return v
}

// Resting are the allocations of the function's workers that rest.
func (f *Fleet) Resting(function queue.Function) []string {
	c := f.functions[function]
	if c == nil {
		return nil
	}
	var allocs []string
	for alloc, m := range c.members {
		if m.Resting {
			allocs = append(allocs, alloc)
		}
	}
	return allocs
}

// Worker is what a worker said last.
func (f *Fleet) Worker(function queue.Function, alloc string) (queue.Heartbeat, bool) {
	c := f.functions[function]
	if c == nil {
		return queue.Heartbeat{}, false
	}
	m := c.members[alloc]
	if m == nil {
		return queue.Heartbeat{}, false
	}
	return m.Heartbeat, true
}
