package sandbox_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/sandbox"
)

func TestTheRootIsReadOnlyWithoutAnOverlay(t *testing.T) {
	root := shellRoot(t)
	got, _ := run(t, shell(t, root, "touch /new; touch /bin/new; echo x > /etc/passwd; rm -r /home; touch /tmp/new && echo tmp"))
	if got != "tmp" {
		t.Errorf("got %q; want that /tmp alone can be written", got)
	}
	if data, err := os.ReadFile(filepath.Join(root, "etc/passwd")); err != nil || !strings.HasPrefix(string(data), "root:") {
		t.Errorf("the root was changed: %q, %v", data, err)
	}
}

func TestWritesToTheRootStayInTheOverlay(t *testing.T) {
	for name, overlay := range overlays(t, 0) {
		t.Run(name, func(t *testing.T) {
			root := shellRoot(t)
			cfg := shell(t, root, "echo new > /etc/passwd && rm /etc/plain && mkdir -p /var/lib/db && echo rows > /var/lib/db/data && touch /tmp/x && cat /etc/passwd /var/lib/db/data")
			cfg.Overlay = overlay
			if got, exit := run(t, cfg); got != "new\nrows" || exit.Code != 0 {
				t.Errorf("got %q, %v", got, exit)
			}
			if data, err := os.ReadFile(filepath.Join(root, "etc/passwd")); err != nil || !strings.HasPrefix(string(data), "root:") {
				t.Errorf("the root was changed: %q, %v", data, err)
			}
			if _, err := os.Stat(filepath.Join(root, "etc/plain")); err != nil {
				t.Errorf("a file was removed from the root: %v", err)
			}
			for _, dir := range []string{root, overlay.Dir} {
				if entries, err := os.ReadDir(dir); dir != "" && err == nil && strings.Contains(entryNames(entries), "filestore") {
					t.Errorf("%s holds a file of the overlay's: %s", dir, entryNames(entries))
				}
			}
		})
	}
}

// overlays are the kinds of overlays there are, of a size.
func overlays(t *testing.T, size int64) map[string]*sandbox.Overlay {
	return map[string]*sandbox.Overlay{"memory": {Size: size}, "directory": {Dir: t.TempDir(), Size: size}}
}

func entryNames(entries []os.DirEntry) string {
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return strings.Join(names, " ")
}

func TestAFullDiskIsTheGuestsOwnTrouble(t *testing.T) {
	const script = `
		dd if=/dev/zero of=%s/fill bs=1M count=64 2>&1 | grep -o 'No space left on device'
		ls -s -k %s/fill | { read size rest; [ $size -le 8192 ] && [ $size -ge 6000 ] && echo bounded; }
		rm %s/fill && echo again > %s/small && cat %s/small`
	check := func(t *testing.T, cfg sandbox.Config) {
		t.Helper()
		if got, exit := run(t, cfg); got != "No space left on device\nbounded\nagain" || exit.Code != 0 {
			t.Errorf("got %q, %v", got, exit)
		}
	}
	for name, overlay := range overlays(t, 8<<20) {
		t.Run(name, func(t *testing.T) {
			cfg := shell(t, shellRoot(t), strings.ReplaceAll(script, "%s", "/data"))
			cfg.Overlay = overlay
			check(t, cfg)
		})
	}
	t.Run("tmpfs", func(t *testing.T) {
		cfg := shell(t, shellRoot(t), strings.ReplaceAll(script, "%s", "/dev/shm"))
		cfg.Mounts = []sandbox.Mount{{Target: "/dev/shm", Size: 8 << 20}}
		check(t, cfg)
	})
}

