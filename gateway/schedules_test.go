package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const scheduleEcho = "/v1/functions/demo/echo/schedules/tick"

// scheduled is a schedule as the API shows it.
type scheduled struct {
	Name   string    `json:"name"`
	Seen   time.Time `json:"seen"`
	Next   time.Time `json:"next"`
	Last   string    `json:"last_call"`
	Paused bool      `json:"paused"`
	Cron   string    `json:"cron"`
}

func (r *rig) schedule(t *testing.T, method, path, body string, status int) scheduled {
	t.Helper()
	a := r.do(t, method, path, []byte(body), nil)
	var s scheduled
	if a.status != status || a.status < 204 && json.Unmarshal(a.body, &s) != nil {
		t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	return s
}

// ledger counts how often each call ran.
type ledger struct {
	mu   sync.Mutex
	runs map[string]int
}

func (l *ledger) run(d *queue.Delivery) queue.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs[d.Call]++
	return queue.Result{ContentType: d.ContentType, Body: d.Body}
}

// counts are the calls and their runs.
func (l *ledger) counts() (calls, runs int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, count := range l.runs {
		runs += count
	}
	return len(l.runs), runs
}

// forget takes back that ticks were seen to, as when a gateway ends after it made their calls and before it wrote so down.
func forget(t *testing.T, r *rig, seen time.Time) {
	t.Helper()
	bucket, err := r.js(t).KeyValue(t.Context(), queue.SchedulesBucket)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := bucket.Get(t.Context(), "default.demo.echo.tick")
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(entry.Value(), &record); err != nil {
		t.Fatal(err)
	}
	was := fmt.Sprint(record["seen"])
	record["seen"] = seen
	data, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(t.Context(), entry.Key(), data); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "they are seen to again", func() bool {
		entry, err := bucket.Get(t.Context(), entry.Key())
		var now struct{ Seen string }
		return err == nil && json.Unmarshal(entry.Value(), &now) == nil && now.Seen >= was
	})
}

// TestEachTickMakesOneCall though three gateways see to it, two of them end in the middle, and ticks are seen to again.
func TestEachTickMakesOneCall(t *testing.T) {
	url, first := newEchoRig(t)
	second := newRig(t, url, functions(echo())).up(t)
	last := newRig(t, url, functions(echo())).up(t)
	l := &ledger{runs: make(map[string]int)}
	startWorker(t, url, 4, l.run)
	made := first.schedule(t, http.MethodPut, scheduleEcho, `{"every":"1s","input":{"n":1},"missed":"all"}`, http.StatusOK)
	for i, dying := range []*rig{first, second, nil} {
		want := 2 * (i + 1)
		eventually.True(t, "some ticks passed", func() bool { calls, _ := l.counts(); return calls >= want })
		forget(t, last, made.Seen)
		if dying != nil {
			dying.close()
		}
	}
	last.schedule(t, http.MethodPost, scheduleEcho+"/pause", "", http.StatusOK)
	var now scheduled
	eventually.True(t, "every tick that was seen to ran", func() bool {
		var list []scheduled
		if a := last.do(t, http.MethodGet, "/v1/schedules?function=demo.echo", nil, nil); json.Unmarshal(a.body, &list) != nil || len(list) != 1 {
			t.Fatalf("%s", a.body)
		}
		now = list[0]
		calls, _ := l.counts()
		return calls == int(now.Seen.Sub(made.Seen)/time.Second)
	})
	if calls, runs := l.counts(); runs != calls || !now.Paused || !now.Next.IsZero() {
		t.Errorf("%d runs of %d calls, %+v", runs, calls, now)
	}
	before, _ := l.counts()
	if ran := last.show(t, http.MethodPost, scheduleEcho+"/run", nil, nil, http.StatusAccepted); ran.Call == "" {
		t.Error("run now made no call")
	}
	eventually.True(t, "it ran now, though it is paused", func() bool { calls, _ := l.counts(); return calls == before+1 })
	last.schedule(t, http.MethodDelete, scheduleEcho, "", http.StatusNoContent)
	if status, _ := last.problemOf(t, http.MethodPost, scheduleEcho+"/resume", nil, nil); status != http.StatusNotFound {
		t.Errorf("resume of what is gone: %d", status)
	}
}

func TestWrongSchedulesAreRefused(t *testing.T) {
	_, r := newEchoRig(t)
	for _, body := range []string{"", "{", `{}`, `{"cron":"x"}`, `{"every":"1ms"}`, `{"every":"1s","evry":1}`, `{"cron":"* * * * *","time_zone":"X"}`} {
		if status, kind := r.problemOf(t, http.MethodPut, scheduleEcho, []byte(body), nil); status != http.StatusBadRequest || kind != wire.KindInput {
			t.Errorf("%s: %d %s", body, status, kind)
		}
	}
	if status, _ := r.problemOf(t, http.MethodPut, "/v1/functions/demo/nothing/schedules/x", []byte(`{"every":"1s"}`), nil); status != http.StatusNotFound {
		t.Errorf("of no function: %d", status)
	}
	if status, _ := r.problemOf(t, http.MethodPut, "/v1/functions/demo/echo/schedules/a.b", []byte(`{"every":"1s"}`), nil); status != http.StatusBadRequest {
		t.Errorf("a wrong name: %d", status)
	}
}
