package network_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/driver/network"
	"github.com/freshet-dev/freshet/sdk/spec"
)

func TestPublishedPorts(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	ns := take(t, pool, "one", network.Policy{}) // without egress: answers go out all the same
	g := start(t, "one", ns.Path)
	for _, line := range []string{"listen :80", "listenudp :80"} {
		reach{line, "listening"}.check(t, g)
	}
	publish := func(ports ...network.Port) {
		t.Helper()
		if err := pool.Publish("one", ports); err != nil {
			t.Fatal(err)
		}
	}
	publish(
		network.Port{HostPort: 8080, Port: 80},
		network.Port{HostPort: 8080, Port: 80, UDP: true},
		network.Port{HostIP: netip.MustParseAddr(hostAddress), HostPort: 8081, Port: 80},
	)
	for address, want := range map[string]string{
		"127.0.0.1:8080":              "saw 192.0.0.1",
		"127.8.9.10:8080":             "saw 192.0.0.1",
		hostAddress + ":8080":         "saw " + hostAddress,
		hostAddress + ":8081":         "saw " + hostAddress,
		"127.0.0.1:8081":              "",
		"127.0.0.1:80":                "",
		ns.Address.String() + ":8080": "",
	} {
		wantCall(t, "tcp", address, want)
	}
	wantCall(t, "udp", "127.0.0.1:8080", "saw 192.0.0.1")
	wantCall(t, "udp", hostAddress+":8080", "saw "+hostAddress)
	beyond(t, func() error {
		wantCall(t, "tcp", hostAddress+":8080", "saw "+router) // whoever calls is seen as he is
		wantCall(t, "udp", hostAddress+":8080", "saw "+router)
		wantCall(t, "tcp", hostAddress+":8081", "saw "+router)
		wantCall(t, "tcp", hostAddress+":80", "")
		return nil
	})

	publish(network.Port{HostPort: 8082, Port: 80})
	wantCall(t, "tcp", "127.0.0.1:8082", "saw 192.0.0.1")
	wantCall(t, "tcp", hostAddress+":8081", "")
	publish(network.Port{HostPort: 8082, Port: 81})
	wantCall(t, "tcp", "127.0.0.1:8082", "")
	publish()
	wantCall(t, "tcp", "127.0.0.1:8082", "")
}

// wantCall calls an address and compares; no answer is wanted where the answer is empty.
func wantCall(t *testing.T, protocol, address, want string) {
	t.Helper()
	got, err := call(t.Context(), protocol, address)
	switch {
	case want == "" && err == nil:
		t.Errorf("%s %s: %q, want no answer", protocol, address, got)
	case want != "" && (err != nil || !strings.Contains(got, want)):
		t.Errorf("%s %s: %q, %v, want %q", protocol, address, got, err, want)
	}
}

func TestPortsThatCannotBe(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	take(t, pool, "one", network.Policy{})
	take(t, pool, "two", network.Policy{})
	if err := pool.Publish("one", []network.Port{{HostPort: 8080, Port: 80}}); err != nil {
		t.Fatal(err)
	}
	for want, ports := range map[string][]network.Port{
		"ports[0]":           {{HostPort: 8080, Port: 81}},
		"ports[0].host_port": {{Port: 80}},
		"ports[0].port":      {{HostPort: 80}},
		"ports[0].host_ip":   {{HostIP: netip.MustParseAddr("::1"), HostPort: 80, Port: 80}},
		"ports[1].host_port": {{HostPort: 80, Port: 80}, {HostPort: 80, Port: 81}},
	} {
		var field spec.FieldError
		if err := pool.Publish("two", ports); !errors.As(err, &field) || field.Field != want {
			t.Errorf("%v: %v, want an error of %s", ports, err, want)
		}
	}
	if err := pool.Publish("two", []network.Port{{HostPort: 8080, Port: 80, UDP: true}}); err != nil {
		t.Errorf("the same port of another protocol: %v", err)
	}
}
