package queue

import (
	"context"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go/jetstream"
)

// Depths counts the calls of every function that has any, waiting and running: messages stay in a work queue until they
// are acknowledged, so the stream's own count is exact, also while the function has no consumer. It costs one request
// for all streams and one for each that is not empty, whatever the number of functions.
func Depths(ctx context.Context, js jetstream.JetStream) (map[Function]int64, error) {
	depths := make(map[Function]int64)
	list := js.ListStreams(ctx, jetstream.WithStreamListSubject("freshet.calls.>"))
	var busy []string
	for info := range list.Info() {
		if info.State.Msgs > 0 {
			busy = append(busy, info.Config.Name)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list call streams: %w", err)
	}
	for _, name := range busy {
		if err := depthsIn(ctx, js, name, depths); err != nil {
			return nil, err
		}
	}
	return depths, nil
}

// DepthsOf is Depths without the look at all streams, which costs some milliseconds of a processor: it knows only of functions in the
// streams of those that are given. It costs a request for each of their streams.
func DepthsOf(ctx context.Context, js jetstream.JetStream, functions iter.Seq[Function]) (map[Function]int64, error) {
	depths, read := make(map[Function]int64), make(map[string]struct{})
	for function := range functions {
		name := function.CallsStream()
		if _, ok := read[name]; ok {
			continue
		}
		read[name] = struct{}{}
		if err := depthsIn(ctx, js, name, depths); err != nil {
			return nil, err
		}
	}
	return depths, nil
}

func depthsIn(ctx context.Context, js jetstream.JetStream, name string, into map[Function]int64) error {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("open stream %s: %w", name, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter("freshet.calls.>"))
	if err != nil {
		return fmt.Errorf("count calls of stream %s: %w", name, err)
	}
	for subject, count := range info.State.Subjects {
		if function, ok := ParseFunction(subject); ok {
			into[function] = int64(count)
		}
	}
	return nil
}

// Depth counts one function's calls, waiting and running. A missing stream is an error, never an empty queue.
func Depth(ctx context.Context, js jetstream.JetStream, function Function) (int64, error) {
	stream, err := js.Stream(ctx, function.CallsStream())
	if err != nil {
		return 0, fmt.Errorf("open stream of %s: %w", function, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(function.CallsSubject()))
	if err != nil {
		return 0, fmt.Errorf("count calls of %s: %w", function, err)
	}
	return int64(info.State.Subjects[function.CallsSubject()]), nil
}
