package driver

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// TestSchemaHasEveryField: what a job may say and what the driver understands are the same.
func TestSchemaHasEveryField(t *testing.T) {
	want, got := map[string]bool{}, map[string]bool{}
	fieldsOf(reflect.TypeFor[spec.Config](), "", want)
	schemaOf(taskConfigSpec(), "", got)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func fieldsOf(typ reflect.Type, prefix string, names map[string]bool) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return
	}
	for field := range fields(typ) {
		if field.Anonymous {
			fieldsOf(field.Type, prefix, names)
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names[prefix+name] = true
		fieldsOf(field.Type, prefix+name+".", names)
	}
}

func fields(typ reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range typ.NumField() {
			if !yield(typ.Field(i)) {
				return
			}
		}
	}
}

func schemaOf(s *hclspec.Spec, prefix string, names map[string]bool) {
	switch {
	case s.GetBlockValue() != nil:
		schemaOf(s.GetBlockValue().GetNested(), prefix, names)
	case s.GetBlockList() != nil:
		schemaOf(s.GetBlockList().GetNested(), prefix, names)
	}
	for name, inner := range s.GetObject().GetAttributes() {
		if prefix == "" || !strings.HasPrefix(prefix, "logging.") { // its content is nobody's
			names[prefix+name] = true
		}
		schemaOf(inner, prefix+name+".", names)
	}
}
