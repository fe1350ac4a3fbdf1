package freshettest

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// The kinds of error that a gateway itself makes.
const (
	kindNotFound wire.Kind = "not_found"
	kindConflict wire.Kind = "conflict"
)

// statusOf is the status of a kind of error, as gateways have it.
func statusOf(kind wire.Kind) int {
	switch kind {
	case wire.KindInput:
		return http.StatusBadRequest
	case wire.KindTimeout, wire.KindExpired:
		return http.StatusGatewayTimeout
	case wire.KindCrash, wire.KindMemory, wire.KindProtocol, wire.KindLost, wire.KindPayload:
		return http.StatusBadGateway
	case wire.KindStart:
		return http.StatusServiceUnavailable
	case wire.KindCancelled:
		return 499
	case kindNotFound:
		return http.StatusNotFound
	case kindConflict:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

// routes are those of a gateway's that the client uses.
func (g *gateway) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/functions/{app}/{function}/call", g.aim(g.serveCall))
	mux.HandleFunc("POST /v1/functions/{app}/{function}/spawn", g.aim(g.serveSpawn))
	mux.HandleFunc("POST /v1/functions/{app}/{function}/stream", g.aim(g.serveStream))
	mux.HandleFunc("POST /v1/functions/{app}/{function}/map", g.aim(g.serveMap))
	mux.HandleFunc("GET /v1/calls/{call}/result", g.serveResult)
	mux.HandleFunc("POST /v1/calls/{call}/cancel", g.serveCancel)
	return mux
}

func refuse(w http.ResponseWriter, err *wire.Error, near []string) {
	body := map[string]any{"kind": err.Kind, "type": err.Type, "message": err.Message, "traceback": err.Traceback, "near": near}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(err.Kind))
	_ = json.NewEncoder(w).Encode(map[string]any{"error": body}) // the client may have gone
}

// aim finds what a request calls.
func (g *gateway) aim(serve func(http.ResponseWriter, *http.Request, target)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		app, name := r.PathValue("app"), r.PathValue("function")
		f, ok := g.functions[app+"."+name]
		if !ok {
			refuse(w, &wire.Error{Kind: kindNotFound, Message: "there is no function " + app + "." + name}, g.near(app, name))
			return
		}
		t := target{function: f, parameters: map[string]string{}}
		for key, values := range r.URL.Query() {
			if parameter, ok := strings.CutPrefix(key, "param."); ok {
				t.parameters[parameter] = values[0]
			}
		}
		t.method = r.URL.Query().Get("method")
		if methods := f.spec.Methods; len(methods) > 0 && !slices.Contains(methods, t.method) {
			refuse(w, &wire.Error{Kind: kindNotFound, Message: f.spec.JobID() + " has no method " + t.method}, methods)
			return
		}
		serve(w, r, t)
	}
}

// read reads a request's input; false when it could not.
func read(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.DefaultMaxPayload))
	if err != nil {
		refuse(w, &wire.Error{Kind: wire.KindInput, Message: "read input: " + err.Error()}, nil)
		return nil, false
	}
	if body == nil {
		body = []byte{}
	}
	return body, true
}

func (g *gateway) serveCall(w http.ResponseWriter, r *http.Request, t target) {
	input, ok := read(w, r)
	if !ok {
		return
	}
	one := g.spawn(t, r.Header.Get("Idempotency-Key"), r.Header.Get("Content-Type"), input)
	wait := 7 * 24 * time.Hour
	if d, err := time.ParseDuration(r.Header.Get("Freshet-Timeout")); err == nil {
		wait = d
	}
	if !one.wait(r.Context(), wait) {
		refuse(w, &wire.Error{Kind: wire.KindTimeout, Message: "no result in " + wait.String()}, nil)
		return
	}
	one.write(w)
}

// write answers with how a call ended.
func (s *spawned) write(w http.ResponseWriter) {
	w.Header().Set("Freshet-Call", s.id)
	w.Header().Set("Freshet-Worker", "freshettest")
	w.Header().Set("Freshet-Attempt", strconv.Itoa(s.attempt))
	if s.answer.err != nil {
		refuse(w, s.answer.err, nil)
		return
	}
	w.Header().Set("Content-Type", s.answer.output.contentType)
	_, _ = w.Write(s.answer.output.body) // the client may have gone
}

func (g *gateway) serveSpawn(w http.ResponseWriter, r *http.Request, t target) {
	input, ok := read(w, r)
	if !ok {
		return
	}
	one := g.spawn(t, r.Header.Get("Idempotency-Key"), r.Header.Get("Content-Type"), input)
	w.Header().Set("Freshet-Call", one.id)
	w.WriteHeader(http.StatusAccepted)
}

func (g *gateway) serveResult(w http.ResponseWriter, r *http.Request) {
	one, failed := g.find(r.PathValue("call"))
	if failed != nil {
		refuse(w, failed, nil)
		return
	}
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil {
		wait = 0
	}
	if !one.wait(r.Context(), wait) {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	one.write(w)
}

func (g *gateway) serveCancel(w http.ResponseWriter, r *http.Request) {
	one, failed := g.find(r.PathValue("call"))
	if failed != nil {
		refuse(w, failed, nil)
		return
	}
	if one.wait(r.Context(), 0) {
		refuse(w, &wire.Error{Kind: kindConflict, Message: "the call has ended before"}, nil)
		return
	}
	one.cancel(&wire.Error{Kind: wire.KindCancelled, Message: "the call was cancelled"})
	<-one.ended
	w.WriteHeader(http.StatusOK)
}

// asJSON is a value within a line, and as base64 what is neither JSON nor text.
func (o output) asJSON() (value json.RawMessage, bytes []byte) {
	switch {
	case strings.HasPrefix(o.contentType, "text/"):
		text, err := json.Marshal(string(o.body))
		if err == nil {
			return text, nil
		}
	case o.contentType == "application/json":
		return o.body, nil
	}
	return nil, o.body
}

func (g *gateway) serveStream(w http.ResponseWriter, r *http.Request, t target) {
	input, ok := read(w, r)
	if !ok {
		return
	}
	id := rand.Text()
	w.Header().Set("Freshet-Call", id)
	w.Header().Set("Content-Type", "application/x-ndjson")
	control, lines := http.NewResponseController(w), json.NewEncoder(w)
	count := 0
	a, _ := g.call(r.Context(), id, t, r.Header.Get("Content-Type"), input, func(value output) error {
		line := map[string]any{"index": count}
		count++
		if text, data := value.asJSON(); data != nil {
			line["value_base64"] = data
		} else {
			line["value"] = text
		}
		_ = lines.Encode(line) // a client who has gone ends the request's context, and that the call
		_ = control.Flush()
		return nil
	})
	end := map[string]any{"done": a.err == nil, "values": count}
	if a.err != nil {
		end["error"] = a.err
	}
	_ = lines.Encode(end)
}
