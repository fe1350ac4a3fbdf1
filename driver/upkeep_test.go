package driver

import (
	"context"
	"errors"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// sleeper starts a process that only waits.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("tail", "-f", "/dev/null")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended where all went well
	return cmd
}

// TestChoresAreDoneAgainAndEnd: one that fails does not keep the others from being done, and none outlives the upkeep.
func TestChoresAreDoneAgainAndEnd(t *testing.T) {
	var failing, other, inside atomic.Int64
	u := openUpkeep(t.Context(), []chore{
		{"failing", time.Millisecond, func(context.Context) error { failing.Add(1); return errors.New("no") }},
		{"other", time.Millisecond, func(ctx context.Context) error {
			inside.Add(1)
			defer inside.Add(-1)
			if other.Add(1) > 3 {
				<-ctx.Done()
			}
			return ctx.Err()
		}},
	}, zerolog.Nop())
	eventually.True(t, "chores are done again", func() bool { return failing.Load() > 3 && other.Load() > 3 })
	u.close()
	if inside.Load() != 0 {
		t.Error("a chore runs on after the end")
	}
}
