package freshet

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Cron has the function called at the times of a cron expression of five fields, such as "0 9 * * 1-5", in an IANA time zone; an empty one is
// UTC. The schedule comes, changes and goes with the deploy. Its calls have no input, unless [Scheduled] gives one. One call is made a
// tick, whichever gateways run, and one for those that none could see to.
func Cron(expression, timezone string) Option {
	return Scheduled(spec.CallSchedule{Cron: expression, TimeZone: timezone}, nil)
}

// Every has the function called after each period, of 1s or more, counted from the deploy that brought the schedule: one that changes
// something else does not begin it anew.
func Every(period time.Duration) Option {
	return Scheduled(spec.CallSchedule{Every: spec.Duration(period)}, nil)
}

// Scheduled adds a schedule that needs more words: a name, for a function that several clocks call, an input, which is encoded as JSON (nil
// for none), or what becomes of missed ticks.
func Scheduled(schedule spec.CallSchedule, input any) Option {
	return func(f *function) {
		if input != nil {
			text, err := json.Marshal(input)
			if err != nil {
				f.broken = errors.Join(f.broken, fmt.Errorf("input of the schedule %q: %w", schedule.Name, err))
			}
			schedule.Input = string(text)
		}
		f.spec.Schedules = append(f.spec.Schedules, schedule)
	}
}
