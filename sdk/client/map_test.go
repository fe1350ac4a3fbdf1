package client_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// numbers are inputs.
func numbers(count int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := range count {
			if !yield(fmt.Appendf(nil, `{"n":%d}`, i)) {
				return
			}
		}
	}
}

// mapper answers maps as a gateway does, and breaks connections after some answers each.
type mapper struct {
	t     *testing.T
	batch string

	mu     sync.Mutex
	breaks []int          // after how many answers the next connections break
	begun  map[int]string // inputs that were read, by their index
	blanks int
}

func (m *mapper) handle(w http.ResponseWriter, r *http.Request, _ int64) {
	query := r.URL.Query()
	from, _ := strconv.Atoi(query.Get("from")) // 0 in the first request
	sent, _ := strconv.Atoi(query.Get("sent"))
	if !query.Has("batch") {
		m.begin(w)
		return
	}
	if r.URL.Path != "/v1/functions/app/f/map" || query.Get("namespace") != "prod" || query.Get("batch") != m.batch {
		m.t.Errorf("request %s", r.URL)
	}
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil {
		m.t.Error(err)
	}
	w.Header().Set("Freshet-Batch", m.batch)
	_ = control.Flush()
	left := m.nextBreak()
	index := from - 1
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		index++
		line := lines.Text()
		if !m.note(index, line, sent) {
			continue
		}
		if left--; left == 0 {
			_ = control.SetReadDeadline(time.Now()) // or the server reads the body to its end
			panic(http.ErrAbortHandler)             // the input is never answered here
		}
		switch line {
		case "?", `{"n":7}`:
			fmt.Fprintf(w, `{"index":%d,"call":"c","error":{"kind":"user","message":"seven"}}`+"\n", index)
		default:
			fmt.Fprintf(w, `{"index":%d,"call":"c","output":%s}`+"\n", index, line)
		}
		_ = control.Flush()
	}
	fmt.Fprintln(w, `{"done":true}`)
}

// begin answers a map of nothing.
func (m *mapper) begin(w http.ResponseWriter) {
	w.Header().Set("Freshet-Batch", m.batch)
	fmt.Fprintln(w, `{"done":true}`)
}

func (m *mapper) nextBreak() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.breaks) == 0 {
		return -1
	}
	next := m.breaks[0]
	m.breaks = m.breaks[1:]
	return next
}

// note checks an input against what was read at its place before; false when it is left empty.
func (m *mapper) note(index int, line string, sent int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, known := m.begun[index]
	if line == "" {
		m.blanks++
		if !known || index >= sent {
			m.t.Errorf("input %d was left empty; it was read: %v, sent: %d", index, known, sent)
		}
		return false
	}
	if known && (before != line || index >= sent) {
		m.t.Errorf("input %d is %s, was %s, sent: %d", index, line, before, sent)
	}
	m.begun[index] = line
	return true
}

func TestMapGoesOnHoweverOftenItsConnectionBreaks(t *testing.T) {
	const count = 500
	for round := range 20 {
		m := &mapper{t: t, batch: "b1", begun: make(map[int]string)}
		for range 20 {
			m.breaks = append(m.breaks, 1+rand.IntN(40))
		}
		c := gateway(t, m.handle)
		way, ordered := c.MapUnordered, round%2 == 0
		if ordered {
			way = c.Map
		}
		seen := make(map[int]bool)
		for item, err := range way(t.Context(), client.Request{Function: "app.f"}, numbers(count), 1+rand.IntN(64)) {
			if err != nil {
				t.Fatal(err)
			}
			if seen[item.Index] || ordered && item.Index != len(seen) {
				t.Fatalf("item %d after %d others", item.Index, len(seen))
			}
			seen[item.Index] = true
			switch want := fmt.Sprintf(`{"n":%d}`, item.Index); {
			case item.Index == 7 && client.KindOf(item.Err) != wire.KindUser:
				t.Errorf("item 7: %v", item.Err)
			case item.Index != 7 && (item.Err != nil || string(item.Response.Body) != want):
				t.Errorf("item %d: %s, %v", item.Index, item.Response.Body, item.Err)
			}
		}
		if len(seen) != count || len(m.begun) != count {
			t.Errorf("%d items of %d inputs", len(seen), len(m.begun))
		}
	}
}

