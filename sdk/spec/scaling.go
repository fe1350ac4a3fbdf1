package spec

import (
	"fmt"
	"strings"
	"time"
)

// Limits of a scaling policy.
const (
	// MinPredictPeriod and MaxPredictPeriod bound the period of load that repeats.
	MinPredictPeriod = Duration(5 * time.Minute)
	MaxPredictPeriod = Duration(7 * 24 * time.Hour)
	// MaxSchedules is the most schedules of one function.
	MaxSchedules = 50
)

// Schedule raises the least number of workers for some time, again and again.
type Schedule struct {
	// Cron says when it begins: minute, hour, day of month, month, day of week, such as "30 8 * * 1-5".
	Cron string `json:"cron"`
	// Timezone is the one that Cron is read in, such as "Europe/Berlin". Default UTC.
	Timezone string `json:"timezone,omitempty"`
	// For is how long it holds, 1m to 24h.
	For Duration `json:"for"`
	// Min workers stay meanwhile, at most the function's maximum.
	Min int `json:"min"`
}

func (c *checker) scaling(s Scaling) {
	c.between("scaling.max", s.Max, 1, MaxScale)
	if s.Min < 0 || s.Min > s.Max {
		c.fail("scaling.min", s.Min, "use 0 to scaling.max, which is %d", s.Max)
	}
	if s.TargetInflight < 1 {
		c.fail("scaling.target_inflight", s.TargetInflight, "use 1 or more")
	}
	c.between("scaling.buffer", s.Buffer, 0, MaxScale)
	c.duration("scaling.scaledown_window", s.ScaledownWindow, Duration(time.Second), MaxTimeout)
	if s.ZeroWindow != s.ScaledownWindow { // else its default, which needs no second complaint
		c.duration("scaling.zero_window", s.ZeroWindow, Duration(time.Second), MaxTimeout)
	}
	c.duration("scaling.backlog_target", s.BacklogTarget, 0, MaxTimeout)
	c.between("scaling.starts_per_minute", s.StartsPerMinute, 0, MaxScale)
	if s.PredictPeriod != 0 {
		c.duration("scaling.predict_period", s.PredictPeriod, MinPredictPeriod, MaxPredictPeriod)
	}
	if len(s.Schedules) > MaxSchedules {
		c.fail("scaling.schedule", len(s.Schedules), "use at most %d schedules", MaxSchedules)
	}
	for i, schedule := range s.Schedules {
		c.schedule(fmt.Sprintf("scaling.schedule[%d]", i), schedule, s.Max)
	}
}

// schedule checks what can be told without a calendar; who reads the job checks the rest.
func (c *checker) schedule(field string, s Schedule, most int) {
	if len(strings.Fields(s.Cron)) != 5 || strings.Trim(s.Cron, "0123456789*/,- ABCDEFGHIJLMNOPRSTUVWYabcdefghijlmnoprstuvwy") != "" {
		c.fail(field+".cron", s.Cron, "write minute, hour, day of month, month and day of week, such as \"30 8 * * 1-5\"")
	}
	c.printable(field+".timezone", s.Timezone, 64)
	c.duration(field+".for", s.For, Duration(time.Minute), Duration(24*time.Hour))
	c.between(field+".min", s.Min, 1, most)
}
