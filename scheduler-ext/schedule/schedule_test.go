package schedule_test

import (
	"testing"
	"time"

	"github.com/freshet-dev/freshet/scheduler-ext/schedule"
	"github.com/freshet-dev/freshet/sdk/spec"
)

func TestSchedulesHoldFromTheirBeginToTheirEnd(t *testing.T) {
	floors, err := schedule.Read([]spec.Schedule{
		{Cron: "30 8 * * 1-5", Timezone: "Europe/Berlin", For: spec.Duration(10 * time.Hour), Min: 2},
		{Cron: "0 12 * * *", Timezone: "Europe/Berlin", For: spec.Duration(time.Hour), Min: 5},
		{Cron: "30 2 * * *", Timezone: "Europe/Berlin", For: spec.Duration(30 * time.Minute), Min: 1},
		{Cron: "0 23 * * 5", Timezone: "Europe/Berlin", For: spec.Duration(2 * time.Hour), Min: 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{
		"2026-11-25 08:29:59": 0, "2026-11-25 08:30:00": 2, "2026-11-25 12:00:00": 5, "2026-11-25 12:59:59": 5, "2026-11-25 13:00:00": 2,
		"2026-11-25 18:29:59": 2, "2026-11-25 18:30:00": 0,
		"2026-11-28 09:00:00": 0, // a Saturday
		"2026-11-28 00:59:59": 3, // over midnight
		"2026-07-01 08:30:00": 2, // in summer time too
		"2026-11-25 02:45:00": 1,
		"2026-03-29 03:15:00": 0, // half past two was left out that night
	} {
		at, err := time.ParseInLocation(time.DateTime, text, berlin)
		if err != nil {
			t.Fatal(err)
		}
		if got := floors.At(at); got != want {
			t.Errorf("%s: %d workers, want %d", text, got, want)
		}
	}
}

func TestWrongSchedulesAreRefused(t *testing.T) {
	for _, s := range []spec.Schedule{{Cron: "61 8 * * *"}, {Cron: "1 8 * *"}, {Cron: "1 8 * * *", Timezone: "Nowhere"}} {
		if _, err := schedule.Read([]spec.Schedule{s}); err == nil {
			t.Errorf("%+v is taken", s)
		}
	}
}
