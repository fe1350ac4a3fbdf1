package network_test

import (
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/driver/network"
)

// TestThawedElsewhere: a guest frozen in one namespace goes on in another one. What listens goes on listening, also on the
// guest's own address, and what was connected is cut.
func TestThawedElsewhere(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	policy := network.Policy{Egress: true}
	home, abroad := take(t, pool, "frozen", policy), take(t, pool, "thawed", policy)
	frozen := start(t, "frozen", home.Path)
	for _, r := range []reach{
		{"listen :80", "listening"},
		{"listen 192.0.0.2:81", "listening"},
		{"listenudp :80", "listening"},
		{"keep tcp " + website + ":80", masked},
		{"keep udp " + website + ":80", masked},
	} {
		r.check(t, frozen)
	}
	image := t.TempDir()
	if out, err := runsc(t, frozen.state, "checkpoint", "--image-path", image, "--leave-running", "frozen").CombinedOutput(); err != nil {
		t.Fatalf("checkpoint: %v\n%s", err, out)
	}
	thawed := start(t, "thawed", abroad.Path, "restore", "--image-path", image)
	reach{"addresses", "…eth0=192.0.0.2/30"}.check(t, thawed) // once it answers, it is there
	for _, place := range []network.Namespace{home, abroad} {
		for _, listening := range []struct{ protocol, port string }{{"tcp", ":80"}, {"tcp", ":81"}, {"udp", ":80"}} {
			got, err := call(t.Context(), listening.protocol, place.Address.String()+listening.port)
			if err != nil || !strings.Contains(got, "saw 192.0.0.1") {
				t.Errorf("%s %s%s: %q, %v", listening.protocol, place.Address, listening.port, got, err)
			}
		}
	}
	if got := thawed.do("talk tcp"); !strings.HasPrefix(got, "error") || strings.Contains(got, "(slow)") {
		t.Errorf("the thawed guest's old connection: %q, want an error at once", got)
	}
	for _, r := range []reach{
		{"talk udp", masked}, // nothing was connected there
		{"tcp " + website + ":80", masked},
		{"tcp " + metadata + ":80", refused},
	} {
		r.check(t, thawed)
	}
	reach{"talk tcp", masked}.check(t, frozen)

	// A restore that failed is followed by a cold start in the same namespace, whose address a sandbox has taken away.
	if out, err := runsc(t, thawed.state, "kill", "thawed", "KILL").CombinedOutput(); err != nil {
		t.Fatalf("kill: %v\n%s", err, out)
	}
	thawed.ended()
	if err := network.Prepare(abroad.Path); err != nil {
		t.Fatal(err)
	}
	reach{"tcp " + website + ":80", masked}.check(t, start(t, "cold", abroad.Path))
}
