package gateway_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/freshet-dev/freshet/internal/execwire"
)

// TestCommandsInSandboxes: what is typed reaches the command, what it writes and its code come back, and a size is the terminal's.
func TestCommandsInSandboxes(t *testing.T) {
	_, r := newEchoRig(t)
	const path = "/v1/functions/demo/echo/exec?command="
	conn, response, err := websocket.Dial(t.Context(), r.server.URL+path+url.QueryEscape(`["cat","-"]`)+"&tty=true&rows=30&columns=90", nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("status %d", response.StatusCode)
	}
	if err := conn.Write(t.Context(), websocket.MessageBinary, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(`{"end":true}`)); err != nil {
		t.Fatal(err)
	}
	said, out := readExec(t, conn)
	if out != "\x02"+"30 90"+"\x01hello" || len(said) != 2 || said[0].Worker != "demo.echo-fresh" || !said[0].Fresh || said[1].Exit == nil || *said[1].Exit != 1 {
		t.Errorf("got %q, %+v", out, said)
	}

	conn, _, err = websocket.Dial(t.Context(), r.server.URL+path+url.QueryEscape(`["missing"]`), nil)
	if err != nil {
		t.Fatal(err)
	}
	said, _ = readExec(t, conn)
	if len(said) != 2 || said[1].Error == nil || !strings.Contains(said[1].Error.Message, "no such program") {
		t.Errorf("got %+v", said)
	}

	// One who leaves leaves nothing.
	conn, _, err = websocket.Dial(t.Context(), r.server.URL+path+url.QueryEscape(`["cat"]`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseNow(); err != nil {
		t.Error(err)
	}
}

func readExec(t *testing.T, conn *websocket.Conn) (said []execwire.Message, out string) {
	t.Helper()
	for {
		kind, data, err := conn.Read(t.Context())
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			return said, out
		}
		if err != nil {
			t.Fatal(err)
		}
		if kind == websocket.MessageBinary {
			out += string(data)
			continue
		}
		var message execwire.Message
		if err := json.Unmarshal(data, &message); err != nil {
			t.Fatal(err)
		}
		said = append(said, message)
	}
}

func TestCommandsAreChecked(t *testing.T) {
	_, r := newEchoRig(t)
	for path, says := range map[string]string{
		"/v1/functions/demo/echo/exec":                                  "query parameter command",
		"/v1/functions/demo/echo/exec?command=ls":                       `such as [\"ls\",\"-l\"]`,
		"/v1/functions/demo/echo/exec?command=%5B%22ls%22%5D":           "ask for a WebSocket",
		"/v1/functions/demo/echo/exec?command=%5B%22ls%22%5D&tty=maybe": "use true or false",
		"/v1/functions/demo/echo/exec?command=%5B%22ls%22%5D&rows=-1":   "at most 65535",
		"/v1/functions/demo/none/exec?command=%5B%22ls%22%5D":           "no function demo.none",
		"/v1/workers/none/exec?command=%5B%22ls%22%5D":                  "no live worker",
		"/v1/workers/none/exec?command=%5B%22ls%22%5D&fresh=true":       "no such parameter",
	} {
		if a := r.do(t, http.MethodGet, path, nil, nil); a.status < 400 || !strings.Contains(string(a.body), says) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}
