// Package quota divides what functions share: the limits that an environment or an app has on workers and devices, and the nodes
// for which functions of one priority compete. It is pure.
package quota

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/placement"
)

// Meta keys of a Nomad namespace. With "freshet.app.<app>." in the place of "freshet." they limit one app in it.
const (
	MetaWorkers = "freshet.max_workers"
	MetaDevices = "freshet.max_gpus"
)

// scope is what a limit is for: an environment, or an app in it.
type scope struct{ namespace, app string }

func (s scope) String() string {
	if s.app == "" {
		return "environment " + s.namespace
	}
	return "app " + s.app + " in environment " + s.namespace
}

// limit is a scope's; below 0 for none.
type limit struct{ workers, devices int }

// Limits are those of all environments and apps. The zero value has none.
type Limits struct{ of map[scope]limit }

// Read reads the limits of namespaces from their meta, by namespace. What is wrong is told, and is no limit.
func Read(namespaces map[string]map[string]string) (Limits, []error) {
	limits := Limits{of: make(map[scope]limit)}
	var wrong []error
	for _, namespace := range slices.Sorted(maps.Keys(namespaces)) {
		for _, key := range slices.Sorted(maps.Keys(namespaces[namespace])) {
			s, name := scopeOf(namespace, key)
			if name != MetaWorkers && name != MetaDevices {
				continue
			}
			text := namespaces[namespace][key]
			most, err := strconv.Atoi(text)
			if err != nil || most < 0 {
				wrong = append(wrong, fmt.Errorf("namespace %s: meta %s: %q: write a whole number, 0 or more", namespace, key, text))
				continue
			}
			l, ok := limits.of[s]
			if !ok {
				l = limit{-1, -1}
			}
			if name == MetaWorkers {
				l.workers = most
			} else {
				l.devices = most
			}
			limits.of[s] = l
		}
	}
	return limits, wrong
}

// scopeOf takes the app out of a key.
func scopeOf(namespace, key string) (scope, string) {
	rest, ok := strings.CutPrefix(key, "freshet.app.")
	if !ok {
		return scope{namespace: namespace}, key
	}
	app, name, _ := strings.Cut(rest, ".")
	return scope{namespace, app}, "freshet." + name
}

// Demand is one function's.
type Demand struct {
	Function queue.Function
	// Need is how many workers it would have, Min how many it keeps, Count how many Nomad was told to run, Placed and Unplaced how
	// many of them are known to have a place, and to have none.
	Need, Min, Count, Placed, Unplaced int
	// Devices is what a worker takes of them.
	Devices int
	// Pool names what it competes for: functions with the same one share nodes fairly.
	Pool string
}

// Quota is what others leave to a function, and who they are.
type Quota struct {
	Workers int
	Why     string
}

// Sharing divides. It remembers how much the pools were seen to hold.
type Sharing struct {
	limits Limits
	pools  map[string]pool
}

// pool is what functions compete for: how many workers found a place, until when that is believed, and since when fewer have one;
// zero for no such time.
type pool struct {
	holds int
	until time.Time
	fewer time.Time
}

// believe is how long a pool counts as full after Nomad had no place; then it is tried with a tenth more. changing is how long fewer
// workers may have a place before it is believed to hold no more: one that goes keeps its place until it has ended, and only then
// Nomad finds one for the next.
const (
	believe  = 10 * time.Second
	changing = 4 * time.Second
)

// New makes a sharing without limits.
func New() *Sharing { return &Sharing{pools: make(map[string]pool)} }

// Limit sets the limits.
func (s *Sharing) Limit(limits Limits) { s.limits = limits }

// Divide tells the quotas of the functions that have one: those in a scope or pool where all together want more than there is.
func (s *Sharing) Divide(demands []Demand, now time.Time) map[queue.Function]Quota {
	quotas := make(map[queue.Function]Quota)
	for of, l := range s.limits.of {
		members := inScope(demands, of)
		if l.workers >= 0 {
			share(quotas, members, l.workers, func(Demand) int { return 1 }, fmt.Sprintf("%s may have %d workers", of, l.workers))
		}
		if l.devices >= 0 {
			share(quotas, devicesOnly(members), l.devices, func(d Demand) int { return d.Devices }, fmt.Sprintf("%s may have %d GPUs", of, l.devices))
		}
	}
	for name, members := range byPool(demands) {
		s.observe(name, members, now)
		if p, full := s.pools[name]; full {
			for i := range members { // everybody may try: what waits for a place tells those who add nodes
				members[i].Min = max(members[i].Min, min(members[i].Need, 1))
			}
			share(quotas, members, p.holds, func(Demand) int { return 1 }, fmt.Sprintf("%d functions share the %d workers that there is room for", len(members), p.holds))
		}
	}
	return quotas
}

func inScope(demands []Demand, of scope) []Demand {
	var members []Demand
	for _, d := range demands {
		if d.Function.Namespace == of.namespace && (of.app == "" || d.Function.App == of.app) {
			members = append(members, d)
		}
	}
	return members
}

func devicesOnly(demands []Demand) []Demand {
	return slices.DeleteFunc(slices.Clone(demands), func(d Demand) bool { return d.Devices == 0 })
}

func byPool(demands []Demand) map[string][]Demand {
	pools := make(map[string][]Demand)
	for _, d := range demands {
		if d.Pool != "" {
			pools[d.Pool] = append(pools[d.Pool], d)
		}
	}
	return pools
}

// observe learns how much a pool holds: what is placed while something is not. Alone in a pool nobody has to share.
func (s *Sharing) observe(name string, members []Demand, now time.Time) {
	placed, unplaced, needs := 0, 0, 0
	for _, d := range members {
		placed += d.Placed
		unplaced += d.Unplaced
		needs += max(d.Need, d.Min)
	}
	p, full := s.pools[name]
	fewer := full && unplaced > 0 && placed < p.holds
	switch {
	case !fewer:
		p.fewer = time.Time{}
	case p.fewer.IsZero():
		p.fewer = now
	}
	switch {
	case len(members) < 2 || placed == 0 && !full: // nothing is known of a pool without any worker
		delete(s.pools, name)
		return
	case fewer && now.Sub(p.fewer) < changing:
	case unplaced > 0 && (!full || fewer || now.After(p.until)):
		p = pool{holds: placed, until: now.Add(believe)}
	case !full:
		return
	case needs <= p.holds:
		delete(s.pools, name)
		return
	case unplaced == 0 && now.After(p.until):
		p = pool{holds: p.holds + max(p.holds/10, 1), until: now.Add(believe)}
	}
	s.pools[name] = p
}

// share divides a limit where the members want more than that, and keeps the lowest quota of each.
func share(quotas map[queue.Function]Quota, members []Demand, most int, each func(Demand) int, why string) {
	wanted, wants := 0, make([]placement.Want, 0, len(members))
	slices.SortFunc(members, func(a, b Demand) int { return strings.Compare(a.Function.String(), b.Function.String()) })
	for _, d := range members {
		wanted += max(d.Need, d.Min, d.Count) * each(d)
		wants = append(wants, placement.Want{Least: d.Min, Workers: max(d.Need, d.Min), Each: each(d)})
	}
	if wanted <= most {
		return
	}
	for i, count := range placement.Share(most, wants) {
		if known, ok := quotas[members[i].Function]; !ok || count < known.Workers {
			quotas[members[i].Function] = Quota{count, why}
		}
	}
}
