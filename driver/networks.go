package driver

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/network"
)

// networks opens the node's pool of network namespaces when the first task needs one: a node whose functions need none keeps its
// network as it is.
type networks struct {
	config network.Config
	log    zerolog.Logger

	mu   sync.Mutex
	pool *network.Pool
}

// get opens the pool where it is not open. It lives as long as the context.
func (n *networks) get(ctx context.Context) (*network.Pool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pool != nil {
		return n.pool, nil
	}
	pool, err := network.Open(context.WithoutCancel(ctx), n.config, n.log)
	if err != nil {
		return nil, fmt.Errorf("open the node's networks: %w", err)
	}
	n.pool = pool
	return pool, nil
}

// resume opens the pool that an earlier plugin used, so that what it lent is known again.
func (n *networks) resume(ctx context.Context) error {
	if _, err := os.Stat(n.config.Dir); err != nil {
		return nil // it never had one
	}
	_, err := n.get(ctx)
	return err
}

func (n *networks) opened() *network.Pool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pool
}

func (n *networks) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pool == nil {
		return nil
	}
	return n.pool.Close()
}
