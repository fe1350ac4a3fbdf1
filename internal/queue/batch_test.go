package queue_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/internal/queue"
)

func TestIDsSayWhichBatchAndInputACallIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		batch := queue.NewBatch(time.Now())
		index := rapid.Int64Range(0, queue.MaxInputs-1).Draw(t, "index")
		call := queue.CallOfInput(batch, index)
		if err := queue.CheckID(call); err != nil {
			t.Fatal(err)
		}
		if queue.BatchOf(call) != batch || queue.InputOf(call) != index {
			t.Fatalf("call %s of input %d of batch %s reads as input %d of %s", call, index, batch, queue.InputOf(call), queue.BatchOf(call))
		}
		if subject := queue.ResultSubject(call); queue.CallOfResult(subject) != call || !strings.HasPrefix(subject, strings.TrimSuffix(queue.BatchResults(batch), "*")) {
			t.Fatalf("result of %s is stored at %s", call, subject)
		}
		other := rapid.Int64Range(0, queue.MaxInputs-1).Draw(t, "other")
		if next := queue.CallOfInput(batch, other); (next < call) != (other < index) {
			t.Fatalf("ids do not sort as their inputs: %d is %s, %d is %s", index, call, other, next)
		}
	})
	if batch := queue.NewBatch(time.Now()); queue.InputOf(batch) != -1 || queue.BatchOf(batch) != batch {
		t.Error("a batch's id is that of an input")
	}
}

func TestWrongIDsAreRefused(t *testing.T) {
	for _, id := range []string{"", "x", "01ARZ3NDEKTSV4RRFFQ69G5FA", "01ARZ3NDEKTSV4RRFFQ69G5FAVX", "01arz3ndektsv4rrffq69g5fav", "ZZARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5F.*"} {
		if queue.CheckID(id) == nil {
			t.Errorf("%q was taken", id)
		}
	}
	if err := queue.CheckID("01ARZ3NDEKTSV4RRFFQ69G5FAV"); err != nil {
		t.Error(err)
	}
}
