package network_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/freshet-dev/freshet/driver/network"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// traces are what a pool leaves on a host.
type traces struct {
	Links, Routes, Mounts, Tables, Elements, Chains, Files int
}

func look(t testing.TB, dir string) traces {
	t.Helper()
	var found traces
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	found.Links, found.Routes, found.Mounts = len(links), len(routes), strings.Count(string(mounts), dir)
	for _, folder := range []string{"ns", "tasks"} {
		entries, err := os.ReadDir(filepath.Join(dir, folder))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		found.Files += len(entries)
	}
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		found.Tables++
		sets, err := conn.GetSets(table)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range sets {
			elements, err := conn.GetSetElements(set)
			if err != nil {
				t.Fatal(err)
			}
			found.Elements += len(elements)
		}
	}
	chains, err := conn.ListChains()
	if err != nil {
		t.Fatal(err)
	}
	found.Chains = len(chains)
	return found
}

func full(t testing.TB, pool *network.Pool, ready int) {
	t.Helper()
	eventually.True(t, "the pool is full", func() bool { return pool.Ready() == ready })
}

func TestNothingLeaks(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	before := look(t, dir)
	pool := open(t, testConfig(dir))
	full(t, pool, 2)
	idle := look(t, dir)
	policies := []network.Policy{{}, {Egress: true}, {Egress: true, Allow: []network.Destination{destination(t, database+"/32:443"), destination(t, resolver)}}}
	var tasks sync.WaitGroup
	for worker := range 4 {
		tasks.Go(func() {
			for round := range 50 {
				task := fmt.Sprintf("alloc/%d/%d", worker, round)
				if _, err := pool.Take(t.Context(), task, policies[round%len(policies)]); err != nil {
					t.Error(err)
					return
				}
				if err := pool.Publish(task, []network.Port{{HostPort: uint16(9000 + worker), Port: 80}, {HostPort: uint16(9000 + worker), Port: 80, UDP: true}}); err != nil {
					t.Error(err)
				}
				if err := pool.Release(task); err != nil {
					t.Error(err)
				}
			}
		})
	}
	tasks.Wait()
	full(t, pool, 2)
	eventually.True(t, "after 200 takes the host is as before", func() bool { return look(t, dir) == idle })
	end(t, pool)
	if after := look(t, dir); after != before {
		t.Errorf("after the end %+v, before %+v", after, before)
	}
}

