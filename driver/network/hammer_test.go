package network_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

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
