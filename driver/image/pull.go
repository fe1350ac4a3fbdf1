package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

const (
	// pullTries is how often a layer's transfer is begun when it breaks, over all sources each time.
	pullTries = 3
	// pullPause is the wait before the second try; it doubles.
	pullPause = 250 * time.Millisecond
	// reportEvery is the least time between two reports of bytes.
	reportEvery = 250 * time.Millisecond
)

// Progress is how far a pull is. What was there already does not count.
type Progress struct {
	Layers, LayersDone int
	// Bytes are compressed ones, as they come from the registry.
	Bytes, BytesDone int64
}

// pull is one pull of an image's missing layers.
type pull struct {
	layers  *layerStore
	work    *semaphore.Weighted
	sources []source
	report  *report
	log     zerolog.Logger
}

// pull makes the image's missing layers, several at once. Those that are whole stay when others fail.
func (s *Store) pull(ctx context.Context, rec record, sources []source, tell func(Progress)) error {
	missing := make(map[string]layer) // an image may list a layer twice
	for _, l := range rec.Layers {
		if !s.layers.has(l.DiffID) {
			missing[l.DiffID] = l
		}
	}
	if len(missing) == 0 {
		return nil
	}
	p := &pull{layers: &s.layers, work: s.work, sources: sources, report: newReport(missing, tell), log: s.log}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel())
	for _, l := range missing {
		group.Go(func() error { return p.layer(ctx, l) })
	}
	return group.Wait()
}

// layer makes one layer, or waits for whoever makes it.
func (p *pull) layer(ctx context.Context, l layer) error {
	lock, err := p.layers.locks.lock(ctx, layerLock(l.DiffID), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // a lock file holds no data
	if p.layers.has(l.DiffID) {
		p.report.done(l, 0)
		return nil
	}
	if err := p.work.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait to pull layer: %w", err)
	}
	defer p.work.Release(1)
	for try := 1; ; try++ {
		err := p.fetch(ctx, l)
		if err == nil || try == pullTries || !mayPass(err) || ctx.Err() != nil {
			return err
		}
		p.log.Debug().Err(err).Str("layer", l.DiffID).Msg("pull of layer broke: trying again")
		select {
		case <-ctx.Done():
			return fmt.Errorf("pull layer: %w", context.Cause(ctx))
		case <-time.After(pullPause << (try - 1)):
		}
	}
}

func layerLock(diffID string) string { return "layer-" + diffID }

// fetch tries one source after the other.
func (p *pull) fetch(ctx context.Context, l layer) error {
	var failed []error
	for _, src := range p.sources {
		err := p.fetchFrom(ctx, src, l)
		if err == nil || errors.Is(err, unix.ENOSPC) || ctx.Err() != nil {
			return err
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

func (p *pull) fetchFrom(ctx context.Context, src source, l layer) error {
	in, err := src.open(ctx, l)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	counted := &counter{in: in, report: p.report}
	if err := p.layers.make(ctx, l, counted); err != nil {
		p.report.bytes(-counted.read)
		return err
	}
	p.report.done(l, counted.read)
	return nil
}

// mayPass tells whether another try may go better.
func mayPass(err error) bool {
	var answered *transport.Error
	if errors.As(err, &answered) {
		return answered.Temporary()
	}
	var broke net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) ||
		errors.As(err, &broke) && !errors.Is(err, os.ErrNotExist)
}

// report adds up what the layers' pulls say and passes it on.
type report struct {
	tell func(Progress)

	mu   sync.Mutex
	all  Progress
	told time.Time
}

func newReport(missing map[string]layer, tell func(Progress)) *report {
	r := &report{tell: tell, all: Progress{Layers: len(missing)}}
	for _, l := range missing {
		r.all.Bytes += l.Size
	}
	r.update(true, func(*Progress) {})
	return r
}

func (r *report) update(always bool, change func(*Progress)) {
	if r.tell == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.all)
	if !always && time.Since(r.told) < reportEvery {
		return
	}
	r.told = time.Now()
	r.tell(r.all)
}

func (r *report) bytes(n int64) { r.update(false, func(p *Progress) { p.BytesDone += n }) }

// done counts a layer in full, of which read bytes were reported: somebody else may have pulled it.
func (r *report) done(l layer, read int64) {
	r.update(true, func(p *Progress) {
		p.LayersDone++
		p.BytesDone += l.Size - read
	})
}

// counter reports what is read through it.
type counter struct {
	in     io.Reader
	report *report
	read   int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.read += int64(n)
	c.report.bytes(int64(n))
	return n, err
}