func TestTakenTwiceIsTheSame(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	policy := network.Policy{Egress: true}
	first := take(t, pool, "alloc/guest", policy)
	if again := take(t, pool, "alloc/guest", policy); again.Path != first.Path || again.Address != first.Address {
		t.Errorf("taken again it is %v, not %v", again, first)
	}
	if _, err := pool.Take(t.Context(), "alloc/guest", network.Policy{}); err == nil {
		t.Error("another policy was taken for the one in force")
	}
	if found, err := pool.Find("alloc/guest"); err != nil || found.Path != first.Path {
		t.Errorf("found %v, %v", found, err)
	}
	if _, err := pool.Find("nobody"); !errors.Is(err, network.ErrNotTaken) {
		t.Errorf("found nobody: %v", err)
	}
	if err := pool.Publish("nobody", nil); !errors.Is(err, network.ErrNotTaken) {
		t.Errorf("published for nobody: %v", err)
	}
	if err := pool.Release("nobody"); err != nil {
		t.Error(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pool.Take(canceled, "late", policy); !errors.Is(err, context.Canceled) {
		t.Errorf("taken after the end of the context: %v", err)
	}
}

func TestMoreThanIsReady(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Range = netip.MustParsePrefix("198.18.0.0/28")
	pool := open(t, cfg)
	paths := make(map[string]bool)
	for i := range 14 {
		paths[take(t, pool, fmt.Sprint(i), network.Policy{}).Path] = true
	}
	if len(paths) != 14 {
		t.Errorf("14 tasks have %d namespaces", len(paths))
	}
	var field spec.FieldError
	if _, err := pool.Take(t.Context(), "too many", network.Policy{}); !errors.As(err, &field) || field.Field != "network.range" {
		t.Errorf("a full range: %v", err)
	}
	if err := pool.Release("3"); err != nil {
		t.Fatal(err)
	}
	take(t, pool, "too many", network.Policy{})
}

// hold opens a pool, takes what the lines of its input name, and waits to be killed.
func hold(dir string) {
	pool, err := network.Open(context.Background(), testConfig(dir), zerolog.New(os.Stderr))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		ns, err := pool.Take(context.Background(), in.Text(), network.Policy{Egress: true})
		fmt.Println(ns.Path, ns.Address, err)
	}
	select {}
}

func TestKilledPoolIsFoundAgain(t *testing.T) {
	dir := t.TempDir()
	before := look(t, dir)
	holder := exec.Command("/proc/self/exe")
	holder.Env = append(os.Environ(), holderEnv+"="+dir)
	holder.Stderr = os.Stderr
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() { _, _ = holder.Process.Kill(), holder.Wait() })
	t.Cleanup(kill)
	answers := bufio.NewReader(out)
	ask := func(task string) string {
		fmt.Fprintln(in, task)
		answer, err := answers.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(answer)
	}
	one := ask("one")
	ask("two")
	path, _, _ := strings.Cut(one, " ")
	g := start(t, "one", path)
	reach{"keep tcp " + website + ":80", masked}.check(t, g)

	// In the middle of its making namespaces.
	for i := range 5 {
		fmt.Fprintln(in, "more", i)
	}
	kill()
	reach{"talk tcp", masked}.check(t, g) // nobody is needed for what is in use
	reach{"tcp " + website + ":80", masked}.check(t, g)
	reach{"tcp " + database + ":80", refused}.check(t, g)

	pool := open(t, testConfig(dir))
	full(t, pool, 2)
	reach{"talk tcp", masked}.check(t, g)
	reach{"tcp " + website + ":80", masked}.check(t, g)
	reach{"tcp " + database + ":80", refused}.check(t, g)
	if again := take(t, pool, "one", network.Policy{Egress: true}); fmt.Sprintln(again.Path, again.Address, nil) != one+"\n" {
		t.Errorf("the next pool has %v, the one before had %s", again, one)
	}
	if err := pool.Sweep([]string{"one"}); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Find("two"); !errors.Is(err, network.ErrNotTaken) {
		t.Errorf("after the sweep: %v", err)
	}
	reach{"talk tcp", masked}.check(t, g)
	end(t, pool)
	if after := look(t, dir); after != before {
		t.Errorf("after the end %+v, before %+v", after, before)
	}
}

func TestAfterAReboot(t *testing.T) {
	dir := t.TempDir()
	pool := open(t, testConfig(dir))
	ns := take(t, pool, "one", network.Policy{Egress: true})
	if err := pool.Close(); err != nil {
		t.Fatal(err)
	}
	// Namespaces, interfaces, mounts and rules go; files stay.
	if err := errors.Join(syscall.Unmount(ns.Path, syscall.MNT_DETACH), syscall.Unmount(filepath.Join(dir, "ns"), syscall.MNT_DETACH)); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the kernel has removed the interfaces with their namespaces", func() bool {
		links, err := netlink.LinkList()
		return err == nil && !slices.ContainsFunc(links, func(link netlink.Link) bool {
			return strings.HasPrefix(link.Attrs().Name, "freshet-")
		})
	})
	flushRules(t)
	if err := os.WriteFile(filepath.Join(dir, "tasks", "77.json"), []byte(`{"task":`), 0o600); err != nil {
		t.Fatal(err)
	}
	pool = open(t, testConfig(dir))
	if _, err := pool.Find("one"); !errors.Is(err, network.ErrNotTaken) {
		t.Errorf("a task from before the reboot: %v", err)
	}
	full(t, pool, 2)
	reach{"tcp " + website + ":80", masked}.check(t, start(t, "one", take(t, pool, "one", network.Policy{Egress: true}).Path))
}

