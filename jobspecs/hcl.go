package jobspecs

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/hashicorp/nomad/api"
	"github.com/zclconf/go-cty/cty"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// HCL writes the job of a function as people do, in Nomad's language. It says the same as Render, but that
// HCL composes the characters of texts. It fails as Render does.
func HCL(f spec.Function) ([]byte, error) {
	job, err := Render(f)
	if err != nil {
		return nil, err
	}
	file := hclwrite.NewEmptyFile()
	if err := writeJob(file.Body(), job); err != nil {
		return nil, fmt.Errorf("write the jobspec of %s: %w", f.JobID(), err)
	}
	return hclwrite.Format(file.Bytes()), nil
}

// field is an attribute, or with []map[string]any the blocks, of a name.
type field struct {
	name  string
	value any
}

func writeJob(file *hclwrite.Body, job *api.Job) error {
	body := file.AppendNewBlock("job", []string{*job.ID}).Body()
	if err := write(body,
		field{"namespace", *job.Namespace}, field{"type", *job.Type}, field{"priority", *job.Priority},
		field{"datacenters", job.Datacenters}, field{"meta", job.Meta},
	); err != nil {
		return err
	}
	for _, group := range job.TaskGroups {
		body.AppendNewline()
		if err := writeGroup(body.AppendNewBlock("group", []string{*group.Name}).Body(), group); err != nil {
			return err
		}
	}
	return nil
}

func writeGroup(body *hclwrite.Body, group *api.TaskGroup) error {
	restart, reschedule := group.RestartPolicy, group.ReschedulePolicy
	scaling := map[string]any{"enabled": *group.Scaling.Enabled, "min": *group.Scaling.Min, "max": *group.Scaling.Max}
	if group.Scaling.Policy != nil {
		scaling["policy"] = []map[string]any{group.Scaling.Policy}
	}
	if err := write(body,
		field{"count", *group.Count},
		field{"update", block(map[string]any{"max_parallel": *group.Update.MaxParallel})},
		field{"scaling", block(scaling)},
		field{"restart", block(map[string]any{
			"attempts": *restart.Attempts, "interval": *restart.Interval, "delay": *restart.Delay, "mode": *restart.Mode,
		})},
		field{"reschedule", block(map[string]any{
			"unlimited": *reschedule.Unlimited, "attempts": *reschedule.Attempts, "delay": *reschedule.Delay,
			"delay_function": *reschedule.DelayFunction, "max_delay": *reschedule.MaxDelay,
		})},
		field{"ephemeral_disk", block(map[string]any{"size": *group.EphemeralDisk.SizeMB})},
	); err != nil {
		return err
	}
	for _, task := range group.Tasks {
		body.AppendNewline()
		if err := writeTask(body.AppendNewBlock("task", []string{task.Name}).Body(), task); err != nil {
			return err
		}
	}
	return nil
}

func writeTask(body *hclwrite.Body, task *api.Task) error {
	fields := []field{{"driver", task.Driver}, {"kill_timeout", *task.KillTimeout}}
	if task.User != "" {
		fields = append(fields, field{"user", task.User})
	}
	fields = append(fields,
		field{"logs", block(map[string]any{
			"disabled": *task.LogConfig.Disabled, "max_files": *task.LogConfig.MaxFiles, "max_file_size": *task.LogConfig.MaxFileSizeMB,
		})},
		field{"config", block(task.Config)})
	if len(task.Env) > 0 {
		fields = append(fields, field{"env", task.Env})
	}
	if err := write(body, fields...); err != nil {
		return err
	}
	body.AppendNewline()
	resources := body.AppendNewBlock("resources", nil).Body()
	if err := write(resources, field{"cpu", *task.Resources.CPU}, field{"memory", *task.Resources.MemoryMB}); err != nil {
		return err
	}
	for _, device := range task.Resources.Devices {
		resources.AppendNewline()
		one := resources.AppendNewBlock("device", []string{device.Name}).Body()
		if err := write(one, field{"count", *device.Count}); err != nil {
			return err
		}
		for _, constraint := range device.Constraints {
			if err := write(one, field{"constraint", block(map[string]any{
				// ${…} is what Nomad itself puts in, and the only text here that is not meant as it stands.
				"attribute": reference(constraint.LTarget), "operator": constraint.Operand, "value": constraint.RTarget,
			})}); err != nil {
				return err
			}
		}
	}
	return nil
}

func block(fields map[string]any) []map[string]any { return []map[string]any{fields} }

// reference is a "${…}" that stays one.
type reference string

// write writes fields in their order, blocks with an empty line before each.
func write(body *hclwrite.Body, fields ...field) error {
	for _, f := range fields {
		blocks, ok := asBlocks(f.value)
		if !ok {
			if err := attribute(body, f); err != nil {
				return err
			}
			continue
		}
		for _, one := range blocks {
			if len(body.Attributes())+len(body.Blocks()) > 0 {
				body.AppendNewline()
			}
			if err := write(body.AppendNewBlock(f.name, nil).Body(), sorted(one)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// sorted are a block's fields by name, attributes before blocks.
func sorted(all map[string]any) []field {
	var attributes, blocks []field
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if _, ok := asBlocks(all[name]); ok {
			blocks = append(blocks, field{name, all[name]})
		} else {
			attributes = append(attributes, field{name, all[name]})
		}
	}
	return append(attributes, blocks...)
}

// asBlocks tells whether a value is a list of objects, which people write as blocks.
func asBlocks(value any) ([]map[string]any, bool) {
	switch list := value.(type) {
	case []map[string]any:
		return list, true
	case []any:
		blocks := make([]map[string]any, len(list))
		for i, one := range list {
			object, ok := one.(map[string]any)
			if !ok {
				return nil, false
			}
			blocks[i] = object
		}
		return blocks, len(list) > 0
	}
	return nil, false
}

func attribute(body *hclwrite.Body, f field) error {
	if text, ok := f.value.(reference); ok {
		body.SetAttributeRaw(f.name, hclwrite.Tokens{{Type: hclsyntax.TokenQuotedLit, Bytes: []byte(`"` + string(text) + `"`)}})
		return nil
	}
	value, err := toCty(f.value)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	body.SetAttributeValue(f.name, value)
	return nil
}

func toCty(value any) (cty.Value, error) {
	switch v := value.(type) {
	case string:
		return cty.StringVal(v), nil
	case bool:
		return cty.BoolVal(v), nil
	case int:
		return cty.NumberIntVal(int64(v)), nil
	case int64:
		return cty.NumberIntVal(v), nil
	case uint64:
		return cty.NumberUIntVal(v), nil
	case float64:
		return cty.NumberFloatVal(v), nil
	case time.Duration:
		return cty.StringVal(v.String()), nil
	case []string:
		return toTuple(v)
	case []any:
		return toTuple(v)
	case map[string]string:
		return toObject(v)
	case map[string]any:
		return toObject(v)
	}
	return cty.NilVal, fmt.Errorf("no form in HCL for a %T", value)
}

func toTuple[T any](list []T) (cty.Value, error) {
	all := make([]cty.Value, len(list))
	for i, one := range list {
		var err error
		if all[i], err = toCty(any(one)); err != nil {
			return cty.NilVal, err
		}
	}
	return cty.TupleVal(all), nil
}

func toObject[T any](object map[string]T) (cty.Value, error) {
	all := make(map[string]cty.Value, len(object))
	for name, one := range object {
		var err error
		if all[name], err = toCty(any(one)); err != nil {
			return cty.NilVal, err
		}
	}
	return cty.ObjectVal(all), nil
}
