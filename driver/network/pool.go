package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/sdk/spec"
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

	cancel context.CancelFunc
	busy   sync.WaitGroup // the refill, and all that goes on without the lock
	low    chan struct{}  // holds one when namespaces are wanted

	mu     sync.Mutex
	closed bool
	last   int // number given last: the next one is as far from reuse as can be
	taken  map[int]bool
	ready  []space
	leases map[string]*lease
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
		low: make(chan struct{}, 1), taken: make(map[int]bool), leases: make(map[string]*lease),
	}
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
	for _, dir := range []string{p.spacesDir(), p.leasesDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make pool's directory: %w", err)
		}
	}
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
	if err := p.mountSpaces(); err != nil {
		return err
	}
	leases, err := p.read()
	if err != nil {
		return err
	}
	for _, l := range leases {
		if !l.space.whole(p.host) {
			p.log.Info().Str("task", l.Task).Msg("a task's namespace is gone, with the task: forget it")
			if err := errors.Join(l.space.remove(p.host), p.erase(l)); err != nil {
				return err
			}
			continue
		}
		p.leases[l.Task], p.taken[l.Number], p.last = l, true, max(p.last, l.Number)
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
		if number, err := strconv.Atoi(name); err == nil && !p.taken[number] {
			strays[number] = true
		}
	}
	entries, err := os.ReadDir(p.spacesDir())
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
		if err := p.space(number).remove(p.host); err != nil {
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

// holds tells whether a number is one of the range: neither its first, which names the network, nor its last.
func (p *Pool) holds(number int) bool { return number >= 1 && number < p.size() }

func (p *Pool) size() int { return 1<<(32-p.cfg.Range.Bits()) - 1 }

// nextLocked reserves a number.
func (p *Pool) nextLocked() (space, error) {
	for range p.size() {
		p.last++
		if !p.holds(p.last) {
			p.last = 1
		}
		if !p.taken[p.last] {
			p.taken[p.last] = true
			return p.space(p.last), nil
		}
	}
	return space{}, spec.FieldError{Field: "network.range", Value: p.cfg.Range.String(), Mend: "all its addresses are in use: choose a larger range"}
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

// addLocked makes one more namespace ready. It lets go of the lock while it makes it.
func (p *Pool) addLocked() error {
	if p.closed {
		return errClosed
	}
	s, err := p.nextLocked()
	if err != nil {
		return err
	}
	p.busy.Add(1)
	defer p.busy.Done()
	p.mu.Unlock()
	err = s.make(p.host, p.cfg.MTU)
	p.mu.Lock()
	if err != nil {
		delete(p.taken, s.number)
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

// Ready is the number of namespaces that wait to be taken.
func (p *Pool) Ready() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

// Take gives the task a namespace with the policy in force. Taken again, with the same policy, it is the same one: whoever
// died after it was taken asks again. It is written down first, and stays the task's until Release or Sweep.
func (p *Pool) Take(ctx context.Context, task string, policy Policy) (Namespace, error) {
	fail := func(err error) (Namespace, error) {
		return Namespace{}, fmt.Errorf("take network namespace for %q: %w", task, err)
	}
	if task == "" {
		return fail(errors.New("name the task"))
	}
	defer p.wantMore()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		if p.closed {
			return fail(errClosed)
		}
		if l := p.leases[task]; l != nil && !l.Policy.equal(policy) {
			return fail(errors.New("it has one with another policy: release it first"))
		} else if l != nil {
			return p.namespace(l), nil
		}
		if len(p.ready) > 0 {
			break
		}
		if err := p.addLocked(); err != nil {
			return fail(err)
		}
	}
	l := &lease{Task: task, Number: p.ready[0].number, Policy: policy, space: p.ready[0]}
	if err := p.write(l); err != nil {
		return fail(err)
	}
	p.ready = p.ready[1:]
	p.leases[task] = l
	if err := p.changeLocked(func(t *transaction) { t.grant(l) }); err != nil {
		return fail(err) // Release or Sweep frees it
	}
	return p.namespace(l), nil
}

func (p *Pool) namespace(l *lease) Namespace {
	return Namespace{Path: l.space.path, Address: l.space.addr, Resolvers: l.Policy.resolvers(p.resolvers)}
}

// Find is the namespace that the task has; ErrNotTaken when it has none.
func (p *Pool) Find(task string) (Namespace, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.leases[task]
	if l == nil {
		return Namespace{}, fmt.Errorf("find network namespace for %q: %w", task, ErrNotTaken)
	}
	return p.namespace(l), nil
}

// Publish makes ports of the host lead to the task's sandbox, from outside and from the host itself, in place of those
// published before. What listens on such a port of the host is no longer reached by it.
func (p *Pool) Publish(task string, ports []Port) error {
	if err := validatePorts(ports); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.leases[task]
	if l == nil {
		return fmt.Errorf("publish ports of %q: %w", task, ErrNotTaken)
	}
	if p.closed {
		return fmt.Errorf("publish ports of %q: %w", task, errClosed)
	}
	if err := p.checkFree(l, ports); err != nil {
		return err
	}
	if slices.ContainsFunc(ports, Port.reachesLoopback) {
		if err := set("ipv4/conf/"+l.space.link+"/route_localnet", "1"); err != nil {
			return fmt.Errorf("publish ports of %q: %w", task, err)
		}
	}
	before := l.Ports
	l.Ports = slices.Clone(ports)
	if err := p.write(l); err != nil {
		l.Ports = before
		return fmt.Errorf("publish ports of %q: %w", task, err)
	}
	err := p.changeLocked(func(t *transaction) {
		t.unpublish(l.space, without(before, ports))
		t.publish(l.space, without(ports, before))
	})
	if err != nil {
		return fmt.Errorf("publish ports of %q: %w", task, err)
	}
	return nil
}

// without are the ports of one list that the other does not have.
func without(ports, others []Port) []Port {
	return slices.DeleteFunc(slices.Clone(ports), func(p Port) bool { return slices.Contains(others, p) })
}

// checkFree tells when another task has one of the ports.
func (p *Pool) checkFree(own *lease, ports []Port) error {
	for i, port := range ports {
		for _, l := range p.leases {
			if l != own && slices.ContainsFunc(l.Ports, port.same) {
				return spec.FieldError{Field: fmt.Sprintf("ports[%d]", i), Value: port.String(), Mend: fmt.Sprintf("task %s has it: use another", l.Task)}
			}
		}
	}
	return nil
}

// Release ends what the task's sandbox may reach, and its connections, and removes its namespace. A task without one is no
// error. When it fails, the namespace is still the task's; try again, or Sweep.
func (p *Pool) Release(task string) error {
	p.mu.Lock()
	l := p.leases[task]
	if l == nil {
		p.mu.Unlock()
		return nil
	}
	if p.closed {
		p.mu.Unlock()
		return fmt.Errorf("release network namespace of %q: %w", task, errClosed)
	}
	p.busy.Add(1)
	defer p.busy.Done()
	delete(p.leases, task)
	err := p.changeLocked(func(t *transaction) {
		t.unpublish(l.space, l.Ports)
		t.revoke(l)
		t.removeSpace(l.space)
	})
	p.mu.Unlock()
	// The rest takes its time, and others need not wait: nobody gets the number before it is done.
	err = errors.Join(err, l.space.remove(p.host), l.space.forget(p.host))
	if err == nil {
		err = p.erase(l)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.leases[task] = l
		return fmt.Errorf("release network namespace of %q: %w", task, err)
	}
	delete(p.taken, l.Number)
	return nil
}

// Sweep releases what belongs to none of the live tasks, and puts the table back where somebody has removed it: without it,
// sandboxes reach nothing at all.
func (p *Pool) Sweep(live []string) error {
	p.mu.Lock()
	var dead []string
	for task := range p.leases {
		if !slices.Contains(live, task) {
			dead = append(dead, task)
		}
	}
	err := p.restoreLocked()
	p.mu.Unlock()
	for _, task := range dead {
		p.log.Info().Str("task", task).Msg("release the network namespace of a task that is gone")
		err = errors.Join(err, p.Release(task))
	}
	return err
}

func (p *Pool) restoreLocked() error {
	if p.closed {
		return errClosed
	}
	there, err := p.rules.present()
	if err != nil || there {
		return err
	}
	p.log.Warn().Str("table", p.rules.table.Name).Msg("the table was removed by somebody else: put it back")
	return p.installLocked()
}

// Close ends the pool and removes what is ready. What is in use stays, with its rules: the next pool finds it.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.busy.Wait()

	p.mu.Lock()
	defer p.mu.Unlock()
	spaces := p.ready
	p.ready = nil
	var err error
	if len(p.leases) > 0 {
		err = p.installLocked()
	} else {
		err = p.rules.remove()
	}
	for _, s := range spaces {
		err = errors.Join(err, s.remove(p.host))
	}
	if len(p.leases) == 0 {
		err = errors.Join(err, p.unmountSpaces())
	}
	p.host.Close()
	err = errors.Join(err, p.held.Close())
	if err != nil {
		return fmt.Errorf("close network pool: %w", err)
	}
	return nil
}
