package queue_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/internal/queue"
)

func payloadOf(t *testing.T) (queue.Function, string, *queue.Payload) {
	t.Helper()
	f, call := queue.Function{Namespace: "default", App: "demo", Name: "f_1"}, "01JZZZZZZZZZZZZZZZZZZZZZ01"
	return f, call, &queue.Payload{Name: queue.InputName(f, call), Size: 1 << 32, Sum: strings.Repeat("0a", 32)}
}

func TestPayloadsTravelByReference(t *testing.T) {
	f, call, payload := payloadOf(t)
	msg, err := queue.Envelope{Function: f, Call: call, Payload: payload, Published: time.Now()}.Message()
	if err != nil {
		t.Fatal(err)
	}
	e, err := queue.ParseEnvelope(msg.Subject, msg.Header, msg.Data)
	if err != nil || e.Payload == nil || *e.Payload != *payload {
		t.Errorf("the envelope has %+v, %v", e.Payload, err)
	}
	msg, err = queue.Result{Call: call, Attempt: 2, Payload: payload}.Message("there")
	if err != nil {
		t.Fatal(err)
	}
	r, err := queue.ParseResult(msg.Header, msg.Data)
	if err != nil || r.Payload == nil || *r.Payload != *payload {
		t.Errorf("the result has %+v, %v", r.Payload, err)
	}
}

func TestNamesSayWhosePayloadsAre(t *testing.T) {
	f, call, _ := payloadOf(t)
	for name, want := range map[string]queue.PayloadKind{
		queue.InputName(f, call):                     queue.PayloadInput,
		queue.OutputName(f, call, 3, "4f1c-77"):      queue.PayloadOutput,
		queue.AgainName(f, call, 3):                  queue.PayloadAgain,
		"default/demo/f_1/fileblob123":               0,
		"default/demo/" + call + ".in":               0,
		"default/demo/f_1/" + call:                   0,
		"default/demo/f_1/" + call + ".other":        0,
		"default/demo/f_1/" + call[1:] + "/" + ".in": 0,
	} {
		got, of, kind, ok := queue.ParsePayloadName(name)
		if ok != (want != 0) || kind != want || ok && (got != f || of != call || !strings.HasPrefix(name, queue.PayloadsOf(f, call))) {
			t.Errorf("%s: %v %s %d %v, want %d", name, got, of, kind, ok, want)
		}
	}
}

func TestForgedReferencesAreRefused(t *testing.T) {
	f, call, payload := payloadOf(t)
	good := payload.Name + " 12 " + payload.Sum
	for _, text := range []string{
		"x", good + " more", payload.Name + " -1 " + payload.Sum, payload.Name + " 1e3 " + payload.Sum, payload.Name + " 12 " + payload.Sum[1:],
		"../../etc/passwd 12 " + payload.Sum, queue.AgainName(f, call, 1) + " 12 " + payload.Sum,
	} {
		h := nats.Header{"Freshet-Call": {call}, "Freshet-Attempt": {"1"}, "Freshet-Payload": {text}}
		if _, err := queue.ParseEnvelope(f.CallsSubject(), h, nil); !errors.Is(err, queue.ErrEnvelope) {
			t.Errorf("envelope with %q: %v", text, err)
		}
		if _, err := queue.ParseResult(h, nil); !errors.Is(err, queue.ErrEnvelope) {
			t.Errorf("result with %q: %v", text, err)
		}
	}
}