func TestMapTakesNoMoreInputsThanItNeeds(t *testing.T) {
	m := &mapper{t: t, batch: "b1", begun: make(map[int]string)}
	c := gateway(t, m.handle)
	taken := 0
	endless := func(yield func([]byte) bool) {
		for yield([]byte(strconv.Itoa(taken))) {
			taken++
		}
	}
	count := 0
	for _, err := range c.Map(t.Context(), client.Request{Function: "app.f"}, endless, 4) {
		if count++; err != nil || count == 3 {
			break // must not hang
		}
	}
	if count != 3 || taken > 3+8 {
		t.Errorf("%d items of %d inputs", count, taken)
	}
}

func TestMapSaysWhatIsWrongWithAnInput(t *testing.T) {
	m := &mapper{t: t, batch: "b1", begun: make(map[int]string)}
	c := gateway(t, m.handle)
	given := slices.Values([][]byte{[]byte("[1,\n2]"), nil, []byte("{\n1}")})
	got := make(map[int]string)
	for item, err := range c.Map(t.Context(), client.Request{Function: "app.f"}, given, 1) {
		if err != nil {
			t.Fatal(err)
		}
		got[item.Index] = string(item.Response.Body)
		if item.Err != nil {
			got[item.Index] = string(client.KindOf(item.Err)) + ": " + item.Err.Error()
		}
	}
	want := map[int]string{
		0: "[1,2]", 1: "input: input 1 is no JSON: unexpected end of JSON input", 2: "input: input 2 is no JSON: invalid character '1' looking for beginning of object key string",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestMapThatCannotBeginIsAnErrorAndTakesNoInput(t *testing.T) {
	c := gateway(t, func(w http.ResponseWriter, _ *http.Request, _ int64) {
		fail(w, http.StatusNotFound, `{"error":{"kind":"not_found","message":"no function app.f"}}`)
	})
	none := func(func([]byte) bool) { t.Error("an input was taken") }
	var failed error
	for _, err := range c.Map(t.Context(), client.Request{Function: "app.f"}, none, 1) {
		failed = err
	}
	if client.KindOf(failed) != "not_found" || !strings.HasPrefix(failed.Error(), "map app.f: ") {
		t.Errorf("got %v", failed)
	}
}

func TestMapGivesUpOnAGatewayThatOnlyBreaks(t *testing.T) {
	server := gateway(t, func(w http.ResponseWriter, _ *http.Request, _ int64) {
		w.Header().Set("Freshet-Batch", "b1")
		w.WriteHeader(http.StatusOK)
		control := http.NewResponseController(w)
		_, _ = control.Flush(), control.SetReadDeadline(time.Now())
		panic(http.ErrAbortHandler)
	})
	client.Patience(100 * time.Millisecond)(server)
	var failed error
	for _, err := range server.Map(t.Context(), client.Request{Function: "app.f"}, numbers(10), 1) {
		failed = err
	}
	if failed == nil || !strings.Contains(failed.Error(), "cut off") {
		t.Errorf("got %v", failed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range server.Map(ctx, client.Request{Function: "app.f"}, numbers(10), 1) {
		failed = err
	}
	if !errors.Is(failed, context.Canceled) {
		t.Errorf("got %v", failed)
	}
}

func FuzzInputsOfMapsAreLines(f *testing.F) {
	f.Add([]byte("{\"a\": \"b\\n\"}\r\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		m := &mapper{t: t, batch: "b1", begun: make(map[int]string)}
		c := gateway(t, func(w http.ResponseWriter, r *http.Request, _ int64) {
			if !r.URL.Query().Has("batch") {
				m.begin(w)
				return
			}
			_ = http.NewResponseController(w).EnableFullDuplex()
			_ = http.NewResponseController(w).Flush()
			count := 0
			for lines := bufio.NewScanner(r.Body); lines.Scan(); count++ {
				output, _ := json.Marshal(lines.Text()) // a string is always JSON
				fmt.Fprintf(w, `{"index":%d,"output":%s}`+"\n", count, output)
			}
			fmt.Fprintln(w, `{"done":true}`)
		})
		for item, err := range c.Map(t.Context(), client.Request{Function: "app.f"}, slices.Values([][]byte{input, []byte("1")}), 1) {
			if err != nil || item.Index > 1 {
				t.Fatalf("item %d: %v", item.Index, err)
			}
			if item.Index == 0 && json.Valid(input) != (item.Err == nil) && bytes.ContainsAny(input, "\r\n") {
				t.Errorf("%q: %v", input, item.Err)
			}
			m.begun[item.Index] = string(item.Response.Body)
		}
		if len(m.begun) != 2 || m.begun[1] != `"1"` {
			t.Errorf("%q: %v", input, m.begun)
		}
	})
}
