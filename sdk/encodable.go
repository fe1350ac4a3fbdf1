package freshet

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// direction is which way values of a type go: inputs are decoded, outputs encoded.
type direction struct {
	root       string
	json, text reflect.Type // what a type has that does it itself
	verb       string
}

func inputs() direction {
	return direction{"In", reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](), "decoded from"}
}

func outputs() direction {
	return direction{"Out", reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler](), "encoded as"}
}

// travels tells, when an app is deployed, that values of the two types can go to a function and come back: a call would only tell later.
func travels[In, Out any]() error {
	in, out := inputs(), outputs()
	var wrong []error
	if t := reflect.TypeFor[In](); t == reflect.TypeFor[io.ReadCloser]() {
		wrong = append(wrong, in.refuse(in.root, t, "take an io.Reader, which is closed for you"))
	} else if t != reflect.TypeFor[io.Reader]() {
		wrong = append(wrong, in.check(in.root, t, nil))
	}
	if !streamed[Out]() {
		wrong = append(wrong, out.check(out.root, reflect.TypeFor[Out](), nil))
	}
	return errors.Join(wrong...)
}

func (d direction) refuse(path string, t reflect.Type, mend string) error {
	return spec.FieldError{Field: path, Value: t.String(), Mend: "it cannot be " + d.verb + " JSON: " + mend}
}

// itself tells whether a type has its own way from or to JSON.
func (d direction) itself(t reflect.Type) bool {
	for _, own := range []reflect.Type{d.json, d.text} {
		if t.Implements(own) || reflect.PointerTo(t).Implements(own) {
			return true
		}
	}
	return false
}

// check tells the first thing in a type that has no JSON, by the path of fields that leads there. within are the types around it.
func (d direction) check(path string, t reflect.Type, within []reflect.Type) error {
	if i := slices.Index(within, t); i >= 0 {
		if !slices.ContainsFunc(within[i:], func(between reflect.Type) bool { return between.Kind() != reflect.Pointer }) {
			return d.refuse(path, t, "it points at its own type for ever")
		}
		return nil // a list or tree, whose values end somewhere
	}
	if d.itself(t) {
		return nil
	}
	within = append(within[:len(within):len(within)], t)
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return d.refuse(path, t, mendFor(t.Kind()))
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return d.refuse(path, t, "nothing says which type it holds: use a concrete type, or any")
		}
	case reflect.Pointer:
		return d.check(path, t.Elem(), within)
	case reflect.Slice, reflect.Array:
		return d.check(path+"[]", t.Elem(), within)
	case reflect.Map:
		if !d.key(t.Key()) {
			return d.refuse(path, t, "use keys that are strings or integers, or write themselves as text")
		}
		return d.check(path+"[]", t.Elem(), within)
	case reflect.Struct:
		return d.fields(path, t, within)
	}
	return nil
}

func mendFor(kind reflect.Kind) string {
	switch kind {
	case reflect.Complex64, reflect.Complex128:
		return "use two numbers"
	case reflect.Chan:
		return "use a slice, a function that yields (freshet.Generate), or leave the field out with the tag `json:\"-\"`"
	}
	return "use a value that says the same, or leave the field out with the tag `json:\"-\"`"
}

func (d direction) key(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	}
	return t.Implements(d.text) || reflect.PointerTo(t).Implements(d.text)
}

// fields checks those fields of a struct that encoding/json sees.
func (d direction) fields(path string, t reflect.Type, within []reflect.Type) error {
	seen := 0
	var wrong []error
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		embedded := field.Anonymous && name == ""
		if !field.IsExported() && (!embedded || pointed(field.Type).Kind() != reflect.Struct) {
			continue
		}
		if seen++; field.Tag.Get("json") == "-" {
			continue // left out on purpose, so that the struct is not empty by mistake
		}
		wrong = append(wrong, d.check(path+"."+field.Name, field.Type, within))
	}
	if seen == 0 && t.NumField() > 0 {
		return d.refuse(path, t, fmt.Sprintf("all its fields are unexported and would be lost: export them, or give %s methods MarshalJSON and UnmarshalJSON", t))
	}
	return errors.Join(wrong...)
}

func pointed(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}
