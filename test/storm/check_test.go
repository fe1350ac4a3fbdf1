package storm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/internal/queue"
)

// settle waits until everything is there again and no call is left.
func (w *world) settle(ctx context.Context) error {
	if err := await(ctx, "all components are there again", w.healthy); err != nil {
		return err
	}
	return await(ctx, "no call is left", func(ctx context.Context) error {
		for shard := range queue.Shards {
			stream, err := w.js.Stream(ctx, fmt.Sprintf("FRESHET_CALLS_%d", shard))
			if err != nil {
				return err
			}
			if n := stream.CachedInfo().State.Msgs; n > 0 {
				return fmt.Errorf("%d calls in stream %d", n, shard)
			}
		}
		for i := range w.gateways {
			for _, function := range functions {
				var view struct{ Pending int64 }
				data, err := get(ctx, fmt.Sprintf("%s/v1/functions/%s/%s", gateway(i), app, function))
				if err == nil {
					err = json.Unmarshal(data, &view)
				}
				if err == nil && view.Pending != 0 {
					err = fmt.Errorf("gateway %d says that %d calls of %s wait", i, view.Pending, function)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// check reads every call's outcome through both gateways, and from the store itself: there is one, it is what callers were told, and
// it was not recorded twice.
func (t *traffic) check(ctx context.Context, js jetstream.JetStream) tally {
	t.expectBatches()
	outcomes := make(tally)
	for gate := range 2 {
		for _, b := range t.batches {
			t.checkMany(ctx, gate, b, http.MethodGet, "/v1/batches/"+b.id+"/results", nil)
		}
		for _, m := range t.maps {
			var body bytes.Buffer
			for _, in := range m.in {
				body.Write(encode(in))
				body.WriteByte('\n')
			}
			t.checkMany(ctx, gate, m, http.MethodPost, path(m.function, "map")+"?order=input&from=0&batch="+m.id, body.Bytes())
		}
		for _, id := range slices.Sorted(maps.Keys(t.calls)) {
			switch a := t.calls[id]; a.way {
			case byCall:
				t.checkCall(ctx, gate, a)
			case bySpawn:
				t.checkSpawned(ctx, gate, a)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(t.calls)) {
		a := t.calls[id]
		result, err := queue.LoadResult(ctx, js, id)
		if err != nil {
			t.complain("%s call %s of %+v has no outcome: %v", a.way, id, a.in, err)
			continue
		}
		end := outcome{Status: "done", Output: string(result.Body)}
		if a.way == byStream {
			end.Output = ""
		}
		if result.Error != nil {
			end = outcome{Status: "failed", Kind: string(result.Error.Kind)}
			if end.Kind == "cancelled" {
				end.Status = end.Kind
			}
		}
		t.expect(a, end, "the store")
		t.plausible(a, end)
		outcomes[end.Status+" "+end.Kind]++
	}
	t.checkStore(ctx, js)
	return outcomes
}

// expectBatches enters the calls of the batches, whose ids say which they are.
func (t *traffic) expectBatches() {
	for _, b := range t.batches {
		for i, in := range b.in {
			t.take(accepted{way: byBatch, function: b.function, id: queue.CallOfInput(b.id, int64(i)), in: in})
		}
	}
}

// expect compares an outcome with what was told before, or remembers it.
func (t *traffic) expect(a *accepted, end outcome, who string) {
	switch {
	case a.told == nil:
		a.told = &end
	case *a.told != end:
		t.complain("%s call %s of %+v: %s says %+v, before it was %+v", a.way, a.id, a.in, who, end, *a.told)
	}
}

// plausible says whether a call may have ended so. A harmless one that failed had its workers killed again and again: that is counted.
func (t *traffic) plausible(a *accepted, end outcome) {
	wrong := false
	switch end.Status {
	case "done":
		var out struct{ N int }
		wrong = a.cancelled || a.in.Fail == 99 || a.in.Crash == 99
		if a.way != byStream {
			wrong = wrong || json.Unmarshal([]byte(end.Output), &out) != nil || out.N != a.in.N
		}
	case "cancelled":
		wrong = !a.cancelled && a.way != byStream
	default:
		wrong = a.cancelled
		switch {
		case end.Kind == "user" && a.in.Fail > 0, end.Kind == "crash" && a.in.Crash > 0:
		case end.Kind == "crash", end.Kind == "user" && a.in.Crash > 0:
			t.innocent = append(t.innocent, fmt.Sprintf("%s call %s of %+v: %s", a.way, a.id, a.in, end.Kind))
		default:
			wrong = true
		}
	}
	if wrong {
		t.complain("%s call %s of %+v, cancelled %t, ended as %+v", a.way, a.id, a.in, a.cancelled, end)
	}
}

// checkCall sends a call again by its key: the same call's same end comes.
func (t *traffic) checkCall(ctx context.Context, gate int, a *accepted) {
	r, err := t.send(ctx, gate, http.MethodPost, path(a.function, "call"), a.key, bytes.NewReader(encode(a.in)))
	end, ok := ended(r)
	if err != nil || !ok || r.header.Get("Freshet-Call") != a.id {
		t.complain("call %s of %+v again by gateway %d: %s, %d %s, %v", a.id, a.in, gate, r.header.Get("Freshet-Call"), r.status, r.body, err)
		return
	}
	t.expect(a, end, fmt.Sprintf("gateway %d", gate))
}

func (t *traffic) checkSpawned(ctx context.Context, gate int, a *accepted) {
	r, err := t.send(ctx, gate, http.MethodGet, "/v1/calls/"+a.id+"/result", "", nothing())
	end, ok := ended(r)
	if err != nil || !ok {
		t.complain("result of %s of %+v by gateway %d: %d %s, %v", a.id, a.in, gate, r.status, r.body, err)
		return
	}
	t.expect(a, end, fmt.Sprintf("gateway %d", gate))
}

// checkMany reads the results of a batch, or those of a map by making it again.
func (t *traffic) checkMany(ctx context.Context, gate int, m *many, method, path string, body []byte) {
	r, err := t.send(ctx, gate, method, path, "", bytes.NewReader(body))
	got, whole, wrong := lines(r.body)
	if err != nil || wrong != nil || !whole || len(got) != len(m.in) {
		t.complain("%s %s by gateway %d: %d, %d of %d lines, to the end %t, %v, %v", method, path, gate, r.status, len(got), len(m.in), whole, err, wrong)
		return
	}
	for i, l := range got {
		a := t.calls[l.Call]
		if a == nil || l.Index != i || a.in != m.in[i] {
			t.complain("%s %s by gateway %d: line %d is %+v", method, path, gate, i, l)
			continue
		}
		t.expect(a, l.outcome(), fmt.Sprintf("gateway %d", gate))
	}
}

// checkStore looks at the stream of the results: as many messages as were ever stored are there, so none replaced another.
func (t *traffic) checkStore(ctx context.Context, js jetstream.JetStream) {
	stream, err := js.Stream(ctx, queue.ResultsStream)
	if err != nil {
		t.complain("look at the results: %v", err)
		return
	}
	state := stream.CachedInfo().State
	if state.Msgs != state.LastSeq || state.NumDeleted != 0 {
		t.complain("%d results are there and %d were stored: some were recorded twice", state.Msgs, state.LastSeq)
	}
	if int(state.Msgs) < len(t.calls) {
		t.complain("%d results of %d calls", state.Msgs, len(t.calls))
	}
}