func TestMountsOfTheHost(t *testing.T) {
	for name, overlay := range map[string]*sandbox.Overlay{"read-only root": nil, "overlay": {}} {
		t.Run(name, func(t *testing.T) {
			host := t.TempDir()
			for _, dir := range []string{"alloc", "local", "secrets"} {
				if err := os.Mkdir(filepath.Join(host, dir), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(host, dir, "name"), []byte(dir+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			cfg := shell(t, shellRoot(t), `cat /alloc/name /local/name /run/secrets/name /etc/one
				echo written > /alloc/new && echo x > /run/secrets/new || echo refused
				echo x > /etc/one || echo refused`)
			cfg.Overlay = overlay
			cfg.Mounts = []sandbox.Mount{
				{Source: filepath.Join(host, "alloc"), Target: "/alloc", Writable: true},
				{Source: filepath.Join(host, "local"), Target: "/local", Writable: true},
				{Source: filepath.Join(host, "secrets"), Target: "/run/secrets"},
				{Source: filepath.Join(host, "local/name"), Target: "/etc/one"},
			}
			if got, _ := run(t, cfg); got != "alloc\nlocal\nsecrets\nlocal\nrefused\nrefused" {
				t.Errorf("got %q", got)
			}
			if data, err := os.ReadFile(filepath.Join(host, "alloc/new")); err != nil || string(data) != "written\n" {
				t.Errorf("what the guest wrote to a mount is %q on the host, %v", data, err)
			}
		})
	}
}

func TestFilesMadeForTheGuest(t *testing.T) {
	for name, overlay := range map[string]*sandbox.Overlay{"read-only root": nil, "overlay": {}} {
		t.Run(name, func(t *testing.T) {
			cfg := shell(t, shellRoot(t), "cat /etc/hosts /etc/resolv.conf /etc/deep/er; echo x > /etc/hosts || echo refused; id -u")
			cfg.Overlay, cfg.User = overlay, "worker"
			cfg.Files = []sandbox.File{
				{Target: "/etc/hosts", Content: "127.0.0.1 localhost\n"},
				{Target: "/etc/resolv.conf", Content: "nameserver 127.0.0.1\n"},
				{Target: "/etc/deep/er", Content: "deep\n"},
			}
			if got, _ := run(t, cfg); got != "127.0.0.1 localhost\nnameserver 127.0.0.1\ndeep\nrefused\n1000" {
				t.Errorf("got %q", got)
			}
			if _, err := os.Stat(filepath.Join(cfg.Rootfs, "etc/hosts")); err == nil {
				t.Error("a mount point was made in the root on the host")
			}
		})
	}
}

func TestNothingOutsideTheMountsIsReached(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, mounted := shellRoot(t), t.TempDir()
	for _, dir := range []string{root, mounted} {
		for name, target := range map[string]string{
			"absolute": outside + "/secret", "relative": strings.Repeat("../", 30) + outside[1:] + "/secret",
			"magic": "/proc/1/root" + outside + "/secret", "directory": outside,
		} {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	paths := []string{outside + "/secret", "/proc/1/root" + outside + "/secret", "/proc/self/cwd/" + strings.Repeat("../", 30) + outside[1:] + "/secret", "/mnt/../../../../.." + outside + "/secret"}
	for _, dir := range []string{"", "/mnt"} {
		paths = append(paths, dir+"/absolute", dir+"/relative", dir+"/magic", dir+"/directory/secret")
	}
	cfg := shell(t, root, "cat "+strings.Join(paths, " ")+"; ls -d "+filepath.Dir(outside)+"; ln /mnt/absolute /mnt/hard; ls "+hostPlace)
	cfg.Mounts = []sandbox.Mount{{Source: mounted, Target: "/mnt", Writable: true}}
	cfg.Capabilities = sandbox.DefaultCapabilities()
	if got, _ := run(t, cfg); got != "" {
		t.Errorf("the guest read %q", got)
	}
}

// hostPlace is a place of every host that no guest may see.
const hostPlace = "/var/lib/dpkg"

// TestPlacesForMountsAreMadeOverTheRoot: in a root that cannot be written even by the host, through links of the root's, without
// a change to what else is there.
func TestPlacesForMountsAreMadeOverTheRoot(t *testing.T) {
	root, host := shellRoot(t), t.TempDir()
	for _, step := range []error{
		os.MkdirAll(filepath.Join(root, "run/old"), 0o755), os.Mkdir(filepath.Join(root, "var"), 0o755),
		os.Symlink("/run", filepath.Join(root, "var/run")), os.Symlink("../../../../run", filepath.Join(root, "up")),
		os.Chmod(filepath.Join(root, "run"), 0o715), os.Chown(filepath.Join(root, "run"), 7, 8),
		os.WriteFile(filepath.Join(host, "fact"), []byte("fact\n"), 0o644),
		unix.Mount(root, root, "", unix.MS_BIND, ""), unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""),
	} {
		must(t, step)
	}
	t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
	cfg := shell(t, root, `cat /var/run/new/dir/fact /run/new/dir/fact /up/two/fact /etc/hosts /data/fact
		ls /run; stat -c '%a %u %g' /run; grep -c root /etc/passwd; ls -d /tmp /proc/1 /dev/null`)
	cfg.Mounts = []sandbox.Mount{
		{Source: host, Target: "/var/run/new/dir"}, {Source: host, Target: "/up/two"}, {Source: host, Target: "/data"},
	}
	cfg.Files = []sandbox.File{{Target: "/etc/hosts", Content: "hosts\n"}}
	want := "fact\nfact\nfact\nhosts\nfact\nnew\nold\ntwo\n715 7 8\n1\n/dev/null\n/proc/1\n/tmp"
	if got, _ := run(t, cfg); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(mounts), cfg.StateDir) {
		t.Error("a mount is left")
	}
}
