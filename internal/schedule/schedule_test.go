package schedule_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/internal/schedule"
	"github.com/freshet-dev/freshet/sdk/spec"
)

func at(text string) time.Time {
	t, err := time.Parse(time.DateTime, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestDue(t *testing.T) {
	daily := schedule.Schedule{Cron: "30 2 * * *", TimeZone: "Europe/Berlin", Created: at("2026-03-01 00:00:00")}
	minutely := schedule.Schedule{Every: spec.Duration(time.Minute), Created: at("2026-01-01 00:00:30")}
	with := func(s schedule.Schedule, missed string, paused bool) schedule.Schedule {
		s.Missed, s.Paused = missed, paused
		return s
	}
	for name, c := range map[string]struct {
		s         schedule.Schedule
		last, now string
		want      []string
		seen      string
	}{
		"winter":                 {daily, "2026-03-27 01:30:00", "2026-03-28 01:30:01", []string{"2026-03-28 01:30:00"}, "2026-03-28 01:30:00"},
		"summer, an hour before": {daily, "2026-03-30 00:30:00", "2026-03-31 00:30:01", []string{"2026-03-31 00:30:00"}, "2026-03-31 00:30:00"},
		"not yet":                {minutely, "2026-01-01 00:01:30", "2026-01-01 00:02:29", nil, "2026-01-01 00:01:30"},
		"on time":                {minutely, "2026-01-01 00:01:30", "2026-01-01 00:02:30", []string{"2026-01-01 00:02:30"}, "2026-01-01 00:02:30"},
		"none before it was":     {minutely, "2025-01-01 00:00:00", "2026-01-01 00:01:29", nil, "2025-01-01 00:00:00"},
		"missed, latest":         {minutely, "2026-01-01 00:01:30", "2026-01-01 00:05:20", []string{"2026-01-01 00:04:30"}, "2026-01-01 00:04:30"},
		"missed, one on time":    {minutely, "2026-01-01 00:01:30", "2026-01-01 00:05:31", []string{"2026-01-01 00:05:30"}, "2026-01-01 00:05:30"},
		"missed, all":            {with(minutely, "all", false), "2026-01-01 00:01:30", "2026-01-01 00:03:45", []string{"2026-01-01 00:02:30", "2026-01-01 00:03:30"}, "2026-01-01 00:03:30"},
		"missed, skip":           {with(minutely, "skip", false), "2026-01-01 00:01:30", "2026-01-01 00:05:20", nil, "2026-01-01 00:04:30"},
		"paused":                 {with(minutely, "", true), "2026-01-01 00:01:30", "2026-01-01 00:05:20", nil, "2026-01-01 00:01:30"},
	} {
		t.Run(name, func(t *testing.T) {
			ticks, seen := c.s.Due(at(c.last), at(c.now))
			if len(ticks) != len(c.want) || !seen.Equal(at(c.seen)) {
				t.Fatalf("due %v, seen %v", ticks, seen)
			}
			for i, tick := range ticks {
				if !tick.Equal(at(c.want[i])) {
					t.Errorf("due %v", ticks)
				}
			}
		})
	}
}

// TestEveryTickIsDueOnce, however often and irregularly somebody looks, as long as they look in time.
func TestEveryTickIsDueOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		created := time.Unix(rapid.Int64Range(0, 1<<31).Draw(t, "created"), 0)
		s := schedule.Schedule{Every: spec.Duration(rapid.IntRange(1, 100).Draw(t, "every")) * spec.Duration(time.Second), Created: created}
		if rapid.Bool().Draw(t, "cron") {
			s = schedule.Schedule{Cron: "* * * * *", Created: created}
		}
		last, now, got := created, created, []time.Time(nil)
		for range rapid.IntRange(1, 50).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(0, int(schedule.Grace/time.Millisecond)).Draw(t, "pause")) * time.Millisecond)
			ticks, seen := s.Due(last, now)
			got, last = append(got, ticks...), seen
		}
		tick := created
		for _, due := range got {
			if tick = s.Next(tick); !tick.Equal(due) {
				t.Fatalf("%v was due, want %v", due, tick)
			}
		}
		if next := s.Next(tick); !next.After(now) {
			t.Fatalf("%v was never due, at %v", next, now)
		}
	})
}

func TestWrongSchedulesAreRefused(t *testing.T) {
	for field, s := range map[string]schedule.Schedule{
		"cron":      {},
		"every":     {Cron: "* * * * *", Every: spec.Duration(time.Hour)},
		"every ":    {Every: 1},
		"time_zone": {Cron: "* * * * *", TimeZone: "Mars/Olympus"},
		"cron ":     {Cron: "every day"},
		"cron  ":    {Cron: "0 0 31 2 *"},
		"cron   ":   {Cron: "CRON_TZ=UTC * * * * *"},
		"missed":    {Cron: "* * * * *", Missed: "some"},
	} {
		var wrong spec.FieldError
		if err := s.Check(); !errors.As(err, &wrong) || wrong.Field != field[:len(wrong.Field)] {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := (schedule.Schedule{Cron: "*/5 9-17 * * 1-5", TimeZone: "America/New_York"}).Check(); err != nil {
		t.Error(err)
	}
}
