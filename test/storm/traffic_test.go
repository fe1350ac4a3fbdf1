package storm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tryFor bounds one request: a gateway that is stopped answers nothing.
	tryFor = 40 * time.Second
	// giveUp is when a caller says that its call was lost.
	giveUp = 2 * time.Minute
	// poison is one in how many calls that ends each worker that it is given to.
	poison = 500
)

// traffic is all that calls.
type traffic struct {
	*ledger
	seed   uint64
	number atomic.Int64
	http   *http.Client
	done   sync.WaitGroup
}

func newTraffic(seed uint64) *traffic {
	return &traffic{ledger: newLedger(), seed: seed, http: &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, MaxIdleConnsPerHost: 16,
	}}}
}

// start makes calls of every way until the storm ends; then each caller finishes what it began.
func (t *traffic) start(storm context.Context) {
	for i, caller := range []func(context.Context, *rand.Rand){
		t.call("work"), t.call("work"), t.call("thawed"), t.spawn, t.spawn, t.batch, t.mapping, t.stream,
	} {
		random := rand.New(rand.NewPCG(t.seed, uint64(i)))
		t.done.Go(func() {
			for storm.Err() == nil {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(storm), giveUp)
				caller(ctx, random)
				cancel()
				select {
				case <-storm.Done():
				case <-time.After(time.Duration(random.IntN(200)) * time.Millisecond):
				}
			}
		})
	}
}

// input makes one: most are harmless.
func (t *traffic) input(random *rand.Rand) input {
	in := input{N: int(t.number.Add(1)), Millis: 20 + random.IntN(300)}
	switch random.IntN(40) {
	case 0, 1, 2:
		in.Fail = 2 + random.IntN(2) // it succeeds in the end
	case 3, 4:
		in.Fail = 99
	case 5:
		in.Crash = 2
	case 6:
		in.Millis = 2000
	}
	if in.N%poison == poison-1 {
		in.Crash = 99
	}
	return in
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// send sends a request once to a gateway.
func (t *traffic) send(ctx context.Context, gate int, method, path, key string, body io.Reader) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, gateway(gate)+path, body)
	if err != nil {
		return reply{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Freshet-Keep", "1h") // until all is checked
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := t.http.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, data}, err
}

// insist sends a request to one gateway after the other until it is answered for good: not while it cannot be reached, or says that
// it is to be tried again.
func (t *traffic) insist(ctx context.Context, random *rand.Rand, method, path, key string, body func() io.Reader) (reply, error) {
	for gate := random.IntN(2); ; gate = 1 - gate {
		r, err := t.send(ctx, gate, method, path, key, body())
		switch {
		case err == nil && r.status == http.StatusServiceUnavailable && r.header.Get("Retry-After") != "":
		case err == nil && r.status/100 == 5 && r.header.Get("Freshet-Error") == "":
			t.complain("%s %s: %d without a problem: %s", method, path, r.status, r.body)
		case err == nil:
			return r, nil
		}
		t.retried()
		select {
		case <-time.After(100*time.Millisecond + time.Duration(random.IntN(300))*time.Millisecond):
		case <-ctx.Done():
			return r, fmt.Errorf("%s %s was not answered: last %d %s, %w", method, path, r.status, r.body, errors.Join(err, ctx.Err()))
		}
	}
}

func encode(in input) []byte {
	data, err := json.Marshal(in)
	if err != nil {
		panic(err) // of numbers only
	}
	return data
}

func again(data []byte) func() io.Reader { return func() io.Reader { return bytes.NewReader(data) } }

func path(function, way string) string { return "/v1/functions/" + app + "/" + function + "/" + way }

// ended reads how a call ended out of the answer to it; false when the answer says nothing of that.
func ended(r reply) (outcome, bool) {
	if r.status == http.StatusOK {
		return outcome{Status: "done", Output: string(r.body)}, true
	}
	kind := r.header.Get("Freshet-Error")
	switch kind {
	case "cancelled":
		return outcome{Status: "cancelled", Kind: kind}, true
	case "user", "crash", "oom", "protocol", "lost", "timeout", "start", "expired":
		return outcome{Status: "failed", Kind: kind}, true
	}
	return outcome{}, false
}

// call makes calls that are waited for.
func (t *traffic) call(function string) func(context.Context, *rand.Rand) {
	return func(ctx context.Context, random *rand.Rand) {
		in := t.input(random)
		key := fmt.Sprintf("%d-call-%d", t.seed, in.N)
		r, err := t.insist(ctx, random, http.MethodPost, path(function, "call"), key, again(encode(in)))
		if err != nil {
			t.complain("call %+v: %v", in, err)
			return
		}
		end, ok := ended(r)
		if !ok {
			t.complain("call %+v: %d %s", in, r.status, r.body)
			return
		}
		t.take(accepted{way: byCall, function: function, id: r.header.Get("Freshet-Call"), in: in, key: key, told: &end})
	}
}

