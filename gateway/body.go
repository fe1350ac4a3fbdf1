package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// readAll reads a body of at most so many bytes, which must come at the pace of a call's; what names it where it is too large.
func (p *payloads) readAll(w http.ResponseWriter, r *http.Request, most int64, what string) ([]byte, error) {
	tooLarge := &problem{Kind: kindTooLarge, Message: fmt.Sprintf("body: %s has at most %d bytes", what, most)}
	if r.ContentLength > most {
		return nil, tooLarge
	}
	body := p.pace(w, r)
	data, err := io.ReadAll(io.LimitReader(body, most+1))
	switch {
	case err != nil:
		return nil, p.broken(len(data), err)
	case int64(len(data)) > most:
		return nil, tooLarge
	}
	body.allow(0)
	return data, nil
}

// pace is a request's body that must come at a pace, until it is allowed to take for ever.
func (p *payloads) pace(w http.ResponseWriter, r *http.Request) *paced {
	body := &paced{body: r.Body, control: http.NewResponseController(w), began: time.Now(), wait: p.wait}
	body.allow(p.wait)
	return body
}

// decodeStrict decodes the one JSON value of a body, whose fields must all be known: a misspelt one would be ignored in silence.
func decodeStrict(body []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the first value")
	}
	return nil
}
