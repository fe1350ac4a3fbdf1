package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

const (
	// maxTimeout is the longest that a caller may wait: a result is kept no longer.
	maxTimeout = 7 * 24 * time.Hour
	// maxKey and maxMethod bound what a caller chooses, in bytes.
	maxKey    = 255
	maxMethod = 128
)

// callHeader is what a request to call says beside its body, checked.
type callHeader struct {
	namespace   string
	method      string
	key         string            // Idempotency-Key
	timeout     time.Duration     // zero: the function's own
	keep        time.Duration     // of the result; zero: as long as usual
	query       url.Values        // parameters of the request's own
	parameters  map[string]string // of the function, from the query
	arguments   string            // of the function, as a JSON object
	contentType string
	traceparent string
}

// parseCallHeader reads and checks the headers and the query of a call, which may have more parameters of the names given.
func parseCallHeader(h http.Header, rawQuery string, more ...string) (callHeader, error) {
	c := callHeader{
		namespace:   spec.DefaultNamespace,
		key:         first(h, "Idempotency-Key"),
		contentType: first(h, "Content-Type"),
		traceparent: first(h, "Traceparent"),
		arguments:   first(h, "Freshet-Parameters"),
	}
	if rawQuery != "" {
		query, err := parseQuery(rawQuery, append([]string{"namespace", "method", parameterPrefix}, more...)...)
		if err != nil {
			return callHeader{}, err
		}
		if query.Has("namespace") {
			c.namespace = query.Get("namespace")
		}
		c.method, c.query, c.parameters = query.Get("method"), query, parametersOf(query)
	}
	if !validTrace(c.traceparent) {
		c.traceparent = "" // W3C Trace Context 3.2.2.1: one that cannot be parsed is ignored, never an error
	}
	if err := checkText("query parameter method", c.method, maxMethod); err != nil {
		return callHeader{}, err
	}
	if err := checkText("header Idempotency-Key", c.key, maxKey); err != nil {
		return callHeader{}, err
	}
	if err := checkText("header Content-Type", c.contentType, queue.MaxHeader); err != nil {
		return callHeader{}, err
	}
	var err error
	if c.timeout, err = headerDuration(h, "Freshet-Timeout", time.Millisecond); err != nil {
		return callHeader{}, err
	}
	c.keep, err = headerDuration(h, "Freshet-Keep", time.Second)
	return c, err
}

// headerDuration reads a duration up to maxTimeout; zero when the header is not there.
func headerDuration(h http.Header, name string, least time.Duration) (time.Duration, error) {
	text := first(h, name)
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > maxTimeout {
		return 0, badInput("header "+name, text, fmt.Sprintf("use a duration from %s to 168h, such as 30s", least))
	}
	return d, nil
}

// first reads a header by its canonical name, which saves making it canonical.
func first(h http.Header, canonical string) string {
	if values := h[canonical]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func checkText(field, value string, limit int) error {
	if len(value) > limit {
		return badInput(field, value, fmt.Sprintf("it has %d bytes, use at most %d", len(value), limit))
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return badInput(field, value, "use printable ASCII")
		}
	}
	return nil
}

// validTrace accepts a W3C traceparent of version 00, and of later versions what version 00 would read of them.
func validTrace(t string) bool {
	const size = 55 // 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(t) < size || len(t) > queue.MaxHeader || t[2] != '-' || t[35] != '-' || t[52] != '-' {
		return false
	}
	if !hexLower(t[:2]) || !hexLower(t[3:35]) || !hexLower(t[36:52]) || !hexLower(t[53:size]) {
		return false
	}
	if len(t) > size && (t[:2] == "00" || t[size] != '-') {
		return false
	}
	const zeros = "00000000000000000000000000000000"
	if t[:2] == "ff" || t[3:35] == zeros || t[36:52] == zeros[:16] {
		return false
	}
	return checkText("", t, queue.MaxHeader) == nil
}

func hexLower(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// parseQuery reads a query that may have the named parameters, each once: a misspelt one would be ignored in silence.
func parseQuery(raw string, allowed ...string) (url.Values, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, badInput("query", raw, "escape it as URLs need it: "+err.Error())
	}
	for name, values := range query {
		if err := checkParameter(name, values, allowed); err != nil {
			return nil, err
		}
	}
	return query, nil
}

// isFlag tells parameters that are true or false, and false when they are not given: one that is meant is never taken for the other.
func isFlag(name string) bool {
	switch name {
	case "plan", "warm", "ephemeral", "stream", "redirect", "follow", "create", "restart", "force", "recursive":
		return true
	}
	return false
}

// noQuery wraps the handler of a route without parameters, to refuse all.
func (a responder) noQuery(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "" {
			if _, err := parseQuery(r.URL.RawQuery); err != nil {
				a.refuse(w, r, err)
				return
			}
		}
		next(w, r)
	}
}

func checkParameter(name string, values, allowed []string) error {
	for _, known := range allowed {
		if name != known && (known != parameterPrefix || !strings.HasPrefix(name, parameterPrefix)) {
			continue
		}
		if len(values) > 1 {
			return badInput("query parameter "+name, values[1], "give it once")
		}
		if value := values[0]; isFlag(name) && value != "true" && value != "false" {
			return badInput("query parameter "+name, value, "use true or false")
		}
		return nil
	}
	p := badInput("query parameter "+name, values[0], fmt.Sprintf("no such parameter here; there are %q", allowed))
	p.Near = near(name, allowed)
	return p
}

// buffers are reused for request bodies: the connection to NATS copies what is published.
type buffers struct{ pool sync.Pool }

// maxPooled is the largest buffer kept for reuse, in bytes: a few large inputs must not stay in memory for ever.
const maxPooled = 64 << 10

func (b *buffers) get() *[]byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return buffer
	}
	return new(make([]byte, 0, 4<<10))
}

func (b *buffers) put(buffer *[]byte) {
	if cap(*buffer) <= maxPooled {
		b.pool.Put(buffer)
	}
}

// readBody reads the input into the buffer. An input of more than queue.MaxInline bytes is large: what was read of it is in the
// buffer, and there may be more.
func readBody(r *http.Request, buffer *[]byte) (large bool, err error) {
	b := (*buffer)[:0]
	if r.ContentLength > queue.MaxInline {
		*buffer = b
		return true, nil
	}
	if need := int(r.ContentLength) + 1; need > cap(b) { // one more byte lets the read that finds the end fit
		b = make([]byte, 0, need)
	}
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Body.Read(b[len(b):min(cap(b), queue.MaxInline+1)])
		b = b[:len(b)+n]
		*buffer = b
		switch {
		case len(b) > queue.MaxInline:
			return true, nil
		case err == io.EOF:
			return false, nil
		case err != nil:
			return false, err
		}
	}
}
