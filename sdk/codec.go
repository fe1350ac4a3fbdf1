package freshet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"strings"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// Error is how a call ended without a result; see package wire for its kinds.
type Error = wire.Error

// InputError says that a call's input is at fault: its caller gets HTTP status 400, and it is not tried again.
func InputError(format string, values ...any) error {
	return &Error{Kind: wire.KindInput, Message: fmt.Sprintf(format, values...)}
}

// adapt makes a typed function one of bytes.
func adapt[In, Out any](fn func(context.Context, In) (Out, error)) handler {
	return func(ctx context.Context, contentType string, input []byte) (string, []byte, error) {
		var in In
		var err error
		if reader, ok := any(&in).(*io.Reader); ok {
			*reader, err = inputReader(ctx, input)
		} else {
			in, err = decode[In](contentType, input)
		}
		if err != nil {
			return "", nil, err
		}
		out, err := fn(ctx, in)
		if err != nil {
			return "", nil, err
		}
		switch reader := any(&out).(type) {
		case *io.Reader:
			return outputOf(ctx, *reader)
		case *io.ReadCloser:
			return outputOf(ctx, *reader)
		}
		return encode(out)
	}
}

// adaptGenerator makes a typed generator one of bytes.
func adaptGenerator[In, Out any](fn func(context.Context, In) iter.Seq2[Out, error]) generator {
	return func(ctx context.Context, contentType string, input []byte, yield func(string, []byte) error) error {
		in, err := decode[In](contentType, input)
		if err != nil {
			return err
		}
		for out, err := range fn(ctx, in) {
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			outType, value, err := encode(out)
			if err != nil {
				return err
			}
			if err := yield(outType, value); err != nil {
				return err
			}
		}
		return nil
	}
}

func decode[In any](contentType string, input []byte) (In, error) {
	var in In
	switch into := any(&in).(type) {
	case *[]byte:
		*into = input
		return in, nil
	case *string:
		if !strings.HasPrefix(contentType, "application/json") {
			*into = string(input)
			return in, nil
		}
	}
	if len(input) == 0 {
		return in, nil
	}
	if err := json.Unmarshal(input, &in); err != nil {
		return in, inputError(err)
	}
	return in, nil
}

// inputError says where a JSON input is wrong, and what was wanted there.
func inputError(err error) error {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return InputError("the input is not JSON: %v at byte %d", err, syntax.Offset)
	case errors.As(err, &wrong) && wrong.Field != "":
		return InputError("the input's field %q is a JSON %s: write a %s", wrong.Field, wrong.Value, wrong.Type)
	case errors.As(err, &wrong):
		return InputError("the input is a JSON %s: write a %s", wrong.Value, wrong.Type)
	}
	return InputError("the input cannot be read: %v", err)
}

func encode(out any) (contentType string, data []byte, err error) {
	switch value := out.(type) {
	case []byte:
		return "application/octet-stream", value, nil
	case string:
		return "text/plain; charset=utf-8", []byte(value), nil
	}
	data, err = json.Marshal(out)
	if err != nil {
		return "", nil, fmt.Errorf("encode output: %w", err)
	}
	return "application/json", data, nil
}

// callError is the error as its caller gets it.
func callError(err error) *Error {
	var typed *Error
	if errors.As(err, &typed) {
		return typed
	}
	if errors.Is(err, context.Canceled) {
		return &Error{Kind: wire.KindCancelled, Message: err.Error()}
	}
	return &Error{Kind: wire.KindUser, Type: typeName(err), Message: err.Error()}
}

// typeName is the type that says most: the first one below the wrappers of fmt and errors.
func typeName(err error) string {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		name := reflect.TypeOf(inner).String()
		if !strings.HasPrefix(name, "*fmt.") && !strings.HasPrefix(name, "*errors.") {
			return name
		}
	}
	return "error"
}
