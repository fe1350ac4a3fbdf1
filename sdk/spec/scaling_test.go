package spec_test

import (
	"errors"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

func TestWrongScalingNamesTheField(t *testing.T) {
	const hour = spec.Duration(time.Hour)
	once := func(s spec.Schedule) []spec.Schedule { return []spec.Schedule{s} }
	for field, change := range map[string]func(*spec.Scaling){
		"scaling.zero_window":       func(s *spec.Scaling) { s.ZeroWindow = -1 },
		"scaling.backlog_target":    func(s *spec.Scaling) { s.BacklogTarget = -1 },
		"scaling.starts_per_minute": func(s *spec.Scaling) { s.StartsPerMinute = -1 },
		"scaling.predict_period":    func(s *spec.Scaling) { s.PredictPeriod = 1 },
		"scaling.schedule":          func(s *spec.Scaling) { s.Schedules = many(spec.Schedule{Cron: "0 8 * * *", For: hour, Min: 1}) },
		"scaling.schedule[0].cron":  func(s *spec.Scaling) { s.Schedules = once(spec.Schedule{Cron: "30 8 * *", For: hour, Min: 1}) },
		"scaling.schedule[0].for":   func(s *spec.Scaling) { s.Schedules = once(spec.Schedule{Cron: "30 8 * * *", For: 25 * hour, Min: 1}) },
		"scaling.schedule[0].min":   func(s *spec.Scaling) { s.Schedules = once(spec.Schedule{Cron: "30 8 * * *", For: hour, Min: 11}) },
	} {
		f := valid()
		change(&f.Scaling)
		var wrong *spec.ValidationError
		if err := f.Validate(); !errors.As(err, &wrong) {
			t.Errorf("%s: got %v", field, err)
			continue
		}
		if len(wrong.Fields) != 1 || wrong.Fields[0].Field != field || wrong.Fields[0].Mend == "" {
			t.Errorf("got %+v, want one about %s with a mend", wrong.Fields, field)
		}
	}
}

func many(s spec.Schedule) []spec.Schedule {
	list := make([]spec.Schedule, spec.MaxSchedules+1)
	for i := range list {
		list[i] = s
	}
	return list
}
