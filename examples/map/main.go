// Command map spreads work over many workers: one function splits it and calls the other for each part.
package main

import (
	"context"
	"iter"
	"math"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
)

// Range is the numbers from From up to To.
type Range struct{ From, To int }

func main() {
	app := freshet.New("map")
	// The handle knows the types: a wrong input does not compile.
	count := freshet.Func(app, "count", countPrimes, freshet.Scale(0, 20), freshet.Concurrency(4))
	cluster := client.Inside() // no address, no token and no network
	freshet.Func(app, "primes", func(ctx context.Context, below int) (int, error) {
		sum := 0
		// Outputs come in the order of the inputs; MapUnordered gives them as they come.
		for part, err := range client.Of(cluster, count).Map(ctx, parts(below, 10_000)) {
			if err != nil {
				return 0, err
			}
			sum += part
		}
		return sum, nil
	})
	app.Main()
}

// parts are taken as there is room for them: there may be millions.
func parts(below, size int) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		for from := 2; from < below; from += size {
			if !yield(Range{from, min(from+size, below)}) {
				return
			}
		}
	}
}

func countPrimes(_ context.Context, r Range) (int, error) {
	count := 0
	for n := r.From; n < r.To; n++ {
		count++
		for d := 2; d <= int(math.Sqrt(float64(n))); d++ {
			if n%d == 0 {
				count--
				break
			}
		}
	}
	return count, nil
}
