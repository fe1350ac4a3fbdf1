package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// lease is a namespace in use. It is written down before it is given out, and the file is removed after all else.
type lease struct {
	Task   string `json:"task"`
	Number int    `json:"number"`
	// Address tells whether the range is still the one that the number was of.
	Address netip.Addr `json:"address"`
	Policy  Policy     `json:"policy"`
	Ports   []Port     `json:"ports,omitempty"`

	space space
}

const (
	leaseSuffix = ".json"
	partSuffix  = ".part"
)

// ledger is the pool's directory: what a pool must know of those before it.
type ledger struct {
	dir string
	log zerolog.Logger
}

// spaces is the directory of the namespaces' files, tasks that of the leases.
func (d ledger) spaces() string { return filepath.Join(d.dir, "ns") }

func (d ledger) tasks() string { return filepath.Join(d.dir, "tasks") }

// open makes the directories.
func (d ledger) open() error {
	for _, dir := range []string{d.spaces(), d.tasks()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make pool's directory: %w", err)
		}
	}
	return d.mount()
}

// path is the file of a lease: one for each namespace, whose task may have characters that a file's name may not.
func (d ledger) path(number int) string {
	return filepath.Join(d.tasks(), strconv.Itoa(number)+leaseSuffix)
}

// write writes the lease down, whole or not at all. What a loss of power undoes, the reboot after it has undone too.
func (d ledger) write(l *lease) error {
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode lease: %w", err)
	}
	path := d.path(l.Number)
	if err := os.WriteFile(path+partSuffix, data, 0o600); err != nil {
		return fmt.Errorf("write lease: %w", err)
	}
	if err := os.Rename(path+partSuffix, path); err != nil {
		return fmt.Errorf("write lease: %w", err)
	}
	return nil
}

func (d ledger) erase(l *lease) error {
	if err := os.Remove(d.path(l.Number)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove lease: %w", err)
	}
	return nil
}

// read reads the leases of the pool before this one. A file that is not one is removed: its writer died.
func (d ledger) read() ([]*lease, error) {
	entries, err := os.ReadDir(d.tasks())
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var all []*lease
	for _, entry := range entries {
		path := filepath.Join(d.tasks(), entry.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read lease: %w", err)
		}
		var l lease
		if json.Unmarshal(data, &l) != nil || d.path(l.Number) != path {
			d.log.Warn().Str("file", path).Msg("remove a lease that cannot be read")
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("remove lease: %w", err)
			}
			continue
		}
		all = append(all, &l)
	}
	return all, nil
}

// mount makes the directory of the namespaces a mount whose changes others see: a process with a mount namespace of its
// own would keep the namespaces that are removed here.
func (d ledger) mount() error {
	dir := d.spaces()
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err == nil {
		return nil // the pool before this one has mounted it
	} else if !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("share %s: %w", dir, err)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share %s: %w", dir, err)
	}
	return nil
}

// unmount undoes mount.
func (d ledger) unmount() error {
	if err := unix.Unmount(d.spaces(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount %s: %w", d.spaces(), err)
	}
	return nil
}
