package calls

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/sdk/client"
)

// TestLargePayloadsTravelAsStreams through the whole system, as bytes and as a reader, and a small one by a reader too.
func TestLargePayloadsTravelAsStreams(t *testing.T) {
	const size = 64 << 20
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

// TestCommandsAndClientsStreamLargePayloads in and out, of calls that are waited for and of spawned ones.
func TestCommandsAndClientsStreamLargePayloads(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	pipe := func(args ...string) []byte {
		cmd := exec.CommandContext(t.Context(), shared.program(), args...)
		cmd.Env, cmd.Stdin = append(os.Environ(), "FRESHET_STATE="+shared.dir), bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("freshet %q: %v", args, err)
		}
		return out
	}
	if out := pipe("call", "calls.copy"); !bytes.Equal(out, data) {
		t.Errorf("freshet call: %d bytes of %d", len(out), len(data))
	}
	id := strings.TrimSpace(string(pipe("spawn", "calls.echo")))
	if out := pipe("result", id); !bytes.Equal(out, data) {
		t.Errorf("freshet result: %d bytes of %d", len(out), len(data))
	}
	response, out, err := api(t).Open(t.Context(), client.Request{Function: "calls.copy", Reader: bytes.NewReader(data)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	if got, err := io.ReadAll(out); err != nil || !bytes.Equal(got, data) || response.Call == "" {
		t.Errorf("Open: %d bytes of %d, %+v, %v", len(got), len(data), response, err)
	}
}
