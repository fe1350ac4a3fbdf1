package autoscaler

import (
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
)

// TestWhyIsAsThePageShows: what docs/autoscaling.md shows is what the command prints in such a case, but for the numbers.
func TestWhyIsAsThePageShows(t *testing.T) {
	page, err := os.ReadFile("../../docs/autoscaling.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(page), "\n```text\n")
	shown, _, ended := strings.Cut(after, "```\n")
	if !found || !ended {
		t.Fatal("the page shows nothing")
	}
	shown = strings.ReplaceAll(shown, "gosearch.search", "scaled.d")
	number := regexp.MustCompile(`[0-9.]+(ms|s)?\b`)
	masked := func(text string) string { return number.ReplaceAllString(text, "N") }
	c := client.New(shared.state.Gateway())
	var calls sync.WaitGroup
	for range 18 {
		calls.Go(func() {
			for range 4 { // what a call takes is known better after some
				if _, err := wait(t.Context(), c, "d", time.Second); err != nil {
					t.Error(err)
				}
			}
		})
	}
	printed := ""
	eventually.True(t, "the command prints what the page shows", func() bool {
		if printed, err = shared.freshet("scale", "why", "scaled.d"); err != nil {
			t.Fatalf("%v: %s", err, printed)
		}
		return masked(printed) == masked(shown) && strings.Contains(printed, "sees    18 calls")
	})
	calls.Wait()
	t.Logf("printed:\n%s", printed)
}
