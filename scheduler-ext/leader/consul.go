package leader

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/oklog/ulid/v2"
	"github.com/rs/zerolog"
)

// What the instances have in Consul: the key that is locked, and the service whose check each session lives by.
const (
	consulKey     = "freshet/autoscaler/leader"
	consulService = "freshet-autoscaler"
)

// Pace of the lock. A session with a TTL of its own could not be shorter than ten seconds, one that depends on a check can.
const (
	// consulCheck is how long the check passes without a renewal.
	consulCheck = 1200 * time.Millisecond
	// consulHold is how long a holder acts after a renewal. Consul keeps as long a pause after a session that broke, as it does
	// at once when gossip says that a node failed: nobody else acts before this holder stopped.
	consulHold = consulCheck * 3 / 4
	// consulEvery is how often the holder renews, and how often others try.
	consulEvery = consulCheck / 8
	// consulLeft is after what time Consul forgets the service of an instance that died; a minute is the least.
	consulLeft = "1m"
)

// Consul holds a session's lock in Consul whenever nobody else does. NewConsul makes it, Open starts it, Close gives the lock back.
type Consul struct {
	client *api.Client
	name   string
	// id is that of the service. Each process has its own: one that follows a killed one must not keep its session alive.
	id  string
	log zerolog.Logger

	cancel  context.CancelFunc
	running sync.WaitGroup
	tenure

	// What follows belongs to run: the present session, empty for none, and whether it has the lock.
	session string
	holds   bool
}

// NewConsul makes an elector and starts nothing. The name tells this instance from others, for people.
func NewConsul(client *api.Client, name string, log zerolog.Logger) *Consul {
	return &Consul{client: client, name: name, id: consulService + "-" + ulid.Make().String(), log: log, tenure: newTenure(consulHold)}
}

// Open begins to try for the lock and does not wait for Consul. It never fails. Close it.
func (c *Consul) Open(ctx context.Context) error {
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.running.Go(func() { c.run(ctx) })
	return nil
}

// Close gives the lock back, so that another instance acts at once.
func (c *Consul) Close() {
	c.cancel()
	c.running.Wait()
}

func (c *Consul) run(ctx context.Context) {
	defer c.giveBack(context.WithoutCancel(ctx))
	ticker := time.NewTicker(consulEvery)
	defer ticker.Stop()
	for {
		if err := c.try(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn().Err(err).Msg("get or renew the autoscaler's lock; trying again")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// try keeps the session alive and the lock held. A request that failed may have arrived: the next one tells.
func (c *Consul) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, consulHold)
	defer cancel()
	began := time.Now()
	query, write := (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx), (&api.WriteOptions{}).WithContext(ctx)
	if err := c.live(query, write); err != nil {
		return err
	}
	if !c.holds {
		got, _, err := c.client.KV().Acquire(&api.KVPair{Key: consulKey, Value: []byte(c.name), Session: c.session}, write)
		if err != nil {
			return fmt.Errorf("acquire lock: %w", err)
		}
		if !got {
			return nil // another instance has it
		}
	}
	pair, _, err := c.client.KV().Get(consulKey, query)
	if err != nil {
		return fmt.Errorf("read lock: %w", err)
	}
	switch {
	case pair == nil || pair.Session != c.session:
		c.holds = false
		c.lose()
		c.log.Warn().Msg("another autoscaler may act")
	case c.holds:
		c.renew(began)
	default:
		c.holds = true
		c.hold(pair.ModifyIndex, began)
		c.log.Info().Uint64("lease", pair.ModifyIndex).Msg("this autoscaler acts")
	}
	return nil
}

// live keeps the check passing that the session depends on, and makes both where they are missing.
func (c *Consul) live(query *api.QueryOptions, write *api.WriteOptions) error {
	agent, check := c.client.Agent(), "service:"+c.id
	if agent.UpdateTTLOpts(check, c.name, api.HealthPassing, query) != nil { // the agent does not know it, or not any more
		service := &api.AgentServiceRegistration{
			ID: c.id, Name: consulService,
			Check: &api.AgentServiceCheck{TTL: consulCheck.String(), Status: api.HealthPassing, DeregisterCriticalServiceAfter: consulLeft},
		}
		if err := agent.ServiceRegisterOpts(service, api.ServiceRegisterOpts{}.WithContext(query.Context())); err != nil {
			return fmt.Errorf("register with Consul: %w", err)
		}
	}
	if c.holds {
		return nil // the lock says whether the session lives
	}
	if c.session != "" {
		session, _, err := c.client.Session().Info(c.session, query)
		if err != nil {
			return fmt.Errorf("read session: %w", err)
		}
		if session != nil {
			return nil
		}
		c.session = ""
	}
	entry := &api.SessionEntry{Name: consulService + " " + c.name, LockDelay: consulHold, ServiceChecks: []api.ServiceCheck{{ID: check}}}
	session, _, err := c.client.Session().Create(entry, write)
	if err != nil {
		return fmt.Errorf("make session: %w", err)
	}
	c.session = session
	return nil
}

// giveBack releases the lock before its session ends, which would bring on Consul's pause.
func (c *Consul) giveBack(ctx context.Context) {
	c.lose()
	ctx, cancel := context.WithTimeout(ctx, consulCheck)
	defer cancel()
	write := (&api.WriteOptions{}).WithContext(ctx)
	if c.session != "" {
		if _, _, err := c.client.KV().Release(&api.KVPair{Key: consulKey, Session: c.session}, write); err != nil {
			c.log.Warn().Err(err).Msg("give the autoscaler's lock back; it ends with its session")
		}
	}
	// Its check goes with the service, and the session with the check.
	if err := c.client.Agent().ServiceDeregisterOpts(c.id, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		c.log.Warn().Err(err).Msg("leave Consul; it notices")
	}
}