// spawn spawns a call. Some are waited for, some cancelled.
func (t *traffic) spawn(ctx context.Context, random *rand.Rand) {
	in := t.input(random)
	key := fmt.Sprintf("%d-spawn-%d", t.seed, in.N)
	function := []string{"work", "work", "thawed"}[random.IntN(3)]
	r, err := t.insist(ctx, random, http.MethodPost, path(function, "spawn"), key, again(encode(in)))
	if err != nil || r.status != http.StatusAccepted {
		t.complain("spawn %+v: %d %s %v", in, r.status, r.body, err)
		return
	}
	a := accepted{way: bySpawn, function: function, id: r.header.Get("Freshet-Call"), in: in}
	switch random.IntN(4) {
	case 0:
		t.cancel(ctx, random, &a)
	case 1:
		t.awaitResult(ctx, random, &a)
	}
	t.take(a)
}

func nothing() io.Reader { return http.NoBody }

// cancel cancels a call that waits, runs or is done.
func (t *traffic) cancel(ctx context.Context, random *rand.Rand, a *accepted) {
	<-time.After(time.Duration(random.IntN(400)) * time.Millisecond)
	r, err := t.insist(ctx, random, http.MethodPost, "/v1/calls/"+a.id+"/cancel", "", nothing)
	switch {
	case err == nil && r.status == http.StatusOK:
		a.cancelled = true
	case err != nil || r.status != http.StatusConflict:
		t.complain("cancel %s of %+v: %d %s %v", a.id, a.in, r.status, r.body, err)
	}
}

// awaitResult waits for the result of a spawned call.
func (t *traffic) awaitResult(ctx context.Context, random *rand.Rand, a *accepted) {
	for {
		r, err := t.insist(ctx, random, http.MethodGet, "/v1/calls/"+a.id+"/result?wait=10s", "", nothing)
		if err == nil && r.status == http.StatusAccepted {
			continue
		}
		end, ok := ended(r)
		if err != nil || !ok {
			t.complain("result of %s of %+v: %d %s %v", a.id, a.in, r.status, r.body, err)
			return
		}
		a.told = &end
		return
	}
}

// inputs are those of a batch or a map, and its body.
func (t *traffic) inputs(random *rand.Rand, most int) ([]input, []byte) {
	ins := make([]input, 1+random.IntN(most))
	var body bytes.Buffer
	for i := range ins {
		ins[i] = t.input(random)
		if ins[i].Millis > 100 {
			ins[i].Millis /= 10
		}
		body.Write(encode(ins[i]))
		body.WriteByte('\n')
	}
	return ins, body.Bytes()
}

// slowly gives a body a part at a time, so that trouble falls into the middle of it.
func slowly(data []byte) func() io.Reader {
	return func() io.Reader {
		in, out := io.Pipe()
		go func() {
			for part := range slices.Chunk(data, 400) {
				if _, err := out.Write(part); err != nil {
					return
				}
				<-time.After(10 * time.Millisecond)
			}
			_ = out.Close()
		}()
		return in
	}
}

// batch spawns many calls at once, and sends them all again under the same key when the connection breaks.
func (t *traffic) batch(ctx context.Context, random *rand.Rand) {
	ins, body := t.inputs(random, 100)
	key := fmt.Sprintf("%d-batch-%d", t.seed, ins[0].N)
	r, err := t.insist(ctx, random, http.MethodPost, path("work", "batch"), key, slowly(body))
	if err != nil || r.status != http.StatusAccepted {
		t.complain("batch %s of %d: %d %s %v", key, len(ins), r.status, r.body, err)
		return
	}
	b := &many{id: r.header.Get("Freshet-Batch"), function: "work", in: ins}
	t.mu.Lock()
	t.batches = append(t.batches, b)
	t.mu.Unlock()
	t.awaitBatch(ctx, random, b)
}

// awaitBatch waits until all calls of a batch have ended, so that no more wait than workers can do.
func (t *traffic) awaitBatch(ctx context.Context, random *rand.Rand, b *many) {
	for {
		var view struct{ Inputs, Finished int }
		r, err := t.insist(ctx, random, http.MethodGet, "/v1/batches/"+b.id, "", nothing)
		if err != nil || r.status != http.StatusOK || json.Unmarshal(r.body, &view) != nil || view.Inputs != len(b.in) {
			t.complain("batch %s of %d: %d %s %v", b.id, len(b.in), r.status, r.body, err)
			return
		}
		if view.Finished == len(b.in) {
			return
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			t.complain("batch %s: %d of %d are done", b.id, view.Finished, len(b.in))
			return
		}
	}
}

// line is one of a map's answer, or of a batch's results.
type line struct {
	Index  int             `json:"index"`
	Call   string          `json:"call"`
	Output json.RawMessage `json:"output"`
	Error  *struct {
		Kind string `json:"kind"`
	} `json:"error"`
	Done *bool `json:"done"`
}

