package jobs

import (
	"errors"
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/internal/schedule"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// CheckSpec tells everything that is wrong with a function's spec: what the spec itself can tell, and what needs a calendar.
func CheckSpec(f spec.Function) error {
	if err := f.Validate(); err != nil {
		return err
	}
	return checkSchedules(f.WithDefaults().Schedules)
}

// checkSchedules checks the clocks of calls.
func checkSchedules(all []spec.CallSchedule) error {
	for i, s := range all {
		err := schedule.Of(s, time.Time{}).Check()
		var wrong spec.FieldError
		if errors.As(err, &wrong) {
			wrong.Field = fmt.Sprintf("schedule[%d].%s", i, wrong.Field)
			return &spec.ValidationError{Fields: []spec.FieldError{wrong}}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
