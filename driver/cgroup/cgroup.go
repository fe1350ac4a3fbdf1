// Package cgroup holds the processes of tasks in control groups of their own: limits, what they use, and what they did to
// deserve the kernel's out-of-memory killer. It works with both versions: v2, and v1 where the controllers are mounted there.
//
// A task has two groups, side by side below one parent: the guest's (sentry and gofer, with the task's limits) and the
// supervisor's. So a guest that uses too much memory is killed alone, and its supervisor lives to say so; and no group ever
// holds both processes and groups, which v2 forbids.
//
// Memory belongs to the group whose process touched it first, for as long as it lives. A sandbox therefore starts in the group
// that it is to be charged to (Group.Enter), and one that is thawed ahead of need gets a group of its own, which becomes its
// task's group later: ids are free, and limits can change at any time.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrGone says that there is no such group, or no longer.
	ErrGone = errors.New("no such control group")
	// ErrExists says that a group of this id exists: left by somebody who was killed, or still in use.
	ErrExists = errors.New("the control group exists")
)

// DefaultRoot is where Linux systems mount control groups.
const DefaultRoot = "/sys/fs/cgroup"

// Config says where the groups are.
type Config struct {
	// Parent is the group that holds all groups of this manager, as a path without the mount point: "freshet", or
	// "freshet.slice/node-1". It is made when it is missing and belongs to the manager alone.
	Parent string
	// Root is where control groups are mounted; empty means DefaultRoot.
	Root string
}

// Manager makes groups below one parent. It may be used by several goroutines, and by several processes at once as long as
// they use different ids.
type Manager struct {
	parent  string
	version version
}

// version is what differs between v1 and v2.
type version interface {
	// create makes the group's directories, with the limits; load takes those that are there.
	create(name string, limits Limits) (control, error)
	load(name string) (control, error)
	// roots are the directories that mirror the tree of groups: one on v2, one a controller on v1.
	roots() []string
	// has says whether a controller is there; what it holds can be limited and measured.
	has(controller string) bool
}

// control is one group as its version sees it.
type control interface {
	add(pid int) error
	start(cmd *exec.Cmd) error
	update(limits Limits) error
	stats() (Stats, error)
	// oomKills is how many processes of the group were killed for want of memory; oomEvents is readable when it may have
	// changed.
	oomKills() (uint64, error)
	oomEvents() (*os.File, error)
	// kill kills all processes at once, or answers errors.ErrUnsupported.
	kill() error
	// freeze stops all processes, or lets them go on. Stopping takes a moment: frozen tells when it is done.
	freeze(stop bool) error
	frozen() (bool, error)
	// useCPUs confines the processes to the processors of the cpuset group in the directory.
	useCPUs(dir string) error
}

// Open finds the version of control groups and makes the parent.
func Open(cfg Config) (*Manager, error) {
	if !fs.ValidPath(cfg.Parent) || cfg.Parent == "." {
		return nil, fmt.Errorf("open control groups: parent: %q: use a path without the mount point, like \"freshet\"", cfg.Parent)
	}
	root := cfg.Root
	if root == "" {
		root = DefaultRoot
	}
	version, err := findVersion(root, cfg.Parent)
	if err != nil {
		return nil, fmt.Errorf("open control groups in %s: %w", root, err)
	}
	return &Manager{parent: cfg.Parent, version: version}, nil
}

func findVersion(root, parent string) (version, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(root, &stat); err != nil {
		return nil, err
	}
	if stat.Type == unix.CGROUP2_SUPER_MAGIC {
		return openV2(root, parent)
	}
	return openV1(root, parent)
}

// Create makes an empty group. Its id is what List and Load know it by; ErrExists when it is taken.
func (m *Manager) Create(id string, limits Limits) (*Group, error) {
	group, err := m.group(id)
	if err != nil {
		return nil, err
	}
	if err := limits.check(m.version.has); err != nil {
		return nil, fmt.Errorf("create control group %s: %w", id, err)
	}
	if len(group.existing()) > 0 {
		return nil, fmt.Errorf("create control group %s: %w", id, ErrExists)
	}
	if group.control, err = m.version.create(group.name, limits); err != nil {
		return nil, errors.Join(fmt.Errorf("create control group %s: %w", id, err), group.removeDirs())
	}
	return group, nil
}

// Load finds a group that was made before, by this process or another; ErrGone when there is none.
func (m *Manager) Load(id string) (*Group, error) {
	group, err := m.group(id)
	if err != nil {
		return nil, err
	}
	if len(group.existing()) == 0 {
		return nil, fmt.Errorf("load control group %s: %w", id, ErrGone)
	}
	if group.control, err = m.version.load(group.name); err != nil {
		return nil, fmt.Errorf("load control group %s: %w", id, err)
	}
	return group, nil
}

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$`)

func (m *Manager) group(id string) (*Group, error) {
	// A dot could make an id the name of one of the kernel's files, which are all like "memory.max".
	if !validID.MatchString(id) || strings.Contains(id, "..") {
		return nil, fmt.Errorf("control group id: %q: use up to 200 letters, digits, '_', '-' and '.', the first a letter or a digit", id)
	}
	return &Group{ID: id, name: "/" + m.parent + "/" + id, roots: m.version.roots()}, nil
}

// List returns the ids of all groups below the parent, also of those that somebody was killed while removing: what it names
// and no task needs may be killed and removed.
func (m *Manager) List() ([]string, error) {
	var ids []string
	for _, root := range m.version.roots() {
		entries, err := os.ReadDir(filepath.Join(root, m.parent))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list control groups: %w", err)
		}
		for _, entry := range entries {
			if entry.IsDir() {
				ids = append(ids, entry.Name())
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Close removes the parent, which must hold no group any more. A driver that will come back need not.
func (m *Manager) Close(ctx context.Context) error {
	parent := &Group{ID: m.parent, name: "/" + m.parent, roots: m.version.roots()}
	ids, err := m.List()
	if err != nil {
		return err
	}
	if len(ids) > 0 {
		return fmt.Errorf("remove control group %s: it holds %s", m.parent, strings.Join(ids, ", "))
	}
	return parent.Remove(ctx)
}
