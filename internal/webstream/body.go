package webstream

import (
	"io"
	"net/http"
	"sync/atomic"
)

// Body is the body of a request that is passed on; nil for none. The server that the request came to closes it, nobody else: it may be
// sent again, and the server must not wait for a client before it has sent its answer.
type Body struct {
	from  io.Reader
	again bool // the connection takes other requests after this one
	used  atomic.Bool
	ended atomic.Bool
}

// Accept returns a server's request as one to be passed on, whose answer may begin before its body has ended. The server keeps its own.
func Accept(w http.ResponseWriter, r *http.Request) (*http.Request, *Body) {
	if r.ContentLength == 0 {
		return r, nil
	}
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 has no need of it
	body := &Body{from: r.Body, again: r.ProtoMajor == 1}
	accepted := *r
	accepted.Body = body
	return &accepted, body
}

// Answer is called before the headers of the answer are sent: a connection whose request was not read to its end takes no other one.
func (b *Body) Answer(header http.Header) {
	if b.Unended() && b.again {
		header.Set("Connection", "close")
	}
}

// Unended tells whether there is a body of which more may come.
func (b *Body) Unended() bool { return b != nil && !b.ended.Load() }

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	b.used.Store(true)
	n, err := b.from.Read(p)
	if err == io.EOF { //nolint:errorlint // a reader's end is never wrapped
		b.ended.Store(true)
	}
	return n, err
}

// Close implements io.Closer, and does nothing.
func (b *Body) Close() error { return nil }

// Used tells whether any of the body was read, so that the request cannot be sent again.
func (b *Body) Used() bool { return b != nil && b.used.Load() }
