// Package schedule says when calls are due that nobody makes: by a cron expression in a time zone, or every so often. It is pure:
// it reads no clock and keeps nothing.
package schedule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// What becomes of ticks that passed while no gateway ran, or the schedule was paused.
const (
	// MissedLatest makes one call for the last of them: the default.
	MissedLatest = "latest"
	// MissedAll makes a call for each, the last MostMissed of them.
	MissedAll = "all"
	// MissedSkip makes none.
	MissedSkip = "skip"
)

const (
	// MostMissed bounds the calls that are made up for at once.
	MostMissed = 100
	// Grace is how late a tick may be noticed that counts as on time.
	Grace = 10 * time.Second
	// minEvery is the shortest period.
	minEvery = time.Second
)

// Schedule makes calls of one function with one input.
type Schedule struct {
	// Cron has five fields, such as "0 9 * * 1-5", in TimeZone, an IANA name; default UTC.
	Cron     string `json:"cron,omitempty"`
	TimeZone string `json:"time_zone,omitempty"`
	// Every is a period, counted from Created; one of Cron and Every is given.
	Every spec.Duration `json:"every,omitempty"`
	// Method is what to call of a class.
	Method string `json:"method,omitempty"`
	// Input is the calls' input.
	Input json.RawMessage `json:"input,omitempty"`
	// Missed is one of the Missed constants.
	Missed string `json:"missed,omitempty"`
	// Paused makes no calls; what passes meanwhile counts as missed.
	Paused bool `json:"paused,omitempty"`
	// Created is when it was made; no tick is due before.
	Created time.Time `json:"created"`
}

// Of is the schedule that a function's spec has. It is made when a gateway first sees it, which says when.
func Of(s spec.CallSchedule, created time.Time) Schedule {
	made := Schedule{Cron: s.Cron, TimeZone: s.TimeZone, Every: s.Every, Method: s.Method, Missed: s.Missed, Created: created}
	if s.Input != "" {
		made.Input = json.RawMessage(s.Input)
	}
	return made
}

// Says tells whether two schedules make the same calls, whenever they were made and whether they are paused.
func (s Schedule) Says(other Schedule) bool {
	return s.Cron == other.Cron && s.TimeZone == other.TimeZone && s.Every == other.Every && s.Method == other.Method &&
		s.Missed == other.Missed && compact(s.Input) == compact(other.Input)
}

// compact is JSON without its blanks, which are lost where a schedule is kept.
func compact(text json.RawMessage) string {
	var out bytes.Buffer
	if json.Compact(&out, text) != nil {
		return string(text)
	}
	return out.String()
}

// Check refuses a schedule that is wrong, with a spec.FieldError.
func (s Schedule) Check() error {
	switch {
	case s.Cron == "" && s.Every == 0:
		return spec.FieldError{Field: "cron", Value: "", Mend: "give a cron expression, or a period as every"}
	case s.Cron != "" && s.Every != 0:
		return spec.FieldError{Field: "every", Value: s.Every.String(), Mend: "give either cron or every"}
	case s.Cron == "" && s.Every.Std() < minEvery:
		return spec.FieldError{Field: "every", Value: s.Every.String(), Mend: "use 1s or more"}
	case s.Cron == "" && s.TimeZone != "":
		return spec.FieldError{Field: "time_zone", Value: s.TimeZone, Mend: "it is for cron; remove it"}
	}
	if _, err := s.zone(); err != nil {
		return spec.FieldError{Field: "time_zone", Value: s.TimeZone, Mend: "use an IANA name such as Europe/Berlin"}
	}
	if strings.Contains(s.Cron, "TZ=") {
		return spec.FieldError{Field: "cron", Value: s.Cron, Mend: "name the zone as time_zone"}
	}
	if s.Cron != "" {
		parsed, err := cron.ParseStandard(s.Cron)
		if err != nil {
			return spec.FieldError{Field: "cron", Value: s.Cron, Mend: "write five fields, such as \"0 9 * * 1-5\": " + err.Error()}
		}
		if parsed.Next(time.Unix(0, 0)).IsZero() {
			return spec.FieldError{Field: "cron", Value: s.Cron, Mend: "it names a day that never comes"}
		}
	}
	switch s.Missed {
	case "", MissedLatest, MissedAll, MissedSkip:
		return nil
	}
	return spec.FieldError{Field: "missed", Value: s.Missed, Mend: "use latest, all or skip"}
}

func (s Schedule) zone() (*time.Location, error) {
	if s.TimeZone == "Local" { // the gateway's own zone is nobody's to know
		return nil, fmt.Errorf("no zone %q", s.TimeZone)
	}
	return time.LoadLocation(s.TimeZone) // "" is UTC
}

// Next is the first tick after a time; zero when there is none, or the schedule is wrong.
func (s Schedule) Next(after time.Time) time.Time {
	if after.Before(s.Created) {
		after = s.Created
	}
	if s.Every > 0 {
		passed := after.Sub(s.Created) / s.Every.Std()
		return s.Created.Add((passed + 1) * s.Every.Std())
	}
	zone, err := s.zone()
	if err != nil {
		return time.Time{}
	}
	parsed, err := cron.ParseStandard(s.Cron)
	if err != nil {
		return time.Time{}
	}
	return parsed.Next(after.In(zone)).UTC()
}

// Due are the ticks after the last one that was seen to, up to now, for which calls are to be made, and the tick that counts as seen
// to when they are: it is last when there was none.
func (s Schedule) Due(last, now time.Time) (ticks []time.Time, seen time.Time) {
	seen = last
	if s.Paused {
		return nil, seen
	}
	for tick := s.Next(last); !tick.IsZero() && !tick.After(now); tick = s.Next(tick) {
		seen = tick
		late := now.Sub(tick) > Grace
		switch {
		case !late || s.Missed == MissedAll:
			ticks = append(ticks, tick)
		case s.Missed == MissedSkip:
			continue
		default:
			ticks = append(ticks[:0], tick)
		}
		if len(ticks) > MostMissed {
			ticks = ticks[1:]
		}
	}
	if s.Missed != MissedAll && len(ticks) > 1 && now.Sub(ticks[0]) > Grace {
		ticks = ticks[1:] // a missed tick is made up for only when none came on time
	}
	return ticks, seen
}
