package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
)

// shelf is a blob store that a test looks into.
func shelf(t *testing.T) (*blobs.Store, option) {
	t.Helper()
	store, err := blobs.Open(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store, func(c *gateway.Config) { c.Blobs = store }
}

func stored(t *testing.T, store *blobs.Store) []string {
	t.Helper()
	var names []string
	err := store.Payloads().List(t.Context(), "", func(o blobs.Object) error {
		names = append(names, o.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// putResult stores how a call ended, as its worker would.
func putResult(t *testing.T, g *rig, r queue.Result) {
	t.Helper()
	store, err := queue.OpenStore(g.nc, "worker")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if r.Worker, r.Attempt = "worker", 1; r.Call == "" {
		t.Fatal("no call")
	}
	if _, err := store.Put(t.Context(), r, ""); err != nil {
		t.Fatal(err)
	}
}

func spawnLarge(t *testing.T, g *rig, data []byte, header http.Header) string {
	t.Helper()
	a := g.do(t, http.MethodPost, spawnEcho, data, header)
	var view struct{ Call string }
	if err := json.Unmarshal(a.body, &view); err != nil || a.status != http.StatusAccepted {
		t.Fatalf("spawn: %d %s", a.status, a.body)
	}
	return view.Call
}

func TestLargeInputsAndOutputsGoByReference(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	store, keep := shelf(t)
	g := newRig(t, nats.ClientURL(), functions(echo()), keep).up(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	call := spawnLarge(t, g, data, http.Header{"Idempotency-Key": {"k"}})
	if names := stored(t, store); len(names) != 1 || names[0] != queue.InputName(echoKey(), call) {
		t.Fatalf("stored %q", names)
	}
	if again := spawnLarge(t, g, data, http.Header{"Idempotency-Key": {"k"}}); again != call {
		t.Errorf("the same input under its key made call %s, not %s", again, call)
	}
	other := bytes.Clone(data)
	other[len(other)-1] = 'X'
	if a := g.do(t, http.MethodPost, spawnEcho, other, http.Header{"Idempotency-Key": {"k"}}); a.status != http.StatusConflict {
		t.Errorf("another input under the key: %d %s", a.status, a.body)
	}
	js, err := jetstream.New(g.nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), echoKey().CallsStream())
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(t.Context(), echoKey().CallsSubject())
	if err != nil {
		t.Fatal(err)
	}
	e, err := queue.ParseEnvelope(msg.Subject, msg.Header, msg.Data)
	if err != nil || e.Payload == nil || e.Payload.Sum != sumOf(data) || e.Payload.Size != int64(len(data)) || len(e.Body) > 0 {
		t.Fatalf("queued %+v, %v", e, err)
	}
	name := queue.OutputName(echoKey(), call, 1, "worker")
	written, err := store.Payloads().Put(t.Context(), name, bytes.NewReader(data), queue.MaxPayload)
	if err != nil {
		t.Fatal(err)
	}
	putResult(t, g, queue.Result{Call: call, ContentType: "text/x", Payload: &queue.Payload{Name: name, Size: written.Size, Sum: written.Sum}})
	path := "/v1/calls/" + call + "/result"
	a := g.do(t, http.MethodGet, path, nil, nil)
	if a.status != http.StatusOK || !bytes.Equal(a.body, data) || a.header.Get("Content-Length") != fmt.Sprint(len(data)) || a.header.Get("Content-Type") != "text/x" {
		t.Errorf("the result: %d, %d bytes, %v", a.status, len(a.body), a.header)
	}
	for asked, want := range map[string]string{"bytes=5-8": "5678", "bytes=-3": "def", fmt.Sprintf("bytes=%d-", len(data)-2): "ef"} {
		a = g.do(t, http.MethodGet, path, nil, http.Header{"Range": {asked}})
		if a.status != http.StatusPartialContent || string(a.body) != want {
			t.Errorf("%s: %d %q, want %q", asked, a.status, a.body, want)
		}
	}
	var view struct {
		Bytes int64  `json:"output_bytes"`
		URL   string `json:"output_url"`
	}
	a = g.do(t, http.MethodGet, "/v1/calls/"+call, nil, nil)
	if err := json.Unmarshal(a.body, &view); err != nil || view.Bytes != int64(len(data)) {
		t.Fatalf("the call: %s", a.body)
	}
	if a = g.do(t, http.MethodGet, view.URL, nil, nil); !bytes.Equal(a.body, data) {
		t.Errorf("%s: %d, %d bytes", view.URL, a.status, len(a.body))
	}
	if a = g.do(t, http.MethodGet, strings.Replace(view.URL, "/echo/", "/other/", 1), nil, nil); a.status != http.StatusNotFound {
		t.Errorf("by another function's address: %d", a.status)
	}
	if err := store.Payloads().Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if a = g.do(t, http.MethodGet, path, nil, nil); a.status != http.StatusBadGateway || problemOf(t, a).Error.Kind != "payload" {
		t.Errorf("without its blob: %d %s", a.status, a.body)
	}
}

func TestInputsThatDoNotComeLeaveNothing(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	store, keep := shelf(t)
	g := newRig(t, nats.ClientURL(), functions(echo()), keep, func(c *gateway.Config) {
		c.MaxPayload, c.BodyWait = 4<<20, 300*time.Millisecond
	}).up(t)
	long := func() io.Reader { return io.LimitReader(endless{}, 5<<20) }
	for name, body := range map[string]io.Reader{"of known length": bytes.NewReader(make([]byte, 5<<20)), "of unknown length": long()} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.server.URL+spawnEcho, body)
		if err != nil {
			t.Fatal(err)
		}
		response, err := g.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusRequestEntityTooLarge || response.Header.Get("Freshet-Error") != "too_large" {
			t.Errorf("too much %s: %d %s", name, response.StatusCode, said)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.server.URL+spawnEcho, in)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() {
		response, err := g.client.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		gone <- err
	}()
	if _, err := out.Write(make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = out.CloseWithError(context.Canceled) // or net/http waits for the rest of the body
	if err := <-gone; err == nil {
		t.Error("an upload that was cancelled was answered")
	}
	for name, length := range map[string]int{"small": 100, "large": 3 << 20} {
		conn, err := net.Dial("tcp", g.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nx", spawnEcho, length)
		said, err := io.ReadAll(conn)
		_ = conn.Close()
		if err != nil || !strings.Contains(string(said), " 408 ") || !strings.Contains(string(said), "urn:freshet:problem:too_slow") {
			t.Errorf("a %s body that does not come: %q, %v", name, said, err)
		}
	}
	eventually.True(t, "nothing is left behind", func() bool { return len(stored(t, store)) == 0 })
	if n := pending(t, g); n != 0 {
		t.Errorf("%d calls are queued", n)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestSweepTakesWhatNobodyNeeds(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	store, keep := shelf(t)
	quick := func(c *gateway.Config) { c.PayloadGrace, c.PayloadSweep = 200*time.Millisecond, 20*time.Millisecond }
	g := newRig(t, nats.ClientURL(), functions(echo()), keep, quick).up(t)
	newRig(t, nats.ClientURL(), functions(echo()), keep, quick).up(t) // a second gateway sweeps too
	put := func(name string) *queue.Payload {
		written, err := store.Payloads().Put(t.Context(), name, strings.NewReader("data"), 10)
		if err != nil {
			t.Fatal(err)
		}
		return &queue.Payload{Name: name, Size: written.Size, Sum: written.Sum}
	}
	data := make([]byte, 2<<20)
	waits := spawnLarge(t, g, data, nil)
	ended := spawnLarge(t, g, data, nil)
	dead := spawnLarge(t, g, data, nil)
	js, err := jetstream.New(g.nc)
	if err != nil {
		t.Fatal(err)
	}
	buried := queue.DeadCall{Envelope: queue.Envelope{Function: echoKey(), Call: dead, Published: time.Now(), Payload: &queue.Payload{
		Name: queue.InputName(echoKey(), dead), Size: int64(len(data)), Sum: sumOf(data),
	}}}
	if err := queue.Bury(t.Context(), js, buried); err != nil {
		t.Fatal(err)
	}
	orphan := queue.NewBatch(time.Now())
	put(queue.InputName(queue.Function{Namespace: "default", App: "demo", Name: "gone"}, orphan))
	winner := put(queue.OutputName(echoKey(), ended, 1, "worker"))
	put(queue.OutputName(echoKey(), ended, 2, "other"))
	putResult(t, g, queue.Result{Call: ended, Payload: winner})
	putResult(t, g, queue.Result{Call: dead})
	want := map[string]bool{queue.InputName(echoKey(), waits): true, queue.InputName(echoKey(), dead): true, winner.Name: true}
	eventually.True(t, "only what is needed is left", func() bool {
		names := stored(t, store)
		for _, name := range names {
			if !want[name] {
				return false
			}
		}
		if len(names) < len(want) {
			t.Fatalf("removed too much: %q are left", names)
		}
		return true
	})
	if a := g.do(t, http.MethodDelete, "/v1/dead/"+dead, nil, nil); a.status != http.StatusNoContent {
		t.Fatalf("forget: %d %s", a.status, a.body)
	}
	eventually.True(t, "a forgotten call's input goes", func() bool { return len(stored(t, store)) == 2 })
}

func TestCallsOfLongAgoAreGone(t *testing.T) {
	nats := startNATS(t, t.TempDir(), 0)
	g := newRig(t, nats.ClientURL(), functions(echo())).up(t)
	for age, status := range map[time.Duration]int{time.Hour: http.StatusNotFound, 8 * 24 * time.Hour: http.StatusGone} {
		call := queue.CallOfInput(queue.NewBatch(time.Now().Add(-age)), 0)
		for _, path := range []string{"/v1/calls/" + call, "/v1/calls/" + call + "/result", "/v1/functions/demo/echo/outputs/" + call} {
			if a := g.do(t, http.MethodGet, path, nil, nil); a.status != status {
				t.Errorf("%s of %s ago: %d %s", path, age, a.status, a.body)
			}
		}
	}
}
