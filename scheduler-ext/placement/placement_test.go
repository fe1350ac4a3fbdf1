package placement_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/scheduler-ext/placement"
)

func TestSpread(t *testing.T) {
	free := placement.Group{Max: 10}
	full := func(placed int) placement.Group {
		return placement.Group{Count: placed + 1, Placed: placed, Max: 10, Full: true}
	}
	for name, test := range map[string]struct {
		total  int
		groups []placement.Group
		want   []int
	}{
		"all in the first":              {4, []placement.Group{free, free}, []int{4, 0}},
		"the rest in the second":        {4, []placement.Group{full(1), free}, []int{1, 3}},
		"and in the third":              {6, []placement.Group{full(1), full(2), free}, []int{1, 2, 3}},
		"what finds no place waits":     {6, []placement.Group{full(1), full(2)}, []int{4, 2}},
		"over the first one's maximum":  {12, []placement.Group{free, free}, []int{10, 2}},
		"back when there is room":       {4, []placement.Group{{Count: 1, Placed: 1, Max: 10}, {Count: 3, Placed: 3, Max: 10}}, []int{4, 0}},
		"never below Nomad's minimum":   {0, []placement.Group{{Min: 2, Max: 10}, free}, []int{2, 0}},
		"fewer: the last ones go first": {1, []placement.Group{full(1), {Count: 3, Placed: 3, Max: 10}}, []int{1, 0}},
	} {
		if got := placement.Spread(test.total, test.groups); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestSpreadIsAlwaysTheWholeWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var groups []placement.Group
		most := 0
		for range rapid.IntRange(1, 5).Draw(t, "groups") {
			g := placement.Group{Max: rapid.IntRange(0, 20).Draw(t, "max"), Full: rapid.Bool().Draw(t, "full")}
			g.Placed = rapid.IntRange(0, g.Max).Draw(t, "placed")
			groups, most = append(groups, g), most+g.Max
		}
		total := rapid.IntRange(0, most).Draw(t, "total")
		sum := 0
		for i, count := range placement.Spread(total, groups) {
			sum += count
			if count < 0 || count > groups[i].Max {
				t.Fatalf("%d in group %d of %+v", count, i, groups)
			}
		}
		if sum != total {
			t.Fatalf("%d workers of %d", sum, total)
		}
	})
}

func TestShareIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(0, 100).Draw(t, "limit")
		var wants []placement.Want
		for range rapid.IntRange(1, 6).Draw(t, "functions") {
			wants = append(wants, placement.Want{Workers: rapid.IntRange(0, 50).Draw(t, "workers"), Each: 1})
		}
		got := placement.Share(limit, wants)
		sum, asked := 0, 0
		for i := range wants {
			sum, asked = sum+got[i], asked+wants[i].Workers
			if got[i] > wants[i].Workers {
				t.Fatalf("%d for one who wants %d", got[i], wants[i].Workers)
			}
			for j := range wants {
				if got[i] < wants[i].Workers && got[j] > got[i]+1 {
					t.Fatalf("%v of %+v: one goes without while another has more", got, wants)
				}
			}
		}
		if sum != min(limit, asked) {
			t.Fatalf("%d of %d are given out, %d are wanted", sum, limit, asked)
		}
	})
}

func TestShareKeepsLeastsAndCountsWhatEachTakes(t *testing.T) {
	got := placement.Share(10, []placement.Want{{Least: 4, Workers: 9, Each: 1}, {Workers: 9, Each: 2}, {Workers: 1, Each: 1}})
	if want := []int{4, 2, 1}; !slices.Equal(got, want) && !slices.Equal(got, []int{5, 2, 1}) {
		t.Errorf("got %v, want %v", got, want)
	}
	got = placement.Share(9, []placement.Want{{Workers: 9, Each: 1, Weight: 2}, {Workers: 9, Each: 1}})
	if want := []int{6, 3}; !slices.Equal(got, want) {
		t.Errorf("weights: got %v, want %v", got, want)
	}
}
