package build

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"github.com/freshet-dev/freshet/driver/sandbox"
)

const (
	// maxOutput is how much a step may print, maxLines in how many lines: each is told, and logged.
	maxOutput = 64 << 20
	maxLines  = 1_000_000
	// maxLine is where a line that does not end is cut, keptLines how many an error repeats.
	maxLine   = 16 << 10
	keptLines = 20
)

// StepError is a RUN that failed.
type StepError struct {
	Exit sandbox.Exit
	// Output is the end of what it printed.
	Output string
}

func (e *StepError) Error() string {
	if e.Output == "" {
		return fmt.Sprintf("the command %s", e.Exit)
	}
	return fmt.Sprintf("the command %s; it printed at last:\n%s", e.Exit, e.Output)
}

// lineWriter tells each line that is written to it, and remembers the last ones.
type lineWriter struct {
	tell func(string)
	// exceeded is told of what is too much.
	exceeded func(what string)

	mu      sync.Mutex
	partial []byte
	kept    []string
	written int
	lines   int
}

// Write implements io.Writer. What comes after too much is dropped.
func (w *lineWriter) Write(data []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written += len(data)
	switch {
	case w.written > maxOutput:
		w.exceeded(fmt.Sprintf("%d MB", maxOutput>>20))
		return len(data), nil
	case w.lines >= maxLines:
		w.exceeded(fmt.Sprintf("%d lines", maxLines))
		return len(data), nil
	}
	rest := append(w.partial, data...)
	for {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 && len(rest) < maxLine {
			break
		}
		if end < 0 {
			w.lineLocked(rest)
			rest = nil
			break
		}
		w.lineLocked(rest[:end])
		rest = rest[end+1:]
	}
	w.partial = append([]byte(nil), rest...)
	return len(data), nil
}

func (w *lineWriter) lineLocked(line []byte) {
	w.lines++
	text := strings.TrimRight(string(line), "\r")
	w.kept = append(w.kept, text)
	if len(w.kept) > keptLines {
		w.kept = w.kept[1:]
	}
	w.tell(text)
}

// flush tells a last line that has no end.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.partial) > 0 {
		w.lineLocked(w.partial)
		w.partial = nil
	}
}

func (w *lineWriter) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.kept, "\n")
}
