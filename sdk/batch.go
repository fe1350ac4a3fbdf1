package freshet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// Batched adds a function that takes calls together: up to size of them, and the first waits so long for others. fn gets the inputs of
// the calls and returns as many outputs, in their order. Each call is one of its own for its caller, with its result, its
// retries and its cancellation.
//
// An error is every call's; [ItemErrors] gives each its own. An input that cannot be read is its call's error alone, and fn does not
// get it. The context ends when no call of the batch is wanted any more.
func Batched[In, Out any](
	app *App, name string, size int, wait time.Duration, fn func(context.Context, []In) ([]Out, error), options ...Option,
) Handle[In, Out] {
	f := &function{together: adaptBatch(fn)}
	f.broken = errors.Join(missing(fn == nil), travels[In, Out](), wholeOnly[In, Out]("a batch"))
	f.spec.Batching = spec.Batching{MaxSize: size, Wait: spec.Duration(wait)}
	app.add(name, f, options)
	if size < 1 { // which the spec takes for no batching
		f.broken = errors.Join(f.broken, spec.FieldError{Field: "batching.max_size", Value: fmt.Sprint(size), Mend: fmt.Sprintf("use 1 to %d", spec.MaxBatchSize)})
	}
	return Handle[In, Out]{function: app.name + "." + name}
}

// ItemErrors are the errors of a batch's calls, by their index; nil for a call that has an output.
type ItemErrors []error

func (e ItemErrors) Error() string {
	return errors.Join(e...).Error()
}

// item is a call of a batch with its input, and then with how it ended.
type item struct {
	number uint64
	meta   wire.Call
	input  []byte

	contentType string
	output      []byte
	err         error
}

// batcher runs the user's code for the calls of a batch.
type batcher func(ctx context.Context, items []*item) error

// adaptBatch makes a typed function of lists one of items.
func adaptBatch[In, Out any](fn func(context.Context, []In) ([]Out, error)) batcher {
	return func(ctx context.Context, items []*item) error {
		inputs, read := make([]In, 0, len(items)), make([]*item, 0, len(items))
		for _, one := range items {
			if one.err != nil {
				continue
			}
			var in In
			if in, one.err = decode[In](one.meta.ContentType, one.input); one.err == nil {
				inputs, read = append(inputs, in), append(read, one)
			}
		}
		if len(read) == 0 {
			return nil
		}
		outputs, err := fn(ctx, inputs)
		var each ItemErrors
		switch {
		case errors.As(err, &each) && len(each) != len(read):
			return wrongCount("errors", len(each), len(read))
		case err != nil && each == nil:
			return err
		case len(outputs) != len(read):
			return wrongCount("outputs", len(outputs), len(read))
		}
		for i, one := range read {
			if each != nil && each[i] != nil {
				one.err = each[i]
				continue
			}
			one.contentType, one.output, one.err = encode(outputs[i])
		}
		return nil
	}
}

// wrongCount is every call's error when it is not known which output is whose.
func wrongCount(what string, got, want int) error {
	return &Error{
		Kind: wire.KindUser, Type: "freshet.WrongCount",
		Message: fmt.Sprintf("the function returned %d %s for %d inputs: it must return one for each, in their order", got, what, want),
	}
}

// batch is calls that run together, or the first ones of them.
type batch struct {
	items  []*item
	cancel context.CancelCauseFunc
	wanted map[uint64]bool // by the calls' numbers
}

// gather keeps a call until its batch is whole, and returns what runs the batch then. A host that knows of no batches gives a call
// alone.
func (g *guest) gather(ctx context.Context, meta wire.Call, msg wire.Message) func() {
	if meta.Batch == nil {
		meta.Batch = &wire.Batch{Size: 1}
	}
	g.calls.Add(1)
	g.mu.Lock()
	defer g.mu.Unlock()
	number := meta.Batch.Number
	in := g.batches[number]
	if in == nil {
		in = &batch{wanted: make(map[uint64]bool)}
		g.batches[number] = in
	}
	in.items = append(in.items, &item{number: msg.Call, meta: meta, input: msg.Payload})
	in.wanted[msg.Call] = true
	if meta.Large > 0 {
		g.bodies.Begin(msg.Call)
	}
	if len(in.items) < meta.Batch.Size {
		return nil
	}
	ctx, in.cancel = context.WithCancelCause(g.context(ctx, "", meta.Attempt, 0))
	return func() { g.together(timed{ctx, meta.Deadline}, number, in) }
}

// together runs a batch and answers each of its calls.
func (g *guest) together(ctx context.Context, number uint64, in *batch) {
	defer in.cancel(nil)
	for _, one := range in.items {
		if one.meta.Method != "" {
			one.err = noMethod(one.meta.Method)
			continue
		}
		one.input, one.err = g.whole(ctx, one.number, one.meta, one.input)
	}
	err := protect(func() error { return g.function.together(ctx, in.items) })
	g.mu.Lock()
	delete(g.batches, number)
	g.mu.Unlock()
	for _, one := range in.items {
		if one.err == nil {
			one.err = err
		}
		g.end(ctx, one.number, one.meta.ID, one.contentType, one.output, one.err)
		g.bodies.End(one.number)
		g.calls.Done()
	}
}

// leaveLocked notes that a call is not wanted any more, and ends its batch when none is.
func (g *guest) leaveLocked(number uint64, kind wire.Kind) {
	for _, in := range g.batches {
		if !in.wanted[number] {
			continue
		}
		delete(in.wanted, number)
		if len(in.wanted) == 0 && in.cancel != nil {
			in.cancel(&Error{Kind: kind, Message: "the calls of the batch were ended from outside"})
		}
	}
}
