package guestinit

import (
	"bytes"
	"context"
	"io"
)

// reader is a call's input as it comes.
func (s *session) reader(ctx context.Context, c call) (io.Reader, error) {
	if c.meta.Large == 0 {
		return bytes.NewReader(c.input), nil
	}
	conn, err := s.bodies.Open(ctx, c.number)
	if err != nil {
		return nil, err
	}
	return struct{ io.Reader }{conn}, nil // its writing is for the output
}

// passOn sends an output that is too large for a message as it comes, what came of it first; false where the host takes none such.
func (s *session) passOn(ctx context.Context, c call, begun []byte, rest io.Reader) (bool, error) {
	if !s.greeting().Payloads {
		return false, nil
	}
	return true, s.bodies.Send(ctx, c.number, io.MultiReader(bytes.NewReader(begun), rest))
}
