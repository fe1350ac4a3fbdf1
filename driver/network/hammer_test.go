package network_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/freshet-dev/freshet/driver/network"
)

// TestHoldsWhileRulesChange: a guest tries without pause while other sandboxes come and go, ports are published, and the whole
// table is replaced.
func TestHoldsWhileRulesChange(t *testing.T) {
	dir := t.TempDir()
	pool := open(t, testConfig(dir))
	g := start(t, "one", take(t, pool, "one", network.Policy{Egress: true}).Path)
	reach{"keep tcp " + website + ":80", masked}.check(t, g)
	stop := make(chan struct{})
	var others sync.WaitGroup
	defer func() {
		if stop != nil {
			close(stop)
			others.Wait()
		}
	}()
	for worker := range 2 {
		others.Go(func() {
			for round := 0; ; round++ {
				select {
				case <-stop:
					return
				default:
				}
				task := fmt.Sprintf("other/%d/%d", worker, round)
				if _, err := pool.Take(t.Context(), task, network.Policy{Egress: true, Allow: []network.Destination{destination(t, database+"/32:443")}}); err != nil {
					t.Error(err)
					return
				}
				if err := pool.Publish(task, []network.Port{{HostPort: uint16(9000 + worker), Port: 80}}); err != nil {
					t.Error(err)
				}
				if err := pool.Release(task); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for round := range 40 {
		for _, r := range []reach{
			{"tcp " + website + ":80", masked},
			{"tcp " + database + ":443", refused},
			{"tcp " + nats + ":4222", refused},
			{"udp " + metadata + ":80", refused},
			{"talk tcp", masked},
		} {
			r.check(t, g)
		}
		if round == 20 {
			close(stop)
			others.Wait()
			stop = nil
			// The next pool replaces the table under the running guest.
			if err := pool.Close(); err != nil {
				t.Fatal(err)
			}
			pool = open(t, testConfig(dir))
		}
	}
	// What is released ends, connections too.
	if err := pool.Release("one"); err != nil {
		t.Fatal(err)
	}
	for _, try := range []string{"talk tcp", "tcp " + website + ":80"} {
		if got := g.do(try); !strings.HasPrefix(got, "error") {
			t.Errorf("after the release, %s: %q", try, got)
		}
	}
}

// TestReleasedConnectionsAreForgotten: who gets the address next must not get what is still under way to the one before.
func TestReleasedConnectionsAreForgotten(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	ns := take(t, pool, "one", network.Policy{Egress: true})
	g := start(t, "one", ns.Path)
	reach{"keep udp " + website + ":80", masked}.check(t, g)
	reach{"listen :80", "listening"}.check(t, g)
	wantCall(t, "tcp", ns.Address.String()+":80", "guest")
	if count := tracked(t, ns.Address); count != 2 {
		t.Fatalf("%d connections of the sandbox are tracked, want 2", count)
	}
	if err := pool.Release("one"); err != nil {
		t.Fatal(err)
	}
	if count := tracked(t, ns.Address); count != 0 {
		t.Errorf("%d connections of the sandbox are tracked after its end", count)
	}
}

// tracked counts the connections of an address that the kernel knows.
func tracked(t *testing.T, addr netip.Addr) int {
	t.Helper()
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, flow := range flows {
		if addr.Compare(unmapped(flow.Forward.SrcIP)) == 0 || addr.Compare(unmapped(flow.Reverse.SrcIP)) == 0 {
			count++
		}
	}
	return count
}

func unmapped(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
