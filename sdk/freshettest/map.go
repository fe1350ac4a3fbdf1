package freshettest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// mapped is the end of one of a map's calls.
type mapped struct {
	index  int
	id     string
	answer answer
}

func (m mapped) line() map[string]any {
	line := map[string]any{"index": m.index, "call": m.id}
	if m.answer.err != nil {
		line["error"] = m.answer.err
		return line
	}
	if text, data := m.answer.output.asJSON(); data != nil {
		line["output_base64"] = data
	} else if len(text) > 0 {
		line["output"] = text
	}
	return line
}

// serveMap takes lines as there is room for their calls and answers with their ends, in the order that is asked for.
func (g *gateway) serveMap(w http.ResponseWriter, r *http.Request, t target) {
	query, batch := r.URL.Query(), rand.Text()
	control, lines := http.NewResponseController(w), json.NewEncoder(w)
	_ = control.EnableFullDuplex() // which HTTP/1 has here
	w.Header().Set("Freshet-Batch", batch)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	_ = control.Flush()
	window, err := strconv.Atoi(query.Get("window"))
	if err != nil || window < 1 {
		window = 1
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ends := make(chan chan mapped, window) // in the order of the inputs
	finished := make(chan mapped)
	var work sync.WaitGroup
	work.Go(func() { g.takeLines(ctx, r, t, window, ends, finished) })
	count := 0
	write := func(m mapped) {
		count++
		_ = lines.Encode(m.line()) // a client who has gone ends the context
		_ = control.Flush()
	}
	if query.Get("order") == "input" {
		for end := range ends {
			write(<-end)
		}
	} else {
		for m := range finished {
			write(m)
		}
	}
	work.Wait()
	_ = lines.Encode(map[string]any{"done": true, "batch": batch, "inputs": count})
}

// takeLines begins a call for each line. Where ends are wanted in order they go to their own channel, else to the common one.
func (g *gateway) takeLines(ctx context.Context, r *http.Request, t target, window int, ends chan chan mapped, finished chan mapped) {
	ordered := r.URL.Query().Get("order") == "input"
	var calls sync.WaitGroup
	defer func() {
		calls.Wait()
		close(finished)
	}()
	defer close(ends)
	room, in := make(chan struct{}, window), bufio.NewReaderSize(r.Body, 64<<10)
	for index := 0; ; {
		line, err := in.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			end := make(chan mapped, 1)
			room <- struct{}{}
			if ordered {
				ends <- end
			}
			place := index
			index++
			calls.Go(func() {
				defer func() { <-room }()
				m := mapped{index: place, id: rand.Text()}
				m.answer = g.line(ctx, m.id, t, line)
				if ordered {
					end <- m
					return
				}
				finished <- m
			})
		}
		if err != nil {
			return
		}
	}
}

func (g *gateway) line(ctx context.Context, id string, t target, line []byte) answer {
	if !json.Valid(line) {
		return answer{err: &wire.Error{Kind: wire.KindInput, Message: "the line is no JSON"}}
	}
	a, _ := g.call(ctx, id, t, "application/json", line, nil)
	return a
}
