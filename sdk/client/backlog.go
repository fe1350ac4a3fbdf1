package client

import (
	"io"
	"iter"
	"sync"
	"time"
)

// backlog holds the inputs of a map from when they are taken until they are answered, at most so many: what a broken connection has
// lost is sent again from here.
type backlog struct {
	most int

	mu      sync.Mutex
	changed *sync.Cond
	waiting map[int]waiting // taken and not answered
	next    int             // index of the next input
	ended   bool            // there are no more inputs
	closed  bool            // nobody wants more
}

// waiting is an input that is not answered.
type waiting struct {
	line  []byte
	wrong error // why it is no input, when it is none
}

func newBacklog(most int) *backlog {
	b := &backlog{most: most, waiting: make(map[int]waiting)}
	b.changed = sync.NewCond(&b.mu)
	return b
}

// feed takes the inputs as there is room for them, until close.
func (b *backlog) feed(inputs iter.Seq[[]byte]) {
	for input := range inputs {
		if !b.add(input) {
			return
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.changed.Broadcast()
}

func (b *backlog) add(input []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.waiting) >= b.most && !b.closed {
		b.changed.Wait()
	}
	line, wrong := lineOf(b.next, input)
	b.waiting[b.next] = waiting{line, wrong}
	b.next++
	b.changed.Broadcast()
	return !b.closed
}

// answered takes an input away, and says what was wrong with it and whether an answer was waited for.
func (b *backlog) answered(index int) (wrong error, waited bool) { //nolint:revive // the error is the input's, not the method's
	b.mu.Lock()
	defer b.mu.Unlock()
	input, waited := b.waiting[index]
	delete(b.waiting, index)
	if len(b.waiting) == b.most-1 {
		b.changed.Broadcast()
	}
	return input.wrong, waited
}

func (b *backlog) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.changed.Broadcast()
}

// upload is a request's body: a line for each input from the first that is not answered, left empty where one is. end ends it,
// whoever reads.
type upload struct {
	*backlog
	from int // index of the first line
	sent int // index after the last input that was taken before
	at   int
	rest []byte // of the line that did not fit into a read
	over bool   // guarded by mu
}

func (b *backlog) upload() *upload {
	b.mu.Lock()
	defer b.mu.Unlock()
	from := b.next
	for index := range b.waiting {
		from = min(from, index)
	}
	return &upload{backlog: b, from: from, sent: b.next, at: from}
}

// end ends the reading.
func (u *upload) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.over = true
	u.changed.Broadcast()
}

// idle is how long a request's body says nothing.
const idle = time.Second

// Read reads as many lines as there are, and waits only for the first. When none comes for a while it is an empty line, which counts for
// nothing: a write tells net/http of a connection that is broken, and it gives up no request while it reads a body.
func (u *upload) Read(into []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.await(time.Now().Add(idle)) {
		return copy(into, "\n"), nil
	}
	if u.over {
		return 0, io.ErrClosedPipe
	}
	n := 0
	for n < len(into) && (len(u.rest) > 0 || u.at < u.next) {
		if len(u.rest) == 0 {
			u.rest = append(u.waiting[u.at].line, '\n')
			u.at++
		}
		copied := copy(into[n:], u.rest)
		n, u.rest = n+copied, u.rest[copied:]
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// await waits until there is something to read; false when there is nothing by the given time.
func (u *upload) await(until time.Time) bool {
	var late *time.Timer
	for len(u.rest) == 0 && u.at == u.next && !u.ended && !u.over {
		switch now := time.Now(); {
		case late == nil:
			late = time.AfterFunc(until.Sub(now), u.changed.Broadcast)
			defer late.Stop()
		case !now.Before(until):
			return false
		}
		u.changed.Wait()
	}
	return true
}
