package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// mapPace is how long ends may wait for others that leave with them.
const mapPace = 2 * time.Millisecond

// mapWriter writes the ends of a map's calls.
type mapWriter struct {
	*mapping
	out     *bufio.Writer
	encoder *json.Encoder
	control *http.ResponseController
	cancel  context.CancelFunc // of the reading

	end     mapEnd
	early   map[int64]mapped // those whose turn has not come: they hold their slots
	next    int64            // whose turn it is
	written int              // lines that hold their slots until they leave
	left    time.Time        // when the last ones left
	later   *time.Timer      // when the next ones leave at the latest
	failed  error
}

// write streams the ends, in the inputs' order where that is wanted. Those of one moment leave together, and their slots are free
// together: each system call, here and in every process that the next inputs pass through, is then for many.
func (m *mapping) write(ctx context.Context, cancel context.CancelFunc, out io.Writer, control *http.ResponseController) error {
	buffer := bufio.NewWriterSize(out, 32<<10)
	w := &mapWriter{
		mapping: m, out: buffer, encoder: json.NewEncoder(buffer), control: control, cancel: cancel,
		end: mapEnd{Done: true, Batch: m.batch}, early: make(map[int64]mapped), next: m.first, later: time.NewTimer(time.Hour),
	}
	defer w.later.Stop()
	w.all()
	if w.failed != nil {
		return w.failed
	}
	if ctx.Err() != nil && !w.end.Stopped {
		return ctx.Err()
	}
	w.end.Inputs = m.inputs
	if m.cut.Load() {
		m.readErr = unavailable("this gateway stops; go on with the batch", m.readErr)
	}
	if m.readErr != nil {
		w.end.Done, w.end.Error = false, asProblem(m.readErr)
	}
	return errors.Join(w.encoder.Encode(w.end), w.out.Flush(), control.Flush())
}

// all takes the ends up to the last one, also when nobody reads any more.
func (w *mapWriter) all() {
	for {
		select {
		case line, ok := <-w.ends:
			if !ok {
				return
			}
			w.take(line)
			if len(w.ends) == 0 && w.ripe() {
				w.leave()
			}
		case <-w.later.C:
			w.leave()
		}
	}
}

// take writes an end, and those whose turn comes with it.
func (w *mapWriter) take(line mapped) {
	switch {
	case w.failed != nil || w.end.Stopped:
		<-w.slots
	case !w.ordered:
		w.emit(line)
	default:
		w.early[line.Index] = line
		for ready, ok := w.early[w.next]; ok && w.failed == nil && !w.end.Stopped; ready, ok = w.early[w.next] {
			delete(w.early, w.next)
			w.next++
			w.emit(ready)
		}
	}
}

func (w *mapWriter) emit(line mapped) {
	w.written++
	if line.unsaid {
		return
	}
	if line.Error != nil {
		w.end.Failed++
		if w.stop && !w.end.Stopped {
			w.end.Stopped = true
			w.cancel()
		}
	}
	w.fail(w.encoder.Encode(line))
}

// ripe tells whether what is written is to leave now: much of the window waits for it, or all calls that are in flight, or nothing
// left for a while.
func (w *mapWriter) ripe() bool {
	if w.written == 0 {
		return false
	}
	if 8*w.written >= cap(w.slots) || w.written == len(w.slots) {
		return true
	}
	wait := mapPace - time.Since(w.left)
	w.later.Reset(max(wait, 0))
	return wait <= 0
}

func (w *mapWriter) leave() {
	w.later.Stop()
	w.left = time.Now()
	if w.failed == nil {
		w.fail(errors.Join(w.out.Flush(), w.control.Flush()))
	}
	for ; w.written > 0; w.written-- {
		<-w.slots
	}
}

// fail gives the map up after an error.
func (w *mapWriter) fail(err error) {
	if err != nil {
		w.failed = err
		w.cancel()
	}
}
