package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Errors that callers decide by.
var (
	// ErrNotTaken says that the task has no namespace; take one first.
	ErrNotTaken = errors.New("task has no network namespace")

	errClosed = errors.New("the pool is closed")
)

// retryRefill is the pause after a namespace could not be made ahead.
const retryRefill = 5 * time.Second

// Pool makes namespaces ahead and keeps those in use. Its methods may be called by several goroutines.
type Pool struct {
	cfg       Config
	log       zerolog.Logger
	host      *netlink.Handle
	held      net.Listener // of the name
	rules     *rules
	resolvers []netip.Addr
	ledger    ledger

	cancel context.CancelFunc
	busy   sync.WaitGroup // the refill, and all that goes on without the lock
	low    chan struct{}  // holds one when namespaces are wanted

	mu      sync.Mutex
	closed  bool
	pending int        // numbers that are being made or removed
	settled *sync.Cond // one of them is done
	numbers numbers
	ready   []space
	leases  map[string]*lease
}

// Open opens the pool, finds what is in use since the pool before, removes what is not, and begins to make namespaces ahead.
// It needs root.
func Open(ctx context.Context, cfg Config, log zerolog.Logger) (*Pool, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	resolvers := cfg.Resolvers
	if resolvers == nil {
		if resolvers, err = hostResolvers(); err != nil {
			return nil, err
		}
		if len(resolvers) == 0 {
			log.Warn().Msg("the host has no name server off its loopback: guests resolve no names until network.resolvers is set")
		}
	}
	held, err := claim(ctx, cfg.Name)
	if err != nil {
		return nil, err
	}
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink: %w", err), held.Close())
	}
	p := &Pool{
		cfg: cfg, log: log, host: host, held: held, rules: newRules(cfg, resolvers), resolvers: resolvers,
		ledger: ledger{dir: cfg.Dir, log: log}, low: make(chan struct{}, 1), leases: make(map[string]*lease),
	}
	p.settled = sync.NewCond(&p.mu)
	p.numbers = numbers{within: cfg.Range, links: p.rules.prefix, dir: p.ledger.spaces(), taken: make(map[int]bool)}
	if err := p.recover(); err != nil {
		host.Close()
		return nil, errors.Join(err, held.Close())
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	p.busy.Go(func() { p.refill(background) })
	return p, nil
}

// recover brings files, namespaces, interfaces and rules to agree.
func (p *Pool) recover() error {
	if err := p.checkRange(); err != nil {
		return err
	}
	if p.cfg.MTU == 0 {
		mtu, err := defaultMTUOf(p.host)
		if err != nil {
			return err
		}
		p.cfg.MTU = mtu
	}
	if err := p.ledger.open(); err != nil {
		return err
	}
	leases, err := p.ledger.read()
	if err != nil {
		return err
	}
	for _, l := range leases {
		l.space = p.numbers.space(l.Number)
		if l.space.addr != l.Address || !l.space.whole(p.host) {
			p.log.Warn().Str("task", l.Task).Stringer("address", l.Address).Msg("a task's network is gone: the host was started again, or the range is another one")
			if err := p.ledger.erase(l); err != nil {
				return err
			}
			continue // what is left of it is a stray
		}
		p.leases[l.Task] = l
		p.numbers.take(l.Number)
	}
	if err := p.removeStrays(); err != nil {
		return err
	}
	changed, err := forward()
	if err != nil {
		return err
	}
	if changed {
		p.log.Info().Msg("turned net.ipv4.ip_forward on, for sandboxes' way out")
	}
	return p.installLocked()
}

// removeStrays removes the namespaces and interfaces that no lease names: those made ahead, and halves of what was being made.
func (p *Pool) removeStrays() error {
	strays := make(map[int]bool)
	add := func(name string) {
		if number, err := strconv.Atoi(name); err == nil && !p.numbers.taken[number] {
			strays[number] = true
		}
	}
	entries, err := os.ReadDir(p.ledger.spaces())
	if err != nil {
		return fmt.Errorf("list namespaces: %w", err)
	}
	for _, entry := range entries {
		add(entry.Name())
	}
	links, err := p.host.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		if number, ours := strings.CutPrefix(link.Attrs().Name, p.rules.prefix); ours {
			add(number)
		}
	}
	for number := range strays {
		if err := p.numbers.space(number).remove(p.host); err != nil {
			return err
		}
	}
	return nil
}

// installLocked replaces the whole table by what is known here.
func (p *Pool) installLocked() error {
	leases := make([]*lease, 0, len(p.leases))
	for _, l := range p.leases {
		leases = append(leases, l)
	}
	return p.rules.install(p.ready, leases)
}

// changeLocked changes the table. Where that fails, somebody else has changed it: then it is replaced as a whole by what is
// known here, which the caller has brought up to date before.
func (p *Pool) changeLocked(collect func(*transaction)) error {
	err := p.rules.change(collect)
	if err == nil {
		return nil
	}
	if again := p.installLocked(); again != nil {
		return errors.Join(err, again)
	}
	p.log.Warn().Err(err).Str("table", p.rules.table.Name).Msg("the table was changed by somebody else: replaced it")
	return nil
}

// refill keeps the wanted number ready, until the context ends.
func (p *Pool) refill(ctx context.Context) {
	retry := time.NewTimer(retryRefill)
	retry.Stop()
	defer retry.Stop()
	for {
		if err := p.fill(ctx); err != nil {
			p.log.Error().Err(err).Msg("make network namespace ahead")
			retry.Reset(retryRefill)
		}
		select {
		case <-ctx.Done():
			return
		case <-p.low:
		case <-retry.C:
		}
	}
}

func (p *Pool) fill(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ctx.Err() == nil && !p.closed && len(p.ready) < p.cfg.Ready {
		if err := p.addLocked(); err != nil {
			return err
		}
	}
	return nil
}

// aside does without the lock what takes its time and concerns a number that nobody else has.
func (p *Pool) aside(do func() error) error {
	p.busy.Add(1)
	p.pending++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.pending--
		p.settled.Broadcast()
		p.busy.Done()
	}()
	return do()
}

// addLocked makes one more namespace ready. It lets go of the lock while it makes it.
func (p *Pool) addLocked() error {
	if p.closed {
		return errClosed
	}
	s, err := p.numbers.next()
	for err != nil && p.pending > 0 {
		p.settled.Wait()
		if len(p.ready) > 0 {
			return nil
		}
		s, err = p.numbers.next()
	}
	if err != nil {
		return err
	}
	err = p.aside(func() error { return s.make(p.host, p.cfg.MTU) })
	if err != nil {
		delete(p.numbers.taken, s.number)
		return err
	}
	p.ready = append(p.ready, s)
	return p.changeLocked(func(t *transaction) { t.addSpace(s) })
}

func (p *Pool) wantMore() {
	select {
	case p.low <- struct{}{}:
	default: // it is wanted already
	}
}
