package calls

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"os"
	"testing"
)

// TestLargePayloadsTravelAsStreams through the whole system, as bytes, as a reader, and there and back from a small input.
func TestLargePayloadsTravelAsStreams(t *testing.T) {
	size := 64 << 20
	if os.Getenv("LONG") != "" {
		size = 512 << 20
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	want := sha256.Sum256(data)
	for _, function := range []string{"copy", "echo"} {
		status, header, body := request(t, http.MethodPost, "/v1/functions/calls/"+function+"/call", bytes.NewReader(data))
		if status != http.StatusOK || sha256.Sum256(body) != want {
			t.Errorf("%s: %d %s, %d bytes of %d", function, status, header.Get("Freshet-Error"), len(body), size)
		}
	}
	status, _, body := request(t, http.MethodPost, "/v1/functions/calls/copy/call", io.LimitReader(bytes.NewReader(data), 10))
	if status != http.StatusOK || string(body) != "0123456789" {
		t.Errorf("a small one: %d %q", status, body)
	}
}
