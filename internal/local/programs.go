package local

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Programs are the paths of everything the cluster runs.
type Programs struct {
	// Freshet is this program, Driver and Worker its neighbours.
	Freshet string
	Driver  string
	Worker  string
	Nomad   string
	Runsc   string
}

// FindPrograms looks for freshet's own programs beside this one, and for nomad and runsc where the given paths say, else
// in the newest version in the tool cache, else on the search path.
func FindPrograms(nomad, runsc, cache string) (Programs, error) {
	self, err := os.Executable()
	if err != nil {
		return Programs{}, fmt.Errorf("find this program: %w", err)
	}
	p := Programs{
		Freshet: self,
		Driver:  filepath.Join(filepath.Dir(self), "freshet-driver"),
		Worker:  filepath.Join(filepath.Dir(self), "freshet-worker"),
	}
	for _, path := range []string{p.Driver, p.Worker} {
		if _, err := os.Stat(path); err != nil {
			return Programs{}, fmt.Errorf("find %s: %w: build it with `make build`", filepath.Base(path), err)
		}
	}
	if p.Nomad, err = findTool("nomad", nomad, cache); err != nil {
		return Programs{}, err
	}
	p.Runsc, err = findTool("runsc", runsc, cache)
	return p, err
}

func findTool(name, given, cache string) (string, error) {
	if given != "" {
		if _, err := os.Stat(given); err != nil {
			return "", fmt.Errorf("find %s: %w", name, err)
		}
		return filepath.Abs(given)
	}
	cached, err := filepath.Glob(filepath.Join(cache, "tools", name+"-*", name))
	if err != nil {
		return "", fmt.Errorf("find %s in the cache: %w", name, err)
	}
	if len(cached) > 0 {
		return slices.MaxFunc(cached, newer), nil
	}
	path, err := exec.LookPath(name)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return "", fmt.Errorf("find %s: %w: build it with `make tools`, or name it with --%s", name, err, name)
	}
	return filepath.Abs(path)
}

// newer orders by the time a tool was built: the cache holds one folder a pinned version.
func newer(a, b string) int {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	if errA != nil || errB != nil {
		return strings.Compare(a, b)
	}
	return infoA.ModTime().Compare(infoB.ModTime())
}
