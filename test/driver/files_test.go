package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"
)

// TestEnvironment: the image's, under the job's; Nomad's variables name the places that the task sees.
func TestEnvironment(t *testing.T) {
	n := newNode(t, nil)
	out := n.output(t, n.shell("env"), func(cfg *drivers.TaskConfig) {
		cfg.Env["OVER"], cfg.Env["ODD"] = "job", "a = b \"c\" $d\té"
	})
	env := make(map[string]string)
	for _, line := range strings.Split(out, "\n") {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	for name, want := range map[string]string{
		"PATH": "/bin", "FROM_IMAGE": "image", "OVER": "job", "ODD": "a = b \"c\" $d\té",
		"NOMAD_ALLOC_DIR": "/alloc", "NOMAD_TASK_DIR": "/local", "NOMAD_SECRETS_DIR": "/secrets", "NOMAD_TASK_NAME": "box",
	} {
		if env[name] != want {
			t.Errorf("%s is %q, not %q", name, env[name], want)
		}
	}
}

func TestUserAndDirectory(t *testing.T) {
	n := newNode(t, nil)
	for name, c := range map[string]struct {
		user, config, want string
	}{
		"root in the image's directory": {"", "", "0:0 /home"},
		"by name":                       {"web", "", "1000:1000 /home"},
		"by numbers":                    {"1234:4321", `work_dir = "/tmp"`, "1234:4321 /tmp"},
	} {
		t.Run(name, func(t *testing.T) {
			out := n.output(t, n.shell(`echo $(id -u):$(id -g) $(pwd)`, c.config), func(cfg *drivers.TaskConfig) { cfg.User = c.user })
			if strings.TrimSpace(out) != c.want {
				t.Errorf("got %q, want %q", out, c.want)
			}
		})
	}
	task, end := n.run(t, n.shell("true"), func(cfg *drivers.TaskConfig) { cfg.User = "nobody-here" })
	if end.Successful() {
		t.Errorf("a user that is not there ran: %+v, %s", end, task.read(t, "box.stderr.0"))
	}
}

// TestTaskDirectories: what the task writes there the client sees, and the other way round.
func TestTaskDirectories(t *testing.T) {
	n := newNode(t, nil)
	task := n.newTask(t, false, n.shell("cat /local/in && for d in alloc local secrets; do echo of $d >/$d/out; done; echo ready; exec sleep 1000"), nil)
	dirs := task.TaskDir()
	if err := os.WriteFile(filepath.Join(dirs.LocalDir, "in"), []byte("from the client\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	task.start(t)
	task.says(t, "from the client\nready")
	for name, dir := range map[string]string{"alloc": dirs.SharedAllocDir, "local": dirs.LocalDir, "secrets": dirs.SecretsDir} {
		if data, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(data) != "of "+name+"\n" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dirs.LocalDir, "later"), []byte("later"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := task.exec(t, "cat /local/later"); out != "later" {
		t.Errorf("what is rendered again reads %q", out)
	}
}

// TestMounts: Nomad's volumes, and those of the task's config.
func TestMounts(t *testing.T) {
	n := newNode(t, nil)
	host := t.TempDir()
	for _, name := range []string{"volume", "fixed", "bound", "short"} {
		if err := os.MkdirAll(filepath.Join(host, name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(host, name, "in"), []byte(name+" "), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := `cat /volume/in /fixed/in /mnt/bound/in /mnt/short/in /mnt/own/in
echo wrote >/volume/out; echo wrote >/mnt/short/out
for d in /fixed /mnt/bound; do touch $d/out 2>/dev/null && echo "$d was written"; done
dd if=/dev/zero of=/scratch/big bs=1M count=8 2>/dev/null && echo "the tmpfs has no bound"
exit 0`
	config := n.shell(script, `
mount {
  source   = "`+host+`/bound"
  target   = "/mnt/bound"
  readonly = true
}
mount {
  source = "local/own"
  target = "/mnt/own"
}
mount {
  type   = "tmpfs"
  target = "/scratch"
  tmpfs_options { size = 4194304 }
}
volumes = ["`+host+`/short:/mnt/short"]`)
	task := n.newTask(t, false, config, func(cfg *drivers.TaskConfig) {
		cfg.Mounts = []*drivers.MountConfig{
			{HostPath: filepath.Join(host, "volume"), TaskPath: "/volume"},
			{HostPath: filepath.Join(host, "fixed"), TaskPath: "/fixed", Readonly: true},
		}
	})
	own := filepath.Join(task.TaskDir().LocalDir, "own")
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "in"), []byte("own"), 0o644); err != nil {
		t.Fatal(err)
	}
	task.start(t)
	if end := task.wait(t); !end.Successful() {
		t.Fatalf("%+v: %s", end, task.read(t, "box.stderr.0"))
	}
	if out := task.read(t, "box.stdout.0"); out != "volume fixed bound short own" {
		t.Errorf("it said %q", out)
	}
	for _, name := range []string{"volume", "short"} {
		if data, err := os.ReadFile(filepath.Join(host, name, "out")); err != nil || string(data) != "wrote\n" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
}

// TestTheRootIsTheTasksOwn: writes are seen by nobody else, and there is a bound to them.
func TestTheRootIsTheTasksOwn(t *testing.T) {
	n := newNode(t, nil)
	script := "test -e /mark && echo another wrote here; touch /mark; dd if=/dev/zero of=/big bs=1M count=32 2>&1 | grep -o 'No space left' ; exit 0"
	for range 2 {
		if out := n.output(t, n.shell(script, "writable { size = 16 }"), nil); out != "No space left\n" {
			t.Errorf("it said %q", out)
		}
	}
	if _, end := n.run(t, n.shell("touch /mark", "readonly_rootfs = true"), nil); end.Successful() {
		t.Error("a read-only root was written")
	}
}

// TestWhatTheTaskIsTold: runtimes size themselves by the control group that they see.
func TestWhatTheTaskIsTold(t *testing.T) {
	n := newNode(t, nil)
	script := `group=$(sed -n 's/^0:://p' /proc/self/cgroup); echo $group; cd /sys/fs/cgroup$group
cat memory.max cpu.max cpu.weight pids.max; test $(cat memory.current) -gt 0 && echo used
echo 1 >memory.max 2>/dev/null && echo "it changed its limit"; exit 0`
	cfg := func(cfg *drivers.TaskConfig) {
		cfg.Resources = resources(400, 100)
		cfg.Resources.NomadResources.Memory.MemoryMaxMB = 256
		cfg.Resources.LinuxResources.PercentTicks = 0.25
	}
	task := n.newTask(t, false, n.shell(script, "pids_limit = 50\ncpu_hard_limit = true"), cfg)
	task.start(t)
	if end := task.wait(t); !end.Successful() {
		t.Fatalf("%+v: %s", end, task.read(t, "box.stderr.0"))
	}
	lines := strings.Split(strings.TrimSpace(task.read(t, "box.stdout.0")), "\n")
	want := []string{"/" + task.AllocID + ".box.scope", "268435456", cpuMax(0.25), "16", "50", "used"}
	if strings.Join(lines, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", lines, want)
	}
}

// TestPidsLimit: a task with too many processes is refused more, and lives.
func TestPidsLimit(t *testing.T) {
	n := newNode(t, nil)
	task := n.newTask(t, false, n.shell("for i in $(seq 40); do sleep 100 & done 2>/dev/null; echo lives; exec sleep 1000", "pids_limit = 20"), nil)
	task.start(t)
	if status, err := n.InspectTask(task.ID); err != nil || status.State != drivers.TaskStateRunning {
		t.Errorf("%+v, %v", status, err)
	}
}
