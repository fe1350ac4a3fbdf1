//go:build linux

// Package doctor looks at a machine that is to run functions, says what is wrong with it, and what mends that.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Setup is where to look. Every field is set.
type Setup struct {
	// User is who would run the cluster.
	User int
	// Bin is the folder of freshet's programs, Nomad and Runsc the paths of those tools.
	Bin, Nomad, Runsc string
	// Proc, Cgroup and Dev are where the kernel shows itself: /proc, /sys/fs/cgroup and /dev.
	Proc, Cgroup, Dev string
	// State is the state directory, and MinFree what its disk must have to spare, in bytes.
	State   string
	MinFree uint64
	// Gateway, NomadAPI and NATS are addresses of a cluster that runs, with the token to show; empty where none does.
	Gateway, NomadAPI, NATS, Token string
	// Ports are those that a cluster would listen on at 127.0.0.1; none where it runs.
	Ports []int
}

// Finding is what one look said.
type Finding struct {
	// Name is what was looked at, Says what is there.
	Name string `json:"name"`
	Says string `json:"says"`
	// Wrong says that it must be mended, and Mend how.
	Wrong bool   `json:"wrong"`
	Mend  string `json:"mend,omitempty"`
}

// trouble is what is wrong, and what mends it.
type trouble struct{ says, mend string }

func (t *trouble) Error() string { return t.says }

func wrongf(mend, format string, values ...any) error {
	return &trouble{says: fmt.Sprintf(format, values...), mend: mend}
}

// check looks at one thing and says what is there; an error is a *trouble, or that the look itself did not work.
type check struct {
	name string
	look func(context.Context, Setup) (string, error)
}

func checks() []check {
	return []check{
		{"user", user},
		{"kernel", kernel},
		{"file systems", fileSystems},
		{"control groups", controlGroups},
		{"programs", programs},
		{"nomad", nomadVersion},
		{"runsc", runscVersion},
		{"state directory", stateDirectory},
		{"disk", disk},
		{"ports", ports},
		{"GPU", gpu},
		{"NATS", natsServer},
		{"driver", driver},
		{"gateway", gateway},
	}
}

// Run looks at everything. What is wrong with one thing keeps nothing from being looked at.
func Run(ctx context.Context, s Setup) []Finding {
	var all []Finding
	for _, c := range checks() {
		says, err := c.look(ctx, s)
		finding := Finding{Name: c.name, Says: says}
		var found *trouble
		switch {
		case errors.As(err, &found):
			finding.Says, finding.Mend, finding.Wrong = found.says, found.mend, true
		case err != nil:
			finding.Says, finding.Mend, finding.Wrong = err.Error(), "mend what it says, and look again", true
		}
		all = append(all, finding)
	}
	return all
}

func user(_ context.Context, s Setup) (string, error) {
	if s.User != 0 {
		return "", wrongf("run `sudo freshet up`: sandboxes and control groups need root", "user id %d is not root", s.User)
	}
	return "root", nil
}

func programs(_ context.Context, s Setup) (string, error) {
	for _, name := range []string{"freshet-driver", "freshet-worker", "freshet-init"} {
		path := filepath.Join(s.Bin, name)
		info, err := os.Stat(path)
		if err != nil {
			return "", wrongf("install it beside freshet: `make build` makes all of them", "%s is not there", path)
		}
		if info.Mode()&0o111 == 0 {
			return "", wrongf("chmod +x "+path, "%s may not be run", path)
		}
	}
	return s.Bin, nil
}
