package freshet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// ClassOf is a function with methods, and something that its workers hold for them.
type ClassOf[T any] struct{ function *function }

// Class adds a function whose workers hold a T, such as a model that was loaded. Its methods are added by [Method], and run in the same
// workers. T, as a pointer, may have hooks, each with a context and returning an error: Enter, BeforeFreeze, AfterThaw and Exit, which
// run as the options of those names.
//
// Exported fields of T with a tag `param:"name"` are parameters: their values come with each call, and every combination of values
// has workers of its own. They are set before Enter. Strings, int, int64, bool and []byte can be parameters; a further tag
// `default:"value"` is for calls that give none.
func Class[T any](app *App, name string, options ...Option) *ClassOf[T] {
	class := &ClassOf[T]{function: &function{methods: make(map[string]method)}}
	f := class.function
	parameters, err := parametersOf(reflect.TypeFor[T]())
	f.spec.Parameters, f.broken = parameters, err
	f.instance = func(arguments string) (any, hooks) {
		self := new(T)
		own := hooksOf(self)
		if len(parameters) > 0 && arguments != "" {
			own.set = func() error { return setParameters(reflect.ValueOf(self).Elem(), arguments) }
		}
		return self, own
	}
	app.add(name, f, options)
	return class
}

// hooksOf are the hooks that a class has as methods.
func hooksOf(self any) hooks {
	var own hooks
	if hook, ok := self.(interface{ Enter(context.Context) error }); ok {
		own.enter = hook.Enter
	}
	if hook, ok := self.(interface {
		BeforeFreeze(context.Context) error
	}); ok {
		own.beforeFreeze = hook.BeforeFreeze
	}
	if hook, ok := self.(interface{ AfterThaw(context.Context) error }); ok {
		own.afterThaw = hook.AfterThaw
	}
	if hook, ok := self.(interface{ Exit(context.Context) error }); ok {
		own.exit = hook.Exit
	}
	return own
}

// Method adds a method to a class under a name: fn is a method expression, such as (*Model).Embed, or any function like it. Inputs and
// outputs are those of [Func]. The handle that it returns is for typed calls of the method.
func Method[T, In, Out any](class *ClassOf[T], name string, fn func(*T, context.Context, In) (Out, error)) Handle[In, Out] {
	f := class.function
	wrong := errors.Join(missing(fn == nil), travels[In, Out]())
	if _, ok := f.methods[name]; ok {
		wrong = errors.Join(wrong, errors.New("the class has two of this name: rename one"))
	}
	if wrong != nil {
		f.broken = errors.Join(f.broken, fmt.Errorf("method %s: %w", name, wrong))
	}
	f.methods[name] = method{
		run: adapt(func(ctx context.Context, in In) (Out, error) {
			self, _ := from(ctx).guest.self.(*T) // which the guest made by this class
			return fn(self, ctx, in)
		}),
		reads: reads[In](),
	}
	f.spec.Methods = slices.Sorted(maps.Keys(f.methods))
	return Handle[In, Out]{function: f.spec.JobID(), method: name}
}

// method is what runs a call of the name.
func (f *function) method(name string) (method, error) {
	switch {
	case f.methods == nil && name == "":
		return f.plain, nil
	case f.methods == nil:
		return method{}, noMethod(name)
	}
	if m, ok := f.methods[name]; ok {
		return m, nil
	}
	return method{}, InputError("the class has no method %q: use one of %q", name, f.spec.Methods)
}

func noMethod(name string) error {
	return InputError("the function has no method %q: call it without one", name)
}

// parametersOf are the parameters that a class's fields declare.
func parametersOf(class reflect.Type) ([]spec.Parameter, error) {
	if class.Kind() != reflect.Struct {
		return nil, nil
	}
	var list []spec.Parameter
	var wrong []error
	for i := range class.NumField() {
		field := class.Field(i)
		name, ok := field.Tag.Lookup("param")
		if !ok {
			continue
		}
		kind := parameterType(field.Type)
		if kind == "" || !field.IsExported() {
			wrong = append(wrong, spec.FieldError{
				Field: "field " + field.Name, Value: field.Type.String(), Mend: "a parameter is an exported string, int, int64, bool or []byte",
			})
			continue
		}
		p := spec.Parameter{Name: name, Type: kind}
		if text, ok := field.Tag.Lookup("default"); ok {
			p.Default = &text
		}
		list = append(list, p)
	}
	return list, errors.Join(wrong...)
}

func parameterType(field reflect.Type) string {
	switch field {
	case reflect.TypeFor[string]():
		return spec.ParameterString
	case reflect.TypeFor[int](), reflect.TypeFor[int64]():
		return spec.ParameterInt
	case reflect.TypeFor[bool]():
		return spec.ParameterBool
	case reflect.TypeFor[[]byte]():
		return spec.ParameterBytes
	}
	return ""
}

// setParameters gives a class's fields the values of its worker.
func setParameters(class reflect.Value, arguments string) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(arguments), &values); err != nil {
		return fmt.Errorf("read parameters in %s: %w", spec.ArgumentsEnv, err)
	}
	for i := range class.NumField() {
		name, ok := class.Type().Field(i).Tag.Lookup("param")
		if !ok {
			continue
		}
		if err := json.Unmarshal(values[name], class.Field(i).Addr().Interface()); err != nil { // bytes are base64 here too
			return fmt.Errorf("read parameter %s: %w", name, err)
		}
	}
	return nil
}
