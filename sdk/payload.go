package freshet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// reads tells whether a function takes its input as it comes.
func reads[In any]() bool {
	var in In
	_, ok := any(&in).(*io.Reader)
	return ok
}

// streamed tells whether a type is read as it comes, and never held as a whole.
func streamed[T any]() bool {
	switch any(new(T)).(type) {
	case *io.Reader, *io.ReadCloser:
		return true
	}
	return false
}

// whole is a call's input. One that comes by a stream is read to its end, unless the function reads it itself: then it is nil.
func (g *guest) whole(ctx context.Context, number uint64, meta wire.Call, input []byte) ([]byte, error) {
	if meta.Large == 0 {
		return input, nil
	}
	if m, err := g.function.method(meta.Method); err != nil || m.reads {
		return nil, err
	}
	conn, err := g.bodies.Open(ctx, number)
	if err != nil {
		return nil, err
	}
	input = make([]byte, meta.Large)
	if _, err := io.ReadFull(conn, input); err != nil {
		return nil, fmt.Errorf("read input: %w", err)
	}
	return input, nil
}

// inputReader is an input for a function that reads it as it comes.
func inputReader(ctx context.Context, input []byte) (io.Reader, error) {
	c := from(ctx)
	if input != nil || c.guest == nil {
		return bytes.NewReader(input), nil
	}
	conn, err := c.guest.bodies.Open(ctx, c.number)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// outputOf reads an output that a function gives as a reader: into memory where it fits into a message, else it is sent on as it comes.
func outputOf(ctx context.Context, out io.Reader) (contentType string, data []byte, err error) {
	const binary = "application/octet-stream"
	if closer, ok := out.(io.Closer); ok {
		defer func() { err = errors.Join(err, closer.Close()) }()
	}
	c := from(ctx)
	if c.guest == nil || c.guest.most == 0 {
		data, err = io.ReadAll(out)
		return binary, data, err
	}
	data, err = io.ReadAll(io.LimitReader(out, c.guest.most+1))
	if err != nil || int64(len(data)) <= c.guest.most {
		return binary, data, err
	}
	return binary, nil, c.guest.bodies.Send(ctx, c.number, io.MultiReader(bytes.NewReader(data), out))
}

// result sends a call's output: by the call's stream where it is too large for a message.
func (g *guest) result(ctx context.Context, number uint64, contentType string, output []byte) error {
	if g.most > 0 && int64(len(output)) > g.most {
		if err := g.bodies.Send(ctx, number, bytes.NewReader(output)); err != nil {
			return g.writer.Write(wire.TypeFailure, number, callError(err), nil)
		}
		output = nil
	}
	return g.writer.Write(wire.TypeResult, number, wire.Result{ContentType: contentType, Large: g.bodies.Sent(number)}, output)
}
