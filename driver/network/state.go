package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// lease is a namespace in use. It is written down before it is given out, and the file is removed after all else.
type lease struct {
	Task   string `json:"task"`
	Number int    `json:"number"`
	Policy Policy `json:"policy"`
	Ports  []Port `json:"ports,omitempty"`

	space space
}

const (
	leaseSuffix = ".json"
	partSuffix  = ".part"
)

func (p *Pool) spacesDir() string { return filepath.Join(p.cfg.Dir, "ns") }

func (p *Pool) leasesDir() string { return filepath.Join(p.cfg.Dir, "tasks") }

// leasePath is the file of a lease: one for each namespace, whose task may have characters that a file's name may not.
func (p *Pool) leasePath(number int) string {
	return filepath.Join(p.leasesDir(), strconv.Itoa(number)+leaseSuffix)
}

// write writes the lease down, whole or not at all. What a loss of power undoes, the reboot after it has undone too.
func (p *Pool) write(l *lease) error {
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode lease: %w", err)
	}
	path := p.leasePath(l.Number)
	if err := os.WriteFile(path+partSuffix, data, 0o600); err != nil {
		return fmt.Errorf("write lease: %w", err)
	}
	if err := os.Rename(path+partSuffix, path); err != nil {
		return fmt.Errorf("write lease: %w", err)
	}
	return nil
}

func (p *Pool) erase(l *lease) error {
	if err := os.Remove(p.leasePath(l.Number)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove lease: %w", err)
	}
	return nil
}

// read reads the leases of the pool before this one. A file that is not one is removed: its writer died.
func (p *Pool) read() ([]*lease, error) {
	entries, err := os.ReadDir(p.leasesDir())
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var all []*lease
	for _, entry := range entries {
		path := filepath.Join(p.leasesDir(), entry.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read lease: %w", err)
		}
		var l lease
		if json.Unmarshal(data, &l) != nil || p.leasePath(l.Number) != path || !p.holds(l.Number) {
			p.log.Warn().Str("file", path).Msg("remove a lease that cannot be read")
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("remove lease: %w", err)
			}
			continue
		}
		l.space = p.space(l.Number)
		all = append(all, &l)
	}
	return all, nil
}

// mountSpaces makes the directory of the namespaces a mount whose changes others see: a process with a mount namespace of its
// own would keep the namespaces that are removed here.
func (p *Pool) mountSpaces() error {
	dir := p.spacesDir()
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

// unmountSpaces undoes mountSpaces.
func (p *Pool) unmountSpaces() error {
	if err := unix.Unmount(p.spacesDir(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount %s: %w", p.spacesDir(), err)
	}
	return nil
}
