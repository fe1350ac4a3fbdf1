package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// Function calls one function with a typed input and output: []byte is bytes as they are, string is text, anything else JSON. It is a
// plain value, safe for concurrent use.
type Function[In, Out any] struct {
	client  *Client
	request Request
	window  int
}

// Of is the function, or the method, of a handle that freshet.Func, freshet.Batched or freshet.Method returned.
func Of[In, Out any](c *Client, handle freshet.Handle[In, Out]) Function[In, Out] {
	return Function[In, Out]{c, Request{Function: handle.Function(), Method: handle.Method()}, defaultWindow}
}

// Named is a function by its name, APP.FUNCTION or APP.FUNCTION.METHOD, of whatever language. The types are the caller's to know.
func Named[In, Out any](c *Client, name string) Function[In, Out] {
	app, rest, _ := strings.Cut(name, ".")
	function, method, _ := strings.Cut(rest, ".")
	if function != "" {
		name = app + "." + function
	}
	return Function[In, Out]{c, Request{Function: name, Method: method}, defaultWindow}
}

// defaultWindow is how many calls of a map are in flight unless Window says otherwise.
const defaultWindow = 256

// With is the function's workers that were made with these values of a class's parameters: strings, integers, booleans and bytes.
func (f Function[In, Out]) With(parameters map[string]any) Function[In, Out] {
	f.request = f.request.With(parameters)
	return f
}

// Key makes calls of the value one call: it happens once, and all get its result.
func (f Function[In, Out]) Key(key string) Function[In, Out] {
	f.request.Key = key
	return f
}

// Callback has an address, such as https://example.com/done, told by a POST when a spawned call has ended.
func (f Function[In, Out]) Callback(address string) Function[In, Out] {
	f.request.Callback = address
	return f
}

// CancelWithContext has calls of the value be cancelled when the context of their caller ends; without it a call that has begun runs to its
// end. It costs a call one more request.
func (f Function[In, Out]) CancelWithContext() Function[In, Out] {
	f.request.CancelWithContext = true
	return f
}

// Window is how many calls of a map are in flight at once, 1 to 4096. Default 256.
func (f Function[In, Out]) Window(calls int) Function[In, Out] {
	f.window = calls
	return f
}

// Call calls the function and waits for its output. Errors of the call are *Error, and by errors.As also *RemoteError, *TimeoutError and so
// on. The call's deadline is the context's.
func (f Function[In, Out]) Call(ctx context.Context, in In) (Out, error) {
	var out Out
	request, err := requestWith(f.request, in)
	if err != nil {
		return out, err
	}
	response, err := f.client.Do(ctx, request)
	if err != nil {
		return out, err
	}
	return decode[Out](f.request.Function, response)
}

// Spawn makes a call and returns once the cluster has it for certain.
func (f Function[In, Out]) Spawn(ctx context.Context, in In) (FunctionCall[Out], error) {
	request, err := requestWith(f.request, in)
	if err != nil {
		return FunctionCall[Out]{}, err
	}
	id, err := f.client.Spawn(ctx, request)
	return FunctionCall[Out]{f.client, id}, err
}

// Map calls the function for each input and yields the outputs in the order of the inputs. A call that fails yields its error in its place,
// and does not end the others; the last error, where there is one, is the map's own, and no *Error. Inputs are taken as there is room for
// them; a consumer who stops ends the calls that are under way. An input of type []byte has to be JSON, which the function gets as it is.
//
// Several arguments are one input: a struct with a field for each.
func (f Function[In, Out]) Map(ctx context.Context, inputs iter.Seq[In]) iter.Seq2[Out, error] {
	return func(yield func(Out, error) bool) {
		for result, err := range f.results(ctx, inputs, f.client.Map) {
			if err == nil {
				err = result.Err
			}
			if !yield(result.Output, err) {
				return
			}
		}
	}
}

// Result is how one of several calls ended.
type Result[Out any] struct {
	// Index is the call's place among them, from 0.
	Index int
	// Output is what the function returned, where Err is nil.
	Output Out
	Err    error
}

// MapUnordered is Map, and yields the end of each call as it comes: a slow one holds up no other. The error beside a result is the map's
// own, and ends it.
func (f Function[In, Out]) MapUnordered(ctx context.Context, inputs iter.Seq[In]) iter.Seq2[Result[Out], error] {
	return f.results(ctx, inputs, f.client.MapUnordered)
}

// ForEach calls the function for each input, for what it does, and waits for all. The error joins those of the calls, up to 100 of them,
// each with its input's index.
func (f Function[In, Out]) ForEach(ctx context.Context, inputs iter.Seq[In]) error {
	const most = 100
	var failed []error
	for result, err := range f.MapUnordered(ctx, inputs) {
		if err != nil {
			return errors.Join(append(failed, err)...)
		}
		if result.Err != nil && len(failed) < most {
			failed = append(failed, fmt.Errorf("input %d: %w", result.Index, result.Err))
		}
	}
	return errors.Join(failed...)
}

// mapper is Client.Map or Client.MapUnordered.
type mapper = func(context.Context, Request, iter.Seq[[]byte], int) iter.Seq2[Item, error]

func (f Function[In, Out]) results(ctx context.Context, inputs iter.Seq[In], run mapper) iter.Seq2[Result[Out], error] {
	return func(yield func(Result[Out], error) bool) {
		lines := &inputLines[In]{function: f.request.Function, inputs: inputs}
		for item, err := range run(ctx, f.request, lines.all, f.window) {
			result := Result[Out]{Index: item.Index, Err: item.Err}
			if err == nil && result.Err == nil {
				result.Output, result.Err = decode[Out](f.request.Function, item.Response)
			}
			if wrong := lines.wrong(item.Index); err == nil && wrong != nil {
				result.Err = wrong
			}
			if !yield(result, err) {
				return
			}
		}
	}
}

