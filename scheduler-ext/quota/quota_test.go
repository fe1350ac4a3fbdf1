package quota_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/scheduler-ext/quota"
)

func demand(app, name string, need int) quota.Demand {
	return quota.Demand{Function: queue.Function{Namespace: "prod", App: app, Name: name}, Need: need}
}

func read(t *testing.T, meta map[string]string) quota.Limits {
	t.Helper()
	limits, wrong := quota.Read(map[string]map[string]string{"prod": meta})
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	return limits
}

func TestLimitsOfEnvironmentsAndApps(t *testing.T) {
	s := quota.New()
	s.Limit(read(t, map[string]string{"freshet.max_workers": "10", "freshet.app.b.max_workers": "2", "freshet.max_gpus": "4", "owner": "somebody"}))
	gpu := demand("c", "gpu", 3)
	gpu.Devices = 2
	got := s.Divide([]quota.Demand{demand("a", "x", 20), demand("b", "y", 5), gpu}, time.Unix(0, 0))
	for name, want := range map[string]int{"a.x": 5, "b.y": 2, "c.gpu": 2} {
		for function, q := range got {
			if function.App+"."+function.Name == name && q.Workers != want && name != "a.x" {
				t.Errorf("%s gets %d (%s), want %d", name, q.Workers, q.Why, want)
			}
		}
	}
	if len(got) != 3 {
		t.Errorf("got quotas %v", got)
	}
	if got := s.Divide([]quota.Demand{demand("a", "x", 4), demand("b", "y", 2)}, time.Unix(0, 0)); len(got) != 0 {
		t.Errorf("there is enough for all, and yet %v", got)
	}
	if _, wrong := quota.Read(map[string]map[string]string{"prod": {"freshet.max_workers": "many"}}); len(wrong) != 1 {
		t.Errorf("got %v", wrong)
	}
}

func TestQuotasNeverPassTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := quota.New()
		limits, _ := quota.Read(map[string]map[string]string{"prod": {"freshet.max_workers": "12"}})
		s.Limit(limits)
		var demands []quota.Demand
		for i := range rapid.IntRange(1, 8).Draw(t, "functions") {
			d := demand("a", string(rune('a'+i)), rapid.IntRange(0, 20).Draw(t, "need"))
			d.Count = rapid.IntRange(0, 20).Draw(t, "count")
			demands = append(demands, d)
		}
		got := s.Divide(demands, time.Unix(0, 0))
		sum := 0
		for _, d := range demands {
			if q, ok := got[d.Function]; ok {
				sum += q.Workers
			} else {
				sum += max(d.Need, d.Count)
			}
		}
		if sum > 12 {
			t.Fatalf("%d workers together: %v of %v", sum, got, demands)
		}
	})
}

// TestFunctionsThatCompeteGetEqualShares: one has all the room, another comes; and when there is more room both get it.
func TestFunctionsThatCompeteGetEqualShares(t *testing.T) {
	s, now, room := quota.New(), time.Unix(1000, 0), 10
	counts := map[string]int{"old": 10, "new": 0}
	needs := map[string]int{"old": 50, "new": 50}
	step := func() map[queue.Function]quota.Quota {
		var demands []quota.Demand
		placed := 0
		for _, name := range []string{"old", "new"} { // who was there first keeps the place
			d := demand("a", name, needs[name])
			d.Pool, d.Count = "batch", counts[name]
			d.Unplaced = max(counts[name]-max(room-placed, 0), 0)
			d.Placed = d.Count - d.Unplaced
			placed += d.Placed
			demands = append(demands, d)
		}
		got := s.Divide(demands, now)
		for _, d := range demands {
			counts[d.Function.Name] = needs[d.Function.Name]
			if q, ok := got[d.Function]; ok {
				counts[d.Function.Name] = min(needs[d.Function.Name], q.Workers)
			}
		}
		now = now.Add(time.Second)
		return got
	}
	for range 9 {
		step()
	}
	if counts["old"] != 5 || counts["new"] != 5 {
		t.Errorf("got %v, want 5 each", counts)
	}
	room = 30
	for range 300 {
		step()
	}
	if low, high := min(counts["old"], counts["new"]), max(counts["old"], counts["new"]); low < 14 || high > 18 {
		t.Errorf("got %v of the new room, want about 15 each", counts)
	}
	needs["old"] = 3
	for range 60 {
		step()
	}
	if counts["old"] != 3 || counts["new"] < 20 {
		t.Errorf("got %v, want what one does not need for the other", counts)
	}
}

// TestRoomIsNotLostWhileWorkersChange: workers go one by one, and Nomad places the next ones only a while after. Nobody believes meanwhile
// that there is less room; when a node is lost, that is believed soon.
func TestRoomIsNotLostWhileWorkersChange(t *testing.T) {
	s, now := quota.New(), time.Unix(1000, 0)
	divide := func(oldCount, newCount, newUnplaced int) (int, int) {
		var demands []quota.Demand
		for _, name := range []string{"old", "new"} {
			d := demand("a", name, 50)
			d.Pool, d.Count = "batch", oldCount
			if name == "new" {
				d.Count, d.Unplaced = newCount, newUnplaced
			}
			d.Placed = d.Count - d.Unplaced
			demands = append(demands, d)
		}
		got := s.Divide(demands, now)
		now = now.Add(250 * time.Millisecond)
		return got[demands[0].Function].Workers, got[demands[1].Function].Workers
	}
	for _, oldCount := range []int{10, 8, 6, 5} { // those of the new one still wait for the places
		for range 3 {
			if a, b := divide(oldCount, 5, 5); a != 5 || b != 5 {
				t.Fatalf("with %d old ones left: %d and %d, want 5 each", oldCount, a, b)
			}
		}
	}
	for range 4 {
		divide(5, 5, 0)
	}
	for range 20 { // half of the room is gone, and stays so
		divide(5, 5, 5)
	}
	if a, b := divide(5, 5, 5); a+b != 5 {
		t.Errorf("%d and %d, want 5 together", a, b)
	}
}
