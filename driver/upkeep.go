package driver

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// chore is something to be done now and then.
type chore struct {
	name  string
	every time.Duration
	do    func(ctx context.Context) error
}

// upkeep does the node's chores in the background.
type upkeep struct {
	log     zerolog.Logger
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// openUpkeep begins. Close it.
func openUpkeep(ctx context.Context, chores []chore, log zerolog.Logger) *upkeep {
	u := &upkeep{log: log}
	ctx, u.cancel = context.WithCancel(ctx)
	for _, c := range chores {
		u.running.Go(func() { u.keep(ctx, c) })
	}
	return u
}

// keep does one chore over and over. One that fails is tried again the next time.
func (u *upkeep) keep(ctx context.Context, c chore) {
	ticker := time.NewTicker(c.every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if err := c.do(ctx); err != nil && !errors.Is(err, context.Canceled) {
			u.log.Warn().Err(err).Str("chore", c.name).Msg("keep the node in order")
		}
	}
}

// close ends the upkeep and waits for what is being done.
func (u *upkeep) close() {
	u.cancel()
	u.running.Wait()
}
