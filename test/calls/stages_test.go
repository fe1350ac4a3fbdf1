package calls

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// TestTimeoutsAreToldApart: the attempt's, each with the pause of the retry between, and the queue's.
func TestTimeoutsAreToldApart(t *testing.T) {
	v := look(t, spawn(t, "brief", "60000"), "120s")
	if v.Error == nil || v.Error.Kind != wire.KindTimeout || len(v.Failed) != 2 {
		t.Fatalf("attempts that take too long: %+v", v)
	}
	for _, failed := range v.Failed {
		if failed.Error.Kind != wire.KindTimeout || failed.Took < 900*time.Millisecond {
			t.Errorf("attempt %d ended by %s after %s", failed.Attempt, failed.Error.Kind, failed.Took)
		}
	}
	if gap := v.Failed[1].Ended.Sub(v.Failed[0].Ended) - v.Failed[1].Took; gap < 600*time.Millisecond {
		t.Errorf("the second attempt began %s after the first, not 700ms", gap)
	}
	var held []string
	for range 4 { // all that its worker has room for
		held = append(held, spawn(t, "sleep", "300000"))
	}
	for _, call := range held {
		eventually.True(t, "call "+call+" runs", func() bool { return look(t, call, "0s").Status == "running" })
	}
	late := spawnWithin(t, "sleep", "1", "1s")
	_ = look(t, late, "1500ms") // its time is over
	for _, call := range held {
		if err := api(t).Cancel(t.Context(), call); err != nil { // room: the worker that takes it sees that it is late
			t.Error(err)
		}
	}
	if v := look(t, late, "30s"); v.Status != "failed" || v.Error == nil || v.Error.Kind != wire.KindExpired || len(v.Failed) != 0 {
		t.Errorf("a call that waited too long: %+v", v)
	}
}

// TestStartThatTakesTooLongIsTold with the function's own time for it.
func TestStartThatTakesTooLongIsTold(t *testing.T) {
	v := look(t, spawn(t, "slow-start", "1"), "60s")
	if v.Error == nil || v.Error.Kind != wire.KindStart || !strings.Contains(v.Error.Message, "2s") {
		t.Errorf("%+v", v)
	}
}

// TestCancelAtEveryStage but those that other tests have: a call without a worker, one that yields, and one that has ended.
func TestCancelAtEveryStage(t *testing.T) {
	queued := spawnWithin(t, "never", "1", "10m")
	yields := stream(t, "count", "1000000")
	eventually.True(t, "it runs", func() bool { return look(t, yields, "0s").Status == "running" })
	for name, call := range map[string]string{"queued": queued, "yielding": yields} {
		if err := api(t).Cancel(t.Context(), call); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if v := look(t, call, "10s"); v.Status != "cancelled" {
			t.Errorf("%s: %+v", name, v)
		}
		if err := api(t).Cancel(t.Context(), call); err != nil {
			t.Errorf("%s, again: %v", name, err)
		}
	}
	ended := spawn(t, "echo", "1")
	if v := look(t, ended, "60s"); v.Status != "done" {
		t.Fatalf("%+v", v)
	}
	if status, _, body := request(t, http.MethodPost, "/v1/calls/"+ended+"/cancel", nil); status != http.StatusConflict {
		t.Errorf("a call that has ended: %d %s", status, body)
	}
	if v := look(t, ended, "0s"); v.Status != "done" {
		t.Errorf("the call that had ended: %+v", v)
	}
}

// stream spawns a call whose values are kept.
func stream(t *testing.T, function, input string) string {
	t.Helper()
	status, header, body := request(t, http.MethodPost, "/v1/functions/calls/"+function+"/spawn?stream=true", strings.NewReader(input))
	if status != http.StatusAccepted {
		t.Fatalf("%d %s", status, body)
	}
	return header.Get("Freshet-Call")
}