func flushRules(t testing.TB) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	conn.FlushRuleset()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestWithoutRulesNothingIsReached: whoever flushes the host's rules must not open the sandboxes.
func TestWithoutRulesNothingIsReached(t *testing.T) {
	pool := open(t, testConfig(t.TempDir()))
	g := start(t, "one", take(t, pool, "one", network.Policy{Egress: true}).Path)
	reach{"keep tcp " + website + ":80", masked}.check(t, g)
	var oneWay net.PacketConn // nor does a packet leave that wants no answer
	beyond(t, func() (err error) {
		oneWay, err = net.ListenPacket("udp4", website+":99")
		return err
	})
	t.Cleanup(func() { _ = oneWay.Close() })
	flushRules(t)
	for _, try := range []string{"tcp " + website + ":80", "udp " + website + ":99", "talk tcp"} {
		if got := g.do(try); !strings.HasPrefix(got, "error") {
			t.Errorf("without rules, %s: %q", try, got)
		}
	}
	if err := oneWay.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, from, err := oneWay.ReadFrom(make([]byte, 1500)); err == nil {
		t.Errorf("without rules, a packet from %s came through", from)
	}
	if err := pool.Sweep([]string{"one"}); err != nil {
		t.Fatal(err)
	}
	reach{"tcp " + website + ":80", masked}.check(t, g)
	reach{"udp " + database + ":80", refused}.check(t, g)

	flushRules(t)
	take(t, pool, "two", network.Policy{Egress: true}) // notices too
	reach{"tcp " + website + ":80", masked}.check(t, g)
}

func TestOneNameIsOnePools(t *testing.T) {
	first := testConfig(t.TempDir())
	full(t, open(t, first), first.Ready)
	second := testConfig(t.TempDir())
	var field spec.FieldError
	if _, err := network.Open(t.Context(), second, testLog(t)); !errors.As(err, &field) || field.Field != "network.name" {
		t.Errorf("a second pool of the name: %v", err)
	}
	second.Name = "other"
	wantField(t, second, "network.range")
	second.Range = netip.MustParsePrefix("198.19.0.0/16")
	open(t, second)
}

func TestConfigsThatCannotBe(t *testing.T) {
	for want, change := range map[string]func(*network.Config){
		"network.dir":          func(c *network.Config) { c.Dir = "" },
		"network.name":         func(c *network.Config) { c.Name = "Too-Long-a-name" },
		"network.ready":        func(c *network.Config) { c.Ready = -1 },
		"network.mtu":          func(c *network.Config) { c.MTU = 100 },
		"network.deny[0]":      func(c *network.Config) { c.Deny = []network.Destination{destination(t, "2001:db8::/32")} },
		"network.private[0]":   func(c *network.Config) { c.Private = []netip.Prefix{netip.MustParsePrefix("fd00::/8")} },
		"network.resolvers[0]": func(c *network.Config) { c.Resolvers = []netip.Addr{netip.MustParseAddr("127.0.0.53")} },
	} {
		cfg := testConfig(t.TempDir())
		change(&cfg)
		wantField(t, cfg, want)
	}
	for _, prefix := range []string{"203.0.113.0/24", "198.18.0.1/16", "10.0.0.0/30", "127.0.0.0/16", "fd00::/16"} {
		cfg := testConfig(t.TempDir())
		cfg.Range = netip.MustParsePrefix(prefix)
		wantField(t, cfg, "network.range")
	}
}

func wantField(t *testing.T, cfg network.Config, want string) {
	t.Helper()
	pool, err := network.Open(t.Context(), cfg, testLog(t))
	if err == nil {
		end(t, pool)
	}
	var field spec.FieldError
	if !errors.As(err, &field) || field.Field != want || field.Mend == "" {
		t.Errorf("%+v: %v, want an error of %s", cfg, err, want)
	}
}
