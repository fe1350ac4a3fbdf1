package network_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/driver/network"
)

// BenchmarkTake measures what a start pays for its network, from a pool that is full.
func BenchmarkTake(b *testing.B) {
	for name, policy := range map[string]network.Policy{
		"egress": {Egress: true},
		"allow":  {Egress: true, Allow: []network.Destination{destination(b, "10.0.0.0/8:443"), destination(b, "1.1.1.1:443")}},
	} {
		b.Run(name, func(b *testing.B) {
			cfg := testConfig(b.TempDir())
			cfg.Ready = 64
			pool := open(b, cfg)
			var takes, releases []time.Duration
			for i := 0; b.Loop(); i++ {
				full(b, pool, cfg.Ready)
				start := time.Now()
				take(b, pool, fmt.Sprint(i), policy)
				takes = append(takes, time.Since(start))
				start = time.Now()
				if err := pool.Release(fmt.Sprint(i)); err != nil {
					b.Fatal(err)
				}
				releases = append(releases, time.Since(start))
			}
			report(b, "take", takes)
			report(b, "release", releases)
		})
	}
}

// BenchmarkMake measures what a start pays when none is ready.
func BenchmarkMake(b *testing.B) {
	cfg := testConfig(b.TempDir())
	cfg.Ready = 1
	pool := open(b, cfg)
	full(b, pool, 1)
	var takes []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		take(b, pool, fmt.Sprint(i), network.Policy{Egress: true})
		takes = append(takes, time.Since(start))
	}
	report(b, "take", takes)
}

func report(b *testing.B, what string, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), what+"-p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), what+"-p99-µs")
	b.ReportMetric(0, "ns/op")
}
