package storm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/cgroup"
)

// nodeEnv marks the process that is a node's first one, and says what it keeps running.
const nodeEnv = "FRESHET_STORM_NODE"

// service is what a node's first process keeps running.
type service struct {
	Program string
	Args    []string
}

// node is a machine for workers: a network, process and mount namespace, and a directory as its disk.
type node struct {
	*kept

	name, dir, address string
	// groups is the control group that holds those of its tasks.
	groups string
}

// boot is the command of a node's first process, which stands for its init: when it is killed, all processes of the node are, and its
// mounts are gone.
func (n *node) boot(agent service) *exec.Cmd {
	config, err := json.Marshal(agent)
	if err != nil {
		panic(err) // of strings only
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), nodeEnv+"="+string(config))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	return cmd
}

// runNode is what a node's first process does: it keeps the service running, and buries whatever was left to it.
func runNode(config string) int {
	var s service
	err := json.Unmarshal([]byte(config), &s)
	if err == nil {
		err = errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""))
	}
	if err == nil {
		err = os.Unsetenv(nodeEnv)
	}
	for err == nil {
		var process *os.Process
		process, err = os.StartProcess(s.Program, append([]string{s.Program}, s.Args...), &os.ProcAttr{
			Env: os.Environ(), Files: []*os.File{nil, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setpgid: true},
		})
		for ended := 0; err == nil && ended != process.Pid; {
			ended, err = unix.Wait4(-1, nil, 0, nil)
			if errors.Is(err, unix.EINTR) {
				err = nil
			}
		}
		<-time.After(rest)
	}
	fmt.Fprintln(os.Stderr, "node:", err)
	return 1
}

// process is one of a node's.
type process struct {
	pid  int
	args []string
}

// processes are those of the node, the first one not among them.
func (n *node) processes() []process {
	parents := make(map[int]int)
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it ended
		}
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if len(fields) > 1 && fields[0] != "Z" {
			parents[pid], _ = strconv.Atoi(fields[1])
		}
	}
	first := n.PID()
	var found []process
	for pid := range parents {
		for up := parents[pid]; up > 1 && first != 0; up = parents[up] {
			if up != first {
				continue
			}
			if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(data) > 0 {
				found = append(found, process{pid, strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")})
			}
			break
		}
	}
	slices.SortFunc(found, func(a, b process) int { return a.pid - b.pid })
	return found
}

// like are the node's processes whose program ends with the name, and whose arguments have the word.
func (n *node) like(program, word string) []int {
	var pids []int
	for _, p := range n.processes() {
		if strings.HasSuffix(p.args[0], program) && strings.Contains(strings.Join(p.args, " "), word) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// supervisors are those of the node's tasks; the ones made ahead are not among them.
func (n *node) supervisors() []int {
	return n.like("freshet-worker", filepath.Join(n.dir, "driver", "tasks"))
}

// powerOff ends all processes of the node at once; it comes back after the time.
func (n *node) powerOff(away time.Duration) { n.kill(away) }

// forget takes from the machine what none keeps over a reboot.
func (n *node) forget() error {
	var errs []error
	for _, root := range append(glob(filepath.Join(cgroup.DefaultRoot, "*", n.groups+"*")), glob(filepath.Join(cgroup.DefaultRoot, n.groups+"*"))...) {
		errs = append(errs, removeGroups(root))
	}
	errs = append(errs, n.place.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, link := range links {
			if name := link.Attrs().Name; name != "lo" && name != uplink {
				_ = netlink.LinkDel(link) // the other end of one that is gone already
			}
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.FlushRuleset()
		return conn.Flush()
	}))
	return errors.Join(errs...)
}

// removeGroups removes a control group with those below it, once their last processes are gone.
func removeGroups(root string) error {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // one that went meanwhile is none
	})
	slices.Reverse(dirs)
	for _, dir := range dirs {
		err := unix.Rmdir(dir)
		for began := time.Now(); errors.Is(err, unix.EBUSY) && time.Since(began) < 5*time.Second; err = unix.Rmdir(dir) {
			<-time.After(20 * time.Millisecond)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove control group %s: %w", dir, err)
		}
	}
	return nil
}

func glob(pattern string) []string {
	found, _ := filepath.Glob(pattern) // the patterns are right
	return found
}
