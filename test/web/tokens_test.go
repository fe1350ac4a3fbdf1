package web

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
)

// another runs a further gateway of the cluster until the test ends, with more flags, and returns its address.
func another(t *testing.T, port int, flags ...string) string {
	t.Helper()
	s, listen := cluster.State, fmt.Sprintf("127.0.0.1:%d", port)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, filepath.Join(os.Getenv("FRESHET_BIN"), "freshet"),
		append([]string{"gateway", "--listen", listen, "--nats", s.NATS(), "--nomad", s.Nomad(), "--blobs", s.Blobs()}, flags...)...)
	cmd.Env = append(os.Environ(), "FRESHET_NATS_USER="+string(queue.RoleGateway), "FRESHET_NATS_PASSWORD="+s.Passwords[queue.RoleGateway], "FRESHET_ROOT_TOKEN=root")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was told to end
		if t.Failed() {
			t.Logf("the gateway at %s: %s", listen, &output)
		}
	})
	address := "http://" + listen
	eventually.True(t, "the gateway is ready", func() bool {
		response, err := http.Get(address + "/readyz")
		return err == nil && response.Body.Close() == nil && response.StatusCode == http.StatusOK
	})
	return address
}

// TestTokens asks a gateway that wants tokens, with each kind of them.
func TestTokens(t *testing.T) {
	deployed(t, "guest", "site")
	gateway := another(t, 8690, "--auth", "on")
	token := func(flags ...string) string {
		cmd := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("FRESHET_BIN"), "freshet"), append([]string{"token"}, flags...)...)
		cmd.Env = append(os.Environ(), "FRESHET_ADDR="+gateway, "FRESHET_TOKEN=root")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("token %v: %v: %s", flags, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	right, other, reader := token("create", "right", "--functions", "site.handler"), token("create", "other", "--functions", "else"), token("create", "reader", "--verbs", "read")
	revoked := token("create", "revoked")
	id := func(token string) (string, string) {
		id, secret, _ := strings.Cut(strings.TrimPrefix(token, "frt_"), "_")
		return id, secret
	}
	gone, _ := id(revoked)
	token("revoke", gone)
	key, secret := id(right)
	for name, c := range map[string]struct {
		headers []string
		status  int
		kind    string
	}{
		"none":                     {nil, http.StatusUnauthorized, "unauthorized"},
		"one that is none":         {[]string{"Authorization", "Bearer nonsense"}, http.StatusUnauthorized, "unauthorized"},
		"a wrong secret":           {[]string{"Authorization", "Bearer " + right[:len(right)-4] + "AAAA"}, http.StatusUnauthorized, "unauthorized"},
		"of another function":      {[]string{"Authorization", "Bearer " + other}, http.StatusForbidden, "forbidden"},
		"of another verb":          {[]string{"Authorization", "Bearer " + reader}, http.StatusForbidden, "forbidden"},
		"one that was revoked":     {[]string{"Authorization", "Bearer " + revoked}, http.StatusUnauthorized, "unauthorized"},
		"a key without its secret": {[]string{"Freshet-Key", key}, http.StatusUnauthorized, "unauthorized"},
		"a wrong pair":             {[]string{"Freshet-Key", key, "Freshet-Secret", "x" + secret}, http.StatusUnauthorized, "unauthorized"},
		"a token":                  {[]string{"Authorization", "Bearer " + right}, http.StatusOK, ""},
		"a pair":                   {[]string{"Freshet-Key", key, "Freshet-Secret", secret, "Authorization", "Basic eDp5"}, http.StatusOK, ""},
		"Modal's pair":             {[]string{"Modal-Key", key, "Modal-Secret", secret}, http.StatusOK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			eventually.True(t, fmt.Sprint("the answer is ", c.status), func() bool { // all gateways hear of a token soon
				response, text := ask(t, "GET", gateway+"/web/site/handler/echo/", nil, c.headers...)
				if response.StatusCode != c.status {
					return false
				}
				if c.kind != "" && (problem(t, response, text) != c.kind || c.status == http.StatusUnauthorized && response.Header.Get("WWW-Authenticate") == "") {
					t.Errorf("%v: %s", response.Header, text)
				}
				for _, private := range []string{"Bearer", "Freshet-Key", "Freshet-Secret", "Modal-Secret", secret} {
					if c.kind == "" && strings.Contains(text, private) {
						t.Errorf("the server saw the credentials: %s", text)
					}
				}
				return true
			})
		})
	}
	t.Run("a public endpoint", func(t *testing.T) {
		if response, text := ask(t, "GET", gateway+"/web/site/open/healthz", nil); response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", response.Status, text)
		}
	})
}
