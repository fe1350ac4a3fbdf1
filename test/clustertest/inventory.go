package clustertest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// Inventory is what a cluster has on its node, by kind. Names are without what differs from one task to the next, so that two
// inventories can be compared.
type Inventory map[string][]string

// Place is where a driver keeps what it has.
type Place struct {
	// Dir is the state directory, whose path says nothing; DriverDir is the driver's data directory in it.
	Dir, DriverDir string
	// CgroupParent is the control group that holds those of all tasks.
	CgroupParent string
	// PID is a process that sees the driver's mounts.
	PID int
}

// Count counts what a driver has but for processes. The caller is in the driver's network namespace.
func (p Place) Count(inv Inventory) error {
	for _, count := range []func(Inventory) error{p.countMounts, countNetwork, p.countGroups, p.countFiles} {
		if err := count(inv); err != nil {
			return err
		}
	}
	return nil
}

// Take counts what the cluster has: processes, the driver's mounts, network namespaces among them (Nomad keeps its own of tasks that
// ended for a while), interfaces, firewall tables, control groups, the driver's files, and the open files of its plugin. The test runs
// in a network and a mount namespace that the cluster has for itself.
func (c *Cluster) Take(tb testing.TB) Inventory {
	tb.Helper()
	inv := make(Inventory)
	place := Place{Dir: c.Dir, DriverDir: c.State.DriverDir(), CgroupParent: c.CgroupParent(), PID: os.Getpid()}
	if err := errors.Join(c.countProcesses(inv), place.Count(inv)); err != nil {
		tb.Fatal(err)
	}
	c.countOpen(tb, inv)
	return inv
}

// String tells how many there are of each kind.
func (inv Inventory) String() string {
	var parts []string
	for kind, list := range inv {
		parts = append(parts, fmt.Sprintf("%d %s", len(list), kind))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// Diff says what is more or less in the later inventory; empty when the two agree.
func (inv Inventory) Diff(later Inventory) []string {
	var lines []string
	kinds := make(map[string]bool)
	for _, of := range []Inventory{inv, later} {
		for kind := range of {
			kinds[kind] = true
		}
	}
	for kind := range kinds {
		counts := make(map[string]int)
		for _, name := range inv[kind] {
			counts[name]--
		}
		for _, name := range later[kind] {
			counts[name]++
		}
		for name, n := range counts {
			if n != 0 {
				lines = append(lines, fmt.Sprintf("%s: %+d %s", kind, n, name))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

var (
	uuid   = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	ulid   = regexp.MustCompile(`[0-9A-HJKMNP-TV-Z]{26}`)
	number = regexp.MustCompile(`[0-9]+`)
	suffix = regexp.MustCompile(`-guest-[0-9a-f]{8}`)
	digest = regexp.MustCompile(`[0-9a-f]{64}`)
)

// plain takes out of a name what differs from one task to the next.
func plain(name string) string {
	name = uuid.ReplaceAllString(name, "ALLOC")
	name = suffix.ReplaceAllString(name, "-guest")
	name = digest.ReplaceAllString(name, "DIGEST")
	return ulid.ReplaceAllString(name, "UNIT")
}

func (c *Cluster) countProcesses(inv Inventory) error {
	all, err := c.Processes()
	for _, p := range all {
		inv["processes"] = append(inv["processes"], filepath.Base(p.Args[0]))
	}
	return err
}

func (p Place) countMounts(inv Inventory) error {
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.PID))
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], p.DriverDir+"/") {
			name := plain(strings.TrimPrefix(fields[4], p.Dir))
			inv["mounts"] = append(inv["mounts"], number.ReplaceAllString(name, "N"))
		}
	}
	return err
}

func countNetwork(inv Inventory) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, link := range links {
		inv["interfaces"] = append(inv["interfaces"], number.ReplaceAllString(link.Attrs().Name, "N"))
	}
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return err
	}
	for _, table := range tables {
		inv["firewall"] = append(inv["firewall"], "table "+table.Name)
		sets, err := conn.GetSets(table)
		if err != nil {
			return err
		}
		for _, set := range sets {
			elements, err := conn.GetSetElements(set)
			if err != nil {
				return err
			}
			for range elements {
				inv["firewall"] = append(inv["firewall"], "element of "+table.Name+" "+number.ReplaceAllString(set.Name, "N"))
			}
		}
	}
	return nil
}

// countGroups counts the control groups of the cluster's tasks in all hierarchies.
func (p Place) countGroups(inv Inventory) error {
	parents, err := filepath.Glob(filepath.Join("/sys/fs/cgroup", "*", p.CgroupParent))
	if err != nil {
		return err
	}
	for _, parent := range append(parents, filepath.Join("/sys/fs/cgroup", p.CgroupParent)) {
		err := filepath.WalkDir(parent, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // the other version of control groups, or gone meanwhile
			}
			if err == nil && entry.IsDir() {
				inv["control groups"] = append(inv["control groups"], plain(path))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (p Place) countFiles(inv Inventory) error {
	dir := p.DriverDir
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if strings.HasPrefix(name, "images/locks/") {
			return nil // they stay
		}
		if strings.HasPrefix(name, "network/") || strings.HasPrefix(name, "ahead/") && strings.Contains(name, "/gvisor/") {
			name = number.ReplaceAllString(plain(name), "N") // they are named by numbers
		}
		inv["files"] = append(inv["files"], plain(name))
		return err
	})
}

// countOpen counts what the plugin has open.
func (c *Cluster) countOpen(tb testing.TB, inv Inventory) {
	tb.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", c.Plugin(tb))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // it ended: whoever compares takes another inventory
	}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			inv["open files"] = append(inv["open files"], number.ReplaceAllString(plain(strings.TrimPrefix(target, c.Dir)), "N"))
		}
	}
}
