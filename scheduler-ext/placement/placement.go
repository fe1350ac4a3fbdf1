// Package placement divides a function's workers between the groups of its job, each for one kind of node in the order of
// preference, and a limit between functions that share it. It is pure.
package placement

import "slices"

// Group is one of a function's groups at one time.
type Group struct {
	// Count is how many workers Nomad was told to run there, Placed how many of them it found a place for.
	Count, Placed int
	// Min and Max are Nomad's bounds on the count.
	Min, Max int
	// Full says that Nomad found no place for another one.
	Full bool
}

// Spread divides workers between groups: as many in the first group as it may have, what finds no place there in the next, and
// so on. What finds a place nowhere waits in the first one, so that Nomad places it there when there is room, and whoever adds
// nodes adds those that are liked best.
func Spread(total int, groups []Group) []int {
	counts := make([]int, len(groups))
	left := total
	for i, g := range groups { // Nomad refuses less
		counts[i] = g.Min
		left -= g.Min
	}
	for i, g := range groups {
		room := g.Max
		if g.Full {
			room = min(room, g.Placed)
		}
		more := min(max(room-counts[i], 0), max(left, 0))
		counts[i] += more
		left -= more
	}
	for i, g := range groups {
		more := min(max(g.Max-counts[i], 0), max(left, 0))
		counts[i] += more
		left -= more
	}
	return counts
}

// Want is what one function would have of a shared limit.
type Want struct {
	// Least it keeps whatever others want; Workers is what it would have, Each what one of them takes of the limit.
	Least, Workers, Each int
	// Weight makes its share larger; 0 counts as 1.
	Weight int
}

// Share divides a limit fairly: everyone gets the least, and then all get the same in proportion to their weights, but nobody
// more than wanted; what one does not want goes to the others. The sum is never above the limit unless the leasts are.
func Share(limit int, wants []Want) []int {
	counts := make([]int, len(wants))
	var open []int
	for i, w := range wants {
		counts[i] = min(w.Least, max(w.Workers, w.Least))
		limit -= counts[i] * max(w.Each, 1)
		open = append(open, i)
	}
	for len(open) > 0 {
		open = slices.DeleteFunc(open, func(i int) bool {
			return counts[i] >= wants[i].Workers || max(wants[i].Each, 1) > limit
		})
		if len(open) == 0 {
			return counts
		}
		poorest := slices.MinFunc(open, func(a, b int) int {
			return counts[a]*max(wants[a].Each, 1)*max(wants[b].Weight, 1) - counts[b]*max(wants[b].Each, 1)*max(wants[a].Weight, 1)
		})
		counts[poorest]++
		limit -= max(wants[poorest].Each, 1)
	}
	return counts
}
