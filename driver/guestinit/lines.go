package guestinit

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"sync"
)

const (
	// maxLine is the longest line of a log kept whole, in bytes; a longer one becomes several.
	maxLine = 16 << 10
	// tailBytes is how much of the newest lines an error quotes.
	tailBytes = 2 << 10
)

// tail keeps the end of what was written, for errors. It is safe for concurrent use.
type tail struct {
	mu    sync.Mutex
	lines []string
	size  int
}

func (t *tail) add(line string) {
	if strings.TrimSpace(line) == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	line = line[:min(len(line), tailBytes)]
	t.lines = append(t.lines, line)
	t.size += len(line)
	for t.size > tailBytes && len(t.lines) > 1 {
		t.size -= len(t.lines[0])
		t.lines = t.lines[1:]
	}
}

// quote is how an error goes on that has something to quote: ": " and the lines, or nothing.
func (t *tail) quote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 {
		return ""
	}
	return ": " + strings.ToValidUTF8(strings.Join(t.lines, "\n"), "\uFFFD")
}

// eachLine reads to the end and gives each line away, without its newline.
func eachLine(in io.Reader, give func(line string)) {
	lines := bufio.NewReaderSize(in, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			give(strings.TrimRight(string(line), "\r\n"))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return // its writers are gone, or it was closed
		}
	}
}
