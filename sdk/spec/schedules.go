package spec

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Limits on the schedules that a function's spec has.
const (
	// MaxCallSchedules is the most schedules of calls in one spec.
	MaxCallSchedules = 20
	// MaxScheduledInput bounds the input of a schedule in a spec, in bytes: a job's description is no place for more. One that is set
	// through the gateway may have half a MiB.
	MaxScheduledInput = 16 << 10
	// ScheduleName is the name of a schedule that has none.
	ScheduleName = "deployed"
)

// CallSchedule has the function called by a clock, for as long as its spec says so: the schedule comes, changes and goes with the deploy.
type CallSchedule struct {
	// Name tells a function's schedules apart; it matches NamePattern. Default "deployed", for one of them.
	Name string `json:"name,omitempty"`
	// Cron has five fields, such as "0 9 * * 1-5", in TimeZone, an IANA name; default UTC.
	Cron     string `json:"cron,omitempty"`
	TimeZone string `json:"time_zone,omitempty"`
	// Every is a period, 1s or longer, counted from the deploy that brought it; one of Cron and Every is given.
	Every Duration `json:"every,omitempty"`
	// Method is what to call of a class.
	Method string `json:"method,omitempty"`
	// Input is the calls' input, as JSON text. Default none.
	Input string `json:"input,omitempty"`
	// Missed says what becomes of ticks that nobody could see to: latest, all or skip. Default latest.
	Missed string `json:"missed,omitempty"`
}

// checkCallSchedules checks what needs no calendar; who reads the job checks the rest.
func checkCallSchedules(c *checker, cfg Config) {
	if len(cfg.Schedules) > MaxCallSchedules {
		c.fail("schedule", len(cfg.Schedules), "use at most %d schedules", MaxCallSchedules)
	}
	seen := make(map[string]bool)
	for i, s := range cfg.Schedules {
		field := fmt.Sprintf("schedule[%d]", i)
		c.name(field+".name", s.Name)
		if seen[s.Name] {
			c.fail(field+".name", s.Name, "give each schedule a name of its own")
		}
		seen[s.Name] = true
		if len(s.Input) > MaxScheduledInput {
			c.fail(field+".input", fmt.Sprintf("%d bytes", len(s.Input)), "use at most %d bytes", MaxScheduledInput)
		} else if s.Input != "" && !json.Valid([]byte(s.Input)) {
			c.fail(field+".input", s.Input, "write JSON text, such as {\"q\":\"news\"}")
		}
		checkScheduledMethod(c, field+".method", s.Method, cfg.Methods)
	}
	if p := cfg.Parameters; len(cfg.Schedules) > 0 {
		for _, one := range p {
			if one.Default == nil {
				c.fail("schedule", len(cfg.Schedules), "give the parameter %s a default: a schedule calls with the defaults", one.Name)
			}
		}
	}
}

func checkScheduledMethod(c *checker, field, method string, methods []string) {
	switch {
	case len(methods) == 0 && method != "":
		c.fail(field, method, "remove it: the function has no methods")
	case len(methods) > 0 && !slices.Contains(methods, method):
		c.fail(field, method, "name one of the methods %q", methods)
	}
}