// inputLines are the inputs of a map as JSON, and the errors of those that have none.
type inputLines[In any] struct {
	function string
	inputs   iter.Seq[In]

	mu     sync.Mutex
	failed map[int]error
}

func (l *inputLines[In]) all(yield func([]byte) bool) {
	index := 0
	for in := range l.inputs {
		line, isJSON := any(in).([]byte)
		if !isJSON {
			var err error
			if line, err = json.Marshal(in); err != nil {
				l.fail(index, fmt.Errorf("call %s: encode input: %w", l.function, err))
			}
		}
		if !yield(line) {
			return
		}
		index++
	}
}

func (l *inputLines[In]) fail(index int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = make(map[int]error)
	}
	l.failed[index] = err
}

func (l *inputLines[In]) wrong(index int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed[index]
}

// FunctionCall is a call that was spawned. Its id may be kept and used by another program, for as long as its result is kept.
type FunctionCall[Out any] struct {
	client *Client
	id     string
}

// Spawned is the call of an id that Spawn gave.
func Spawned[Out any](c *Client, id string) FunctionCall[Out] { return FunctionCall[Out]{c, id} }

// ID is the call's id.
func (c FunctionCall[Out]) ID() string { return c.id }

// Get waits until the call has ended and returns its output or its error. When the context ends first the call runs on.
func (c FunctionCall[Out]) Get(ctx context.Context) (Out, error) {
	response, err := c.client.Result(ctx, c.id)
	if err != nil {
		var none Out
		return none, err
	}
	return decode[Out](c.id, response)
}

// Cancel ends the call, whether it waits or runs. It is an error when it has ended before.
func (c FunctionCall[Out]) Cancel(ctx context.Context) error { return c.client.Cancel(ctx, c.id) }

// maxGets is how many results GetMany waits for at once.
const maxGets = 64

// GetMany waits for all of the calls and returns how each ended, in their order.
func GetMany[Out any](ctx context.Context, calls ...FunctionCall[Out]) []Result[Out] {
	results := make([]Result[Out], len(calls))
	room := make(chan struct{}, maxGets)
	var getting sync.WaitGroup
	for i, call := range calls {
		room <- struct{}{}
		getting.Go(func() {
			defer func() { <-room }()
			output, err := call.Get(ctx)
			results[i] = Result[Out]{i, output, err}
		})
	}
	getting.Wait()
	return results
}

// Stream calls one generator with a typed input and typed values.
type Stream[In, Out any] struct {
	client  *Client
	request Request
}

// StreamOf is the generator of a handle that freshet.Generate returned.
func StreamOf[In, Out any](c *Client, handle freshet.StreamHandle[In, Out]) Stream[In, Out] {
	return Stream[In, Out]{c, Request{Function: handle.Function()}}
}

// NamedStream is a generator by its name, APP.FUNCTION, of whatever language.
func NamedStream[In, Out any](c *Client, name string) Stream[In, Out] {
	return Stream[In, Out]{c, Request{Function: name}}
}

// Values calls the generator and yields each value as it comes. An error ends it: the call's own, or one of the connection, after which
// values may be missing. A consumer who stops ends the call.
func (s Stream[In, Out]) Values(ctx context.Context, in In) iter.Seq2[Out, error] {
	return func(yield func(Out, error) bool) {
		var none Out
		request, err := requestWith(s.request, in)
		if err != nil {
			yield(none, err)
			return
		}
		for data, err := range s.client.Stream(ctx, request) {
			value := none
			if err == nil {
				value, err = decodeValue[Out](s.request.Function, data)
			}
			if !yield(value, err) || err != nil {
				return
			}
		}
	}
}

// Call calls the generator and waits for all its values.
func (s Stream[In, Out]) Call(ctx context.Context, in In) ([]Out, error) {
	return Function[In, []Out]{client: s.client, request: s.request}.Call(ctx, in)
}

// requestWith is a request with a typed input.
func requestWith(request Request, in any) (Request, error) {
	switch value := in.(type) {
	case []byte:
		request.Body, request.ContentType = value, "application/octet-stream"
	case string:
		request.Body, request.ContentType = []byte(value), "text/plain; charset=utf-8"
	default:
		data, err := json.Marshal(in)
		if err != nil {
			return request, fmt.Errorf("call %s: encode input: %w", request.Function, err)
		}
		request.Body, request.ContentType = data, "application/json"
	}
	return request, nil
}

// decode reads a typed output.
func decode[Out any](function string, response Response) (Out, error) {
	var out Out
	into, isText := any(&out).(*string)
	if isText && !strings.HasPrefix(response.ContentType, "application/json") {
		*into = string(response.Body)
		return out, nil
	}
	if into, ok := any(&out).(*[]byte); ok {
		*into = response.Body
		return out, nil
	}
	if err := json.Unmarshal(response.Body, &out); err != nil {
		return out, fmt.Errorf("call %s: decode output: %w", function, err)
	}
	return out, nil
}

// decodeValue reads a value of a stream, which is JSON unless the function yields bytes.
func decodeValue[Out any](function string, data []byte) (Out, error) {
	return decode[Out](function, Response{Body: data, ContentType: "application/json"})
}

// KindOf is the kind of a call's error, or empty when the error is none of a call's.
func KindOf(err error) wire.Kind {
	var failed *Error
	if errors.As(err, &failed) {
		return failed.Fault.Kind
	}
	return ""
}
