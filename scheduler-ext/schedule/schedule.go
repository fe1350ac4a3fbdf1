// Package schedule tells the least number of workers that a function's schedules ask for at a time.
package schedule

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// Floors are a function's schedules, read. The zero value has none.
type Floors struct{ all []floor }

type floor struct {
	begins cron.Schedule
	length time.Duration
	least  int
}

// Read reads schedules. The error names the one that is wrong.
func Read(schedules []spec.Schedule) (Floors, error) {
	var f Floors
	for i, s := range schedules {
		begins, err := jobs.ParseCron(s)
		if err != nil {
			return Floors{}, fmt.Errorf("read schedule %d: %w", i, err)
		}
		f.all = append(f.all, floor{begins, s.For.Std(), s.Min})
	}
	return f, nil
}

// At is the highest minimum of the schedules that hold at a time; 0 when none does.
func (f Floors) At(now time.Time) int {
	least := 0
	for _, one := range f.all {
		begin := one.begins.Next(now.Add(-one.length)) // the first one that is not over
		if !begin.IsZero() && !begin.After(now) {
			least = max(least, one.least)
		}
	}
	return least
}

// Empty says that there are no schedules.
func (f Floors) Empty() bool { return len(f.all) == 0 }
