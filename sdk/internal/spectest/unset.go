// Package spectest helps to test that whoever describes functions can say all that a spec can.
package spectest

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Unset tells the paths of the fields of a function that are zero, in every element of lists together, in their order. Those that
// reasons names are left out, with all that is in them.
func Unset(function spec.Function, reasons map[string]string) []string {
	found := make(map[string]bool)
	unset(reflect.ValueOf(function), "", func(path string) {
		for at := path; at != ""; at = at[:max(0, strings.LastIndexByte(at, '.'))] {
			if _, ok := reasons[at]; ok {
				return
			}
		}
		found[path] = true
	})
	return slices.Sorted(maps.Keys(found))
}

func unset(v reflect.Value, path string, tell func(string)) {
	switch {
	case v.Kind() == reflect.Pointer && !v.IsNil():
		unset(v.Elem(), path, tell)
	case v.Kind() == reflect.Slice && v.Len() > 0 && v.Type().Elem().Kind() == reflect.Struct:
		zero := map[string]int{}
		for i := range v.Len() {
			unset(v.Index(i), path, func(field string) { zero[field]++ })
		}
		for field, count := range zero {
			if count == v.Len() {
				tell(field)
			}
		}
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" && field.Anonymous {
				unset(v.Field(i), path, tell)
				continue
			}
			unset(v.Field(i), strings.TrimPrefix(path+"."+name, "."), tell)
		}
	case v.IsZero():
		tell(path)
	}
}
