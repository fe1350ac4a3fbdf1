package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/freshet-dev/freshet/internal/handoff"
)

// AwaitDeserted returns nil once the agent with the given pid has ended without configuring the plugin. No other agent will know of
// it then, and the next plugin, which ends the one before it (succeed), finds no record of it: it has to end by itself.
func (d *Driver) AwaitDeserted(ctx context.Context, agent int) error {
	process, err := handoff.OpenProcess(agent)
	if err == nil {
		defer process.Close()
		err = process.Wait(ctx)
	}
	if err != nil && !errors.Is(err, handoff.ErrGone) {
		return fmt.Errorf("wait for the agent's end: %w", err)
	}
	if _, err := d.getStarter(); err != nil {
		return nil
	}
	<-ctx.Done() // the next agent, or the next plugin, finds this one
	return ctx.Err()
}
