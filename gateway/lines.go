package gateway

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-dev/freshet/internal/queue"
)

// lineReader reads the inputs of an NDJSON body, one a line; empty lines are none.
type lineReader struct {
	scanner *bufio.Scanner
	number  int64
	// known is how many of the next inputs may be left empty, because their ends are known.
	known int64
}

func newLineReader(body io.Reader) *lineReader {
	scanner := bufio.NewScanner(body)
	scanner.Buffer(make([]byte, 0, 64<<10), queue.MaxInline+2) // an input and its line end
	return &lineReader{scanner: scanner}
}

// next is the next input, a copy of its own, nil where it is left empty; io.EOF after the last one. A line that is no JSON is a problem
// about that line, after which reading may go on; any other error ends the reading.
func (l *lineReader) next() ([]byte, error) {
	for l.scanner.Scan() {
		l.number++
		line := bytes.TrimSpace(l.scanner.Bytes())
		if len(line) == 0 && l.known <= 0 {
			continue
		}
		l.known--
		if len(line) == 0 {
			return nil, nil
		}
		if !json.Valid(line) {
			return nil, &lineError{badInput(fmt.Sprintf("body: line %d", l.number), string(line), "write one JSON value a line")}
		}
		return bytes.Clone(line), nil
	}
	err := l.scanner.Err()
	switch {
	case err == nil:
		return nil, io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		return nil, &problem{Kind: kindTooLarge, Message: fmt.Sprintf(
			"body: line %d: an input has at most %d bytes (1 MiB)", l.number+1, queue.MaxInline)}
	}
	p := badInput("body", fmt.Sprintf("%d lines, then %v", l.number, err), "send the whole body")
	p.cause = err
	return nil, p
}

// lineError is about one line only.
type lineError struct{ *problem }

func (e *lineError) Unwrap() error { return e.problem }
