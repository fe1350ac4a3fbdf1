package network_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/driver/network"
)

// reach is what a guest tries and what must come of it.
type reach struct {
	try  string
	want string // the beginning of the answer, or a part of it after "…"
}

func (r reach) check(t *testing.T, g *guest) {
	t.Helper()
	got := g.do(r.try)
	if part, ok := strings.CutPrefix(r.want, "…"); ok && strings.Contains(got, part) && !strings.Contains(got, "(slow)") {
		return
	}
	if !strings.HasPrefix(got, r.want) || strings.Contains(got, "(slow)") {
		t.Errorf("%s: %q, want %q", r.try, got, r.want)
	}
}

const (
	masked   = "saw " + hostAddress // reached, and NAT hid the guest
	refused  = "…refused"           // at once
	silent   = "silence"            // dropped
	filtered = "icmp type 3 code 3"
	echoed   = "icmp type 0 code 0"
)

func TestEgressReachesTheWorldAndNothingElse(t *testing.T) {
	host, err := serve(":4646")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	pool := open(t, testConfig(t.TempDir()))
	ns := take(t, pool, "one", network.Policy{Egress: true})
	other := take(t, pool, "other", network.Policy{Egress: true})
	if len(ns.Resolvers) != 1 || ns.Resolvers[0] != netip.MustParseAddr(resolver) {
		t.Errorf("resolvers %v, want %s", ns.Resolvers, resolver)
	}
	neighbour := start(t, "other", other.Path)
	if got := neighbour.do("listen :80"); got != "listening" {
		t.Fatal(got)
	}
	if err := pool.Publish("other", []network.Port{{HostPort: 8080, Port: 80}}); err != nil {
		t.Fatal(err)
	}
	g := start(t, "one", ns.Path)
	for _, r := range []reach{
		{"addresses", "lo=127.0.0.1/8"},
		{"addresses", "…eth0=192.0.0.2/30"},
		{"tcp " + website + ":80", masked},
		{"udp " + website + ":80", masked},
		{"ping " + website, echoed},
		{"tcp " + website + ":81", refused}, // by the website: nobody listens
		{"udp " + website + ":81", refused},
		{"tcp " + resolver + ":53", masked},
		{"udp " + resolver + ":53", masked},
		{"tcp " + resolver + ":80", refused},
		{"ping " + resolver, filtered},
		{"tcp " + database + ":443", refused},
		{"tcp " + nats + ":4222", refused},
		{"udp " + nats + ":4222", refused},
		{"ping " + nats, filtered},
		{"tcp " + website + ":4222", refused},
		{"tcp " + metadata + ":80", refused},
		{"tcp " + azure + ":80", refused},
		{"ping " + metadata, filtered},
		{"tcp " + hostAddress + ":4646", refused},
		{"udp " + hostAddress + ":4646", refused},
		{"ping " + hostAddress, filtered},
		{"tcp " + hostAddress + ":8080", refused}, // a published port is no way to a neighbour
		{"tcp 192.0.0.1:4646", refused},
		{"tcp " + other.Address.String() + ":80", refused},
		{"tcp " + ns.Address.String() + ":80", refused},
		{"ping " + other.Address.String(), filtered},
		{"spoof " + website + " " + hostAddress, silent},
		{"spoof " + website + " " + other.Address.String(), silent},
		{"spoof " + website + " " + ns.Address.String(), silent},
		{"spoof " + hostAddress + " 127.0.0.1", silent},
		{"spoof " + website + " 192.0.0.2", echoed}, // not spoofed: the raw socket works
	} {
		r.check(t, g)
	}
	// The kernel answers neither multicast nor what it does not know.
	for _, try := range []string{"udp 224.0.0.1:80", "udp 255.255.255.255:80", "protocol " + website} {
		if got := g.do(try); !strings.HasPrefix(got, "error") {
			t.Errorf("%s: %q, want an error", try, got)
		}
	}
}

// TestMuchGoesThrough sends what the kernel and gVisor make large packets of, whose sums are made after the rewriting.
func TestMuchGoesThrough(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	g := start(t, "one", take(t, pool, "one", network.Policy{Egress: true}).Path)
	if got := g.do("bulk " + website + ":80"); !strings.HasPrefix(got, "200000 of 200000") {
		t.Error(got)
	}
}

func TestAllowListIsAllThereIs(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	ns := take(t, pool, "one", network.Policy{Egress: true, Allow: []network.Destination{
		destination(t, database+"/32:443"), destination(t, nats+"/32"), destination(t, hostAddress+"/32"), destination(t, "169.254.0.0/16"),
	}})
	if len(ns.Resolvers) != 0 {
		t.Errorf("resolvers %v, want none: the list does not name them", ns.Resolvers)
	}
	g := start(t, "one", ns.Path)
	for _, r := range []reach{
		{"tcp " + database + ":443", masked},
		{"udp " + database + ":443", masked},
		{"tcp " + database + ":80", refused},
		{"ping " + database, filtered},
		{"tcp " + website + ":80", refused},
		{"udp " + resolver + ":53", refused},
		{"tcp " + nats + ":4222", refused}, // denied whatever is allowed
		{"tcp " + hostAddress + ":4646", refused},
		{"tcp " + metadata + ":80", refused},
	} {
		r.check(t, g)
	}

	named := take(t, pool, "two", network.Policy{Egress: true, Allow: []network.Destination{destination(t, "10.0.0.0/24:53")}})
	if len(named.Resolvers) != 1 {
		t.Errorf("resolvers %v, want the one that the list names", named.Resolvers)
	}
	reach{"udp " + resolver + ":53", masked}.check(t, start(t, "two", named.Path))
}

func TestWithoutEgressOnlyAnswers(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	ns := take(t, pool, "one", network.Policy{})
	g := start(t, "one", ns.Path)
	for _, r := range []reach{
		{"tcp " + website + ":80", refused},
		{"udp " + resolver + ":53", refused},
		{"ping " + website, filtered},
		{"listen :80", "listening"},
		{"listenudp :80", "listening"},
	} {
		r.check(t, g)
	}
	for _, protocol := range []string{"tcp", "udp"} {
		got, err := call(t.Context(), protocol, ns.Address.String()+":80")
		if err != nil || !strings.Contains(got, "saw 192.0.0.1") {
			t.Errorf("%s from the host: %q, %v", protocol, got, err)
		}
		if _, err := call(t.Context(), protocol, ns.Address.String()+":81"); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s to a port that nobody listens on: %v, want a refusal", protocol, err)
		}
	}
	// Who is not the host does not get in, even where he knows the address and the host forwards.
	beyond(t, func() error {
		link, err := netlinkUplink()
		if err != nil {
			return err
		}
		return link.routeTo(ns.Address)
	})
	beyond(t, func() error {
		if got, err := call(t.Context(), "tcp", ns.Address.String()+":80"); err == nil {
			t.Errorf("from outside: %q, want no connection", got)
		}
		return nil
	})
}
