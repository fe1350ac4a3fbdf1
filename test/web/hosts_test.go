package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// secure is where the cluster's gateway listens with TLS.
const secure = "127.0.0.1:8443"

// trusting is a client that trusts the cluster's own authority, and finds every host name at the gateway.
func trusting(t *testing.T) *http.Client {
	t.Helper()
	authority, err := os.ReadFile(filepath.Join(cluster.Dir, "tls", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		t.Fatalf("%s holds no certificate", authority)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, secure)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestHostNames reaches a function by its name below the domain and by one of its own, with certificates made at the first handshake.
func TestHostNames(t *testing.T) {
	deploy(t, "hosts", "        concurrency = 4", `        web {
          domains = ["api.example.org", "stolen.localhost"]
          origins = ["https://page.example.org"]
        }

        concurrency = 4`)
	client := trusting(t)
	for _, host := range []string{"web--hosts.localhost", "api.example.org"} {
		t.Run(host, func(t *testing.T) { hosted(t, client, host) })
	}
	t.Run("a name of others", func(t *testing.T) {
		for _, host := range []string{"stolen.localhost", "web--nothing.localhost", "example.org"} {
			if response, err := client.Get("https://" + host + "/echo/"); err == nil {
				_ = response.Body.Close()
				t.Errorf("%s has a certificate", host)
			}
		}
	})
	t.Run("the gateway's own", func(t *testing.T) {
		response, err := client.Get("https://localhost/healthz")
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
			t.Errorf("%s, %v", response.Status, err)
		}
	})
	t.Run("WebSocket", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		conn, _, err := websocket.Dial(ctx, "wss://web--hosts.localhost/socket", &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	})
	t.Run("a browser", func(t *testing.T) {
		socket, events := browse(t, "https://web--hosts.localhost:8443/page", chromedp.IgnoreCertErrors)
		if socket != heard || events != saw {
			t.Errorf("the page's WebSocket heard %q, its event source %q", socket, events)
		}
	})
	t.Run("pages of an origin", func(t *testing.T) { origins(t, cluster.State.Gateway()+"/web/web/hosts") })
}

func hosted(t *testing.T, client *http.Client, host string) {
	eventually.True(t, host+" leads to the function", func() bool {
		response, err := client.Get("https://" + host + "/healthz")
		if err != nil {
			return false
		}
		return response.Body.Close() == nil && response.StatusCode == http.StatusOK
	})
	response, err := client.Post("https://"+host+"/echo/a?b=c", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // it was read
	var got seen
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if response.ProtoMajor != 2 || got.Host != host || got.Target != "/echo/a?b=c" || got.Body != "hello" || got.Header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("over %s the server saw %+v", response.Proto, got)
	}
	bothWays(t, client, "https://"+host)
}

// origins asks as browsers do before a page of another origin may send.
func origins(t *testing.T, address string) {
	response, text := ask(t, http.MethodOptions, address+"/echo/", nil, "Origin", "https://page.example.org",
		"Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-own")
	if response.StatusCode != http.StatusNoContent || response.Header.Get("Access-Control-Allow-Origin") != "https://page.example.org" ||
		response.Header.Get("Access-Control-Allow-Methods") != "PUT" || response.Header.Get("Access-Control-Allow-Headers") != "x-own" {
		t.Errorf("a preflight: %s, %v, %s", response.Status, response.Header, text)
	}
	response, _ = ask(t, http.MethodGet, address+"/echo/", nil, "Origin", "https://page.example.org")
	if response.StatusCode != http.StatusOK || response.Header.Get("Access-Control-Allow-Origin") != "https://page.example.org" {
		t.Errorf("a request: %s, %v", response.Status, response.Header)
	}
	response, _ = ask(t, http.MethodOptions, address+"/echo/", nil, "Origin", "https://other.example.org", "Access-Control-Request-Method", "PUT")
	if response.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another origin's preflight: %s, %v", response.Status, response.Header)
	}
}