func (l line) outcome() outcome {
	switch {
	case l.Error == nil:
		return outcome{Status: "done", Output: string(l.Output)}
	case l.Error.Kind == "cancelled":
		return outcome{Status: "cancelled", Kind: l.Error.Kind}
	}
	return outcome{Status: "failed", Kind: l.Error.Kind}
}

// lines reads those of an answer, as far as it goes, and tells whether that is to the end.
func lines(body []byte) (all []line, whole bool, err error) {
	for text := range strings.Lines(string(body)) {
		var l line
		if !strings.HasSuffix(text, "\n") {
			return all, false, nil // it was cut off
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			return all, false, fmt.Errorf("line %q: %w", text, err)
		}
		if l.Done != nil {
			return all, *l.Done, nil
		}
		all = append(all, l)
	}
	return all, false, nil
}

// mapping makes a map, and goes on with it in the other gateway where it was cut off.
func (t *traffic) mapping(ctx context.Context, random *rand.Rand) {
	ins, _ := t.inputs(random, 60)
	m := &many{function: "work", in: ins}
	next := 0
	for gate := random.IntN(2); ; gate = 1 - gate {
		var body bytes.Buffer
		for _, in := range ins[next:] {
			body.Write(encode(in))
			body.WriteByte('\n')
		}
		address := path("work", "map") + "?order=input&window=16"
		if m.id != "" {
			address += fmt.Sprintf("&batch=%s&from=%d", m.id, next)
		}
		r, err := t.send(ctx, gate, http.MethodPost, address, "", slowly(body.Bytes())())
		if r.status == http.StatusOK {
			m.id = r.header.Get("Freshet-Batch")
		} else if err == nil && r.status != http.StatusServiceUnavailable {
			t.complain("map %s: %d %s", m.id, r.status, r.body)
		}
		got, whole, wrong := lines(r.body)
		if wrong != nil {
			t.complain("map %s: %v", m.id, wrong)
		}
		if r.status == http.StatusOK {
			next += t.takeMapped(m, next, got)
		}
		if whole && next != len(ins) {
			t.complain("map %s ended after %d of %d", m.id, next, len(ins))
		}
		if whole {
			break
		}
		t.retried()
		select {
		case <-time.After(200 * time.Millisecond):
			continue
		case <-ctx.Done():
			t.complain("map %s did not come beyond %d of %d: %d, %v", m.id, next, len(ins), r.status, err)
		}
		break
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.maps = append(t.maps, m)
}

// takeMapped enters the ends of a map's calls, which come in the inputs' order from next on. A call whose line says that the gateway
// could not see it through has none yet: the map goes on there.
func (t *traffic) takeMapped(m *many, next int, got []line) int {
	for i, l := range got {
		if l.Index != next+i {
			t.complain("map %s: index %d where %d comes", m.id, l.Index, next+i)
			return i
		}
		if l.Error != nil && l.Error.Kind == "unavailable" {
			return i
		}
		end := l.outcome()
		t.take(accepted{way: byMap, function: m.function, id: l.Call, in: m.in[l.Index], told: &end})
	}
	return len(got)
}

// stream reads the values of a generator. A stream that is cut off ends its call, somehow.
func (t *traffic) stream(ctx context.Context, random *rand.Rand) {
	in := input{N: 5 + random.IntN(30), Millis: 5 + random.IntN(40)}
	r, err := t.send(ctx, random.IntN(2), http.MethodPost, path("count", "stream"), "", bytes.NewReader(encode(in)))
	switch {
	case r.status == http.StatusOK:
	case err != nil || r.status == http.StatusServiceUnavailable:
		t.retried()
		return // not accepted
	default:
		t.complain("stream: %d %s", r.status, r.body)
		return
	}
	a := accepted{way: byStream, function: "count", id: r.header.Get("Freshet-Call"), in: in}
	if end, ok := t.readValues(a.id, in.N, r.body); ok {
		a.told = &end
	}
	t.take(a)
}

// readValues checks that the values of a stream are all there, in order, and returns how it ended if it did.
func (t *traffic) readValues(call string, count int, body []byte) (outcome, bool) {
	next := 0
	for text := range strings.Lines(string(body)) {
		var l struct {
			Index int
			Value json.RawMessage
			Done  *bool
			Error *struct{ Kind string }
		}
		if strings.TrimSpace(text) == "" || !strings.HasSuffix(text, "\n") {
			continue
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.complain("stream %s: %q: %v", call, text, err)
			return outcome{}, false
		}
		switch {
		case l.Error != nil && l.Error.Kind == "unavailable":
			return outcome{}, false
		case l.Error != nil:
			return outcome{Status: "failed", Kind: l.Error.Kind}, true
		case l.Done != nil:
			if next != count {
				t.complain("stream %s ended after %d of %d values", call, next, count)
			}
			return outcome{Status: "done"}, true
		case l.Index != next || string(l.Value) != fmt.Sprint(next):
			t.complain("stream %s: %s where %d comes", call, text, next)
			return outcome{}, false
		}
		next++
	}
	return outcome{}, false
}
