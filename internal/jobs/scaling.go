package jobs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/robfig/cron/v3"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// PolicyError says that a function's scaling block is wrong, and nothing else is: the function can be called, and is scaled by
// the policy that it had before.
type PolicyError struct{ Cause error }

func (e *PolicyError) Error() string { return "the scaling policy is not in force: " + e.Cause.Error() }

// Unwrap is what is wrong.
func (e *PolicyError) Unwrap() error { return e.Cause }

// onlyScaling tells what is wrong with the scaling of a spec, and leaves the rest to others.
func onlyScaling(f spec.Function) error {
	var wrong *spec.ValidationError
	if !errors.As(f.Validate(), &wrong) {
		return nil
	}
	var fields []spec.FieldError
	for _, field := range wrong.Fields {
		if strings.HasPrefix(field.Field, "scaling.") {
			fields = append(fields, field)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return &spec.ValidationError{Fields: fields}
}

// scaling reads a group's scaling block.
func scaling(policy *api.ScalingPolicy) (spec.Scaling, error) {
	var s spec.Scaling
	if policy == nil {
		return s, nil
	}
	s.Min, s.Max = int(value(policy.Min)), int(value(policy.Max))
	for name, raw := range policy.Policy {
		var err error
		switch name {
		case "min": // of a job with several groups, each of which Nomad must let go to 0
			s.Min, err = whole(raw)
		case "target_inflight":
			s.TargetInflight, err = whole(raw)
		case "buffer":
			s.Buffer, err = whole(raw)
		case "scaledown_window":
			s.ScaledownWindow, err = duration(raw)
		case "zero_window":
			s.ZeroWindow, err = duration(raw)
		case "backlog_target":
			s.BacklogTarget, err = duration(raw)
		case "starts_per_minute":
			s.StartsPerMinute, err = whole(raw)
		case "predict_period":
			s.PredictPeriod, err = duration(raw)
		case "schedule":
			s.Schedules, err = warmSchedules(raw)
		default:
			err = errors.New("no such field; remove it or mend its spelling")
		}
		if err != nil {
			return s, within("scaling.policy."+name, raw, err)
		}
	}
	return s, nil
}

// within names the field of an error that names none yet.
func within(field string, raw any, err error) error {
	var named spec.FieldError
	if errors.As(err, &named) {
		return err
	}
	return spec.FieldError{Field: field, Value: fmt.Sprint(raw), Mend: err.Error()}
}

// warmSchedules reads the schedule blocks: Nomad's parser delivers a list, JSON may have a single object.
func warmSchedules(raw any) ([]spec.Schedule, error) {
	var blocks []map[string]any
	switch list := raw.(type) {
	case map[string]any:
		blocks = append(blocks, list)
	case []map[string]any:
		blocks = list
	case []any:
		for _, one := range list {
			block, ok := one.(map[string]any)
			if !ok {
				return nil, errors.New("write blocks: schedule { cron = \"30 8 * * 1-5\"  for = \"10h\"  min = 2 }")
			}
			blocks = append(blocks, block)
		}
	default:
		return nil, errors.New("write blocks: schedule { cron = \"30 8 * * 1-5\"  for = \"10h\"  min = 2 }")
	}
	var all []spec.Schedule
	for i, block := range blocks {
		one, err := warmSchedule(fmt.Sprintf("scaling.policy.schedule[%d]", i), block)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func warmSchedule(field string, block map[string]any) (spec.Schedule, error) {
	var s spec.Schedule
	for name, raw := range block {
		var err error
		switch name {
		case "cron":
			s.Cron = fmt.Sprint(raw)
		case "timezone":
			s.Timezone = fmt.Sprint(raw)
		case "for":
			s.For, err = duration(raw)
		case "min":
			s.Min, err = whole(raw)
		default:
			err = errors.New("no such field; remove it or mend its spelling")
		}
		if err != nil {
			return s, within(field+"."+name, raw, err)
		}
	}
	if _, err := ParseCron(s); err != nil {
		return s, within(field+".cron", s.Cron, err)
	}
	return s, nil
}

// ParseCron reads when a schedule begins. The error says what is wrong with its expression or time zone.
func ParseCron(s spec.Schedule) (cron.Schedule, error) {
	zone := s.Timezone
	if zone == "" {
		zone = "UTC"
	}
	if _, err := time.LoadLocation(zone); err != nil {
		return nil, fmt.Errorf("read time zone %q: %w", zone, err)
	}
	parsed, err := cron.ParseStandard("CRON_TZ=" + zone + " " + s.Cron)
	if err != nil {
		return nil, fmt.Errorf("read cron expression: %w", err)
	}
	return parsed, nil
}

func duration(raw any) (spec.Duration, error) {
	var d spec.Duration
	err := d.UnmarshalText([]byte(fmt.Sprint(raw)))
	return d, err
}

// whole reads a number as HCL (int), JSON (float64) and quoted HCL (string) deliver it.
func whole(raw any) (int, error) {
	switch number := raw.(type) {
	case int:
		return number, nil
	case float64:
		if number == float64(int(number)) {
			return int(number), nil
		}
	case string:
		if n, err := strconv.Atoi(number); err == nil {
			return n, nil
		}
	}
	return 0, errors.New("write a whole number")
}
