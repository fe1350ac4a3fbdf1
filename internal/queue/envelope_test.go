package queue_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const call = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

func TestEnvelopeSurvivesTheMessage(t *testing.T) {
	want := queue.Envelope{
		Function: function, Call: call, Method: "m", Attempt: 3, Deadline: time.UnixMilli(1_800_000_000_000),
		Published: time.Unix(0, 1_700_000_000_000_000_001), Reply: "freshet.reply.g.c", Keep: time.Minute,
		IdempotencyKey: "key", ContentType: "text/plain", Traceparent: "00-1-2-3", Body: []byte("body"),
	}
	msg, err := want.Message()
	if err != nil {
		t.Fatal(err)
	}
	got, err := queue.ParseEnvelope(msg.Subject, msg.Header, msg.Data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMalformedEnvelopesNameWhatIsWrong(t *testing.T) {
	for name, envelope := range map[string]queue.Envelope{
		"call":            {Function: function, Call: "short"},
		"body":            {Function: function, Call: call, Body: make([]byte, queue.MaxInline+1)},
		"content type":    {Function: function, Call: call, ContentType: "a\nb"},
		"idempotency key": {Function: function, Call: call, IdempotencyKey: strings.Repeat("x", queue.MaxHeader+1)},
	} {
		_, err := envelope.Message()
		if !errors.Is(err, queue.ErrEnvelope) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestResultSurvivesTheMessage(t *testing.T) {
	for _, want := range []queue.Result{
		{Call: call, Attempt: 2, Worker: "w", ContentType: "text/plain", Body: []byte("out"), Queued: 1, Started: 2, Run: 3},
		{Call: call, Attempt: 1, Error: &wire.Error{Kind: wire.KindUser, Type: "T", Message: "m", Traceback: "t"}},
	} {
		msg, err := want.Message("subject")
		if err != nil {
			t.Fatal(err)
		}
		got, err := queue.ParseResult(msg.Header, msg.Data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestConsumersOfLikeNamesDiffer(t *testing.T) {
	a := queue.Function{Namespace: "default", App: "a", Name: "b_c"}
	b := queue.Function{Namespace: "default", App: "a_b", Name: "c"}
	if a.Consumer() == b.Consumer() {
		t.Error("two functions share a consumer")
	}
}

func FuzzParseEnvelope(f *testing.F) {
	f.Add("freshet.calls.1.default.app.fn", call, "1", "1", "1s", []byte("x"))
	f.Fuzz(func(t *testing.T, subject, id, attempt, deadline, keep string, body []byte) {
		h := nats.Header{"Freshet-Call": {id}, "Freshet-Attempt": {attempt}, "Freshet-Deadline": {deadline}, "Freshet-Keep": {keep}}
		envelope, err := queue.ParseEnvelope(subject, h, body)
		if err != nil {
			return
		}
		if _, err := envelope.Message(); err != nil {
			t.Errorf("accepted, and cannot be sent on: %v", err)
		}
	})
}

func FuzzParseResult(f *testing.F) {
	f.Add("user", "1", []byte(`{"kind":"user"}`))
	f.Fuzz(func(_ *testing.T, kind, attempt string, body []byte) {
		_, _ = queue.ParseResult(nats.Header{"Freshet-Error": {kind}, "Freshet-Attempt": {attempt}}, body)
	})
}
