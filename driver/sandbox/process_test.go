package sandbox_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/sandbox"
)

func TestTheGuestIsWhoItIsToldToBe(t *testing.T) {
	root := shellRoot(t)
	for _, test := range []struct{ user, want string }{
		{"", "uid=0(root) gid=0(root) home=/root"},
		{"root", "uid=0(root) gid=0(root) home=/root"},
		{"worker", "uid=1000(worker) gid=1001(worker) groups=44(video) home=/home/worker"},
		{"1000", "uid=1000(worker) gid=1001(worker) groups=44(video) home=/home/worker"},
		{"1000:50", "uid=1000(worker) gid=50(staff) home=/home/worker"},
		{"worker:staff", "uid=1000(worker) gid=50(staff) home=/home/worker"},
		{"4000:4001", "uid=4000 gid=4001 home=/"},
		{"4000", "uid=4000 gid=0(root) home=/"},
	} {
		t.Run(test.user, func(t *testing.T) {
			cfg := shell(t, root, `echo "$(id) home=$HOME"`)
			cfg.User = test.user
			got, _ := run(t, cfg)
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestAccountsAreReadWithinTheRoot(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("root:x:0:0::/:/bin/sh\nstranger:x:7:7::/:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, link := range map[string]string{"absolute": outside, "relative": strings.Repeat("../", 20) + outside, "magic": "/proc/self/root" + outside} {
		t.Run(name, func(t *testing.T) {
			root := shellRoot(t)
			if err := os.Remove(filepath.Join(root, "etc/passwd")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(link, filepath.Join(root, "etc/passwd")); err != nil {
				t.Fatal(err)
			}
			cfg := shell(t, root, "id")
			cfg.User = "stranger"
			if made, err := sandbox.Create(cfg, zerolog.Nop()); err == nil {
				_ = made.Destroy()
				t.Fatal("an account of the host's was found")
			} else if !strings.Contains(err.Error(), `"stranger"`) {
				t.Errorf("the error does not name the user: %v", err)
			}
		})
	}
	t.Run("links within the root are followed", func(t *testing.T) {
		root := shellRoot(t)
		if err := os.Rename(filepath.Join(root, "etc/passwd"), filepath.Join(root, "data/accounts")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/data/accounts", filepath.Join(root, "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		cfg := shell(t, root, "id -u")
		cfg.User = "worker"
		if got, _ := run(t, cfg); got != "1000" {
			t.Errorf("got uid %q, want 1000", got)
		}
	})
}

func TestProcessSettings(t *testing.T) {
	root := shellRoot(t)
	with := func(change func(*sandbox.Config), script string) string {
		t.Helper()
		cfg := shell(t, root, script)
		change(&cfg)
		got, _ := run(t, cfg)
		return got
	}
	if got := with(func(c *sandbox.Config) { c.Cwd = "/home/worker" }, "pwd"); got != "/home/worker" {
		t.Errorf("working directory %q", got)
	}
	if got := with(func(c *sandbox.Config) { c.Hostname = "db-1" }, "hostname"); got != "db-1" {
		t.Errorf("host name %q", got)
	}
	if got := with(func(c *sandbox.Config) { c.Env = append(c.Env, "NAME=a b\nc") }, `echo "$NAME"`); got != "a b\nc" {
		t.Errorf("environment %q", got)
	}
	if got := with(func(c *sandbox.Config) { c.Args = []string{"echo", "found"} }, ""); got != "found" {
		t.Errorf("a name looked up in PATH printed %q", got)
	}
	limits := func(c *sandbox.Config) { c.Ulimits = []sandbox.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}} }
	if got := with(limits, "ulimit -Sn; ulimit -Hn"); got != "100\n200" {
		t.Errorf("limits of open files %q, want 100 and 200", got)
	}
	if got := with(func(*sandbox.Config) {}, "ulimit -n"); got != "1048576" {
		t.Errorf("limit of open files %q", got)
	}
}

func TestCapabilitiesOfTheGuest(t *testing.T) {
	root := shellRoot(t)
	for name, test := range map[string]struct {
		user      string
		add, drop []string
		none      bool
		want      string // of CapEff and CapBnd
	}{
		"handler":       {none: true, want: "0000000000000000 0000000000000000"},
		"default":       {want: "00000000a80405fb 00000000a80405fb"},
		"added":         {add: []string{"sys_time"}, want: "00000000aa0405fb 00000000aa0405fb"},
		"raw sockets":   {add: []string{"net_raw"}, want: "00000000a80425fb 00000000a80425fb"},
		"only one":      {add: []string{"CAP_NET_BIND_SERVICE"}, drop: []string{"all"}, want: "0000000000000400 0000000000000400"},
		"another user":  {user: "worker", want: "0000000000000000 00000000a80405fb"},
		"dropped chown": {drop: []string{"chown"}, want: "00000000a80405fa 00000000a80405fa"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := shell(t, root, `set -- $(grep -E 'Cap(Eff|Bnd)' /proc/self/status); echo $2 $4`)
			cfg.User = test.user
			if !test.none {
				var err error
				if cfg.Capabilities, err = sandbox.Capabilities(test.add, test.drop); err != nil {
					t.Fatal(err)
				}
			}
			if got, _ := run(t, cfg); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestCapabilityNames(t *testing.T) {
	all, err := sandbox.Capabilities([]string{"all"}, []string{"net_raw"})
	if err != nil || len(all) < 30 || slices.Contains(all, "CAP_NET_RAW") || !slices.Contains(all, "CAP_SYS_ADMIN") {
		t.Errorf("all but one: %v, %v", all, err)
	}
	if got, err := sandbox.Capabilities(nil, nil); err != nil || !slices.Equal(got, sandbox.DefaultCapabilities()) {
		t.Errorf("the default is %v, %v", got, err)
	}
	if got, err := sandbox.Capabilities([]string{"chown", "CAP_CHOWN"}, []string{"ALL"}); err != nil || !slices.Equal(got, []string{"CAP_CHOWN"}) {
		t.Errorf("one of none is %v, %v", got, err)
	}
	for _, field := range []string{"cap_add", "cap_drop"} {
		var lists [2][]string
		lists[map[string]int{"cap_add": 0, "cap_drop": 1}[field]] = []string{"chown", "fly"}
		if _, err := sandbox.Capabilities(lists[0], lists[1]); err == nil || !strings.HasPrefix(err.Error(), field+`[1]: "fly": `) {
			t.Errorf("an unknown name in %s: %v", field, err)
		}
	}
}

func TestSetuidProgramsWorkOnlyWhereAllowed(t *testing.T) {
	root := shellRoot(t)
	build := buildTool(t, "euid")
	data, err := os.ReadFile(build)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(root, "bin/euid")
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	for _, allowed := range []bool{false, true} {
		cfg := shell(t, root, "/bin/euid")
		cfg.User, cfg.AllowNewPrivileges = "worker", allowed
		want := map[bool]string{false: "1000", true: "0"}[allowed]
		if got, _ := run(t, cfg); got != want {
			t.Errorf("allowed %v: effective user %q, want %s", allowed, got, want)
		}
	}
}

func TestProgramsThatCannotBeStarted(t *testing.T) {
	root := shellRoot(t)
	for name, test := range map[string]struct {
		args []string
		want error
	}{
		"no such path":   {[]string{"/bin/nothing"}, sandbox.ErrNotFound},
		"no such name":   {[]string{"nothing"}, sandbox.ErrNotFound},
		"below a file":   {[]string{"/etc/passwd/x"}, sandbox.ErrNotFound},
		"not executable": {[]string{"/etc/plain"}, sandbox.ErrNotExecutable},
		"a directory":    {[]string{"/etc"}, sandbox.ErrNotExecutable},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := shell(t, root, "")
			cfg.Args = test.args
			made, err := sandbox.Create(cfg, zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := made.Destroy(); err != nil {
					t.Error(err)
				}
			}()
			if err := made.Start(); !errors.Is(err, test.want) {
				t.Errorf("start: %v; want %v", err, test.want)
			}
		})
	}
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	root := shellRoot(t)
	for field, change := range map[string]func(*sandbox.Config){
		"runsc":            func(c *sandbox.Config) { c.Runsc = "" },
		"args":             func(c *sandbox.Config) { c.Args = nil },
		"rootfs":           func(c *sandbox.Config) { c.Rootfs = "root" },
		"cwd":              func(c *sandbox.Config) { c.Cwd = "home" },
		"overlay.dir":      func(c *sandbox.Config) { c.Overlay = &sandbox.Overlay{Dir: "/a,size=1"} },
		"overlay.size":     func(c *sandbox.Config) { c.Overlay = &sandbox.Overlay{Size: -1} },
		"network":          func(c *sandbox.Config) { c.Network = "bridge" },
		"netns":            func(c *sandbox.Config) { c.Network = sandbox.NetworkOwn },
		"mounts[0].target": func(c *sandbox.Config) { c.Mounts = []sandbox.Mount{{Target: "/x/.."}} },
		"mounts[0].source": func(c *sandbox.Config) { c.Mounts = []sandbox.Mount{{Source: "x", Target: "/x"}} },
		"mounts[0].size":   func(c *sandbox.Config) { c.Mounts = []sandbox.Mount{{Source: "/x", Target: "/x", Size: 1}} },
		"files[0].target":  func(c *sandbox.Config) { c.Files = []sandbox.File{{Target: "etc/hosts"}} },
		"ulimits[0]":       func(c *sandbox.Config) { c.Ulimits = []sandbox.Ulimit{{Name: "patience"}} },
		"ulimits[0].soft":  func(c *sandbox.Config) { c.Ulimits = []sandbox.Ulimit{{Name: "nofile", Soft: 2, Hard: 1}} },
		"user":             func(c *sandbox.Config) { c.User = "nobody-here" },
	} {
		t.Run(field, func(t *testing.T) {
			cfg := shell(t, root, "")
			change(&cfg)
			made, err := sandbox.Create(cfg, zerolog.Nop())
			if err == nil {
				_ = made.Destroy()
				t.Fatal("it was made")
			}
			if !strings.Contains(err.Error(), field+": ") {
				t.Errorf("the error does not name the field: %v", err)
			}
		})
	}
}
