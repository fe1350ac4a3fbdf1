//go:build linux

package doctor_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/internal/doctor"
)

// write makes a file with its folders.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil { // some are programs
		t.Fatal(err)
	}
}

// sound is a set-up with nothing wrong, of files that a test may break.
func sound(t *testing.T) doctor.Setup {
	t.Helper()
	dir := t.TempDir()
	s := doctor.Setup{
		Bin: filepath.Join(dir, "bin"), Nomad: filepath.Join(dir, "nomad"), Runsc: filepath.Join(dir, "runsc"),
		Proc: filepath.Join(dir, "proc"), Cgroup: filepath.Join(dir, "cgroup"), Dev: filepath.Join(dir, "dev"),
		State: filepath.Join(dir, "state"), MinFree: 1,
	}
	for _, name := range []string{"freshet-driver", "freshet-worker", "freshet-init"} {
		write(t, filepath.Join(s.Bin, name), "#!/bin/sh\n")
	}
	write(t, s.Nomad, "#!/bin/sh\necho Nomad v1.6.3\n")
	write(t, s.Runsc, "#!/bin/sh\necho runsc version release-20260901.0\n")
	write(t, filepath.Join(s.Proc, "sys/kernel/osrelease"), "6.12.1-generic\n")
	write(t, filepath.Join(s.Proc, "filesystems"), "nodev\ttmpfs\nnodev\toverlay\n")
	write(t, filepath.Join(s.Cgroup, "cgroup.controllers"), "cpuset cpu io memory pids\n")
	return s
}

// listener takes a port and says something to who connects.
func listener(t *testing.T, says string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(says)) // it may have gone
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l
}

// answering is an HTTP server with one answer.
func answering(t *testing.T, status int, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body)) // the client sees it
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestNothingIsWrongWithASoundSetup(t *testing.T) {
	s := sound(t)
	s.NATS = "nats://" + listener(t, "INFO {}\r\n").Addr().String()
	s.NomadAPI = answering(t, 200, `[{"Name":"one","Drivers":{"freshet":{"Detected":true,"Healthy":true}}}]`)
	s.Gateway = answering(t, 200, `[{},{}]`)
	for _, f := range doctor.Run(t.Context(), s) {
		if f.Wrong {
			t.Errorf("%s: %s", f.Name, f.Says)
		}
	}
}

// TestBrokenSetupsAreExplained: of each the one thing is found that is broken, and how to mend it.
func TestBrokenSetupsAreExplained(t *testing.T) {
	remove := func(path string) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		breaks           func(t *testing.T, s *doctor.Setup)
		name, says, mend string
	}{
		"no root":          {func(_ *testing.T, s *doctor.Setup) { s.User = 1000 }, "user", "not root", "sudo freshet up"},
		"old kernel":       {func(t *testing.T, s *doctor.Setup) { write(t, s.Proc+"/sys/kernel/osrelease", "4.19.0\n") }, "kernel", "4.19.0 is too old", "5.6 or newer"},
		"no overlay":       {func(t *testing.T, s *doctor.Setup) { write(t, s.Proc+"/filesystems", "nodev\ttmpfs\n") }, "file systems", "no overlay", "modprobe overlay"},
		"no groups":        {func(_ *testing.T, s *doctor.Setup) { remove(s.Cgroup) }, "control groups", "neither", "mount -t cgroup2"},
		"no memory group":  {func(t *testing.T, s *doctor.Setup) { write(t, s.Cgroup+"/cgroup.controllers", "cpu pids\n") }, "control groups", "controller memory", "cgroup_no_v1"},
		"no driver binary": {func(_ *testing.T, s *doctor.Setup) { remove(s.Bin + "/freshet-driver") }, "programs", "freshet-driver is not there", "make build"},
		"no nomad":         {func(_ *testing.T, s *doctor.Setup) { remove(s.Nomad) }, "nomad", "does not run", "make tools"},
		"old nomad":        {func(t *testing.T, s *doctor.Setup) { write(t, s.Nomad, "#!/bin/sh\necho Nomad v1.2.0\n") }, "nomad", "older than 1.6", "--nomad"},
		"wrong runsc":      {func(t *testing.T, s *doctor.Setup) { write(t, s.Runsc, "#!/bin/sh\necho runc version 1.1\n") }, "runsc", "is no runsc", "--runsc"},
		"failing runsc":    {func(t *testing.T, s *doctor.Setup) { write(t, s.Runsc, "#!/bin/sh\nexit 1\n") }, "runsc", "does not run", "make tools"},
		"state is a file":  {func(t *testing.T, s *doctor.Setup) { write(t, s.State, "") }, "state directory", "is a file", "--state"},
		"full disk":        {func(_ *testing.T, s *doctor.Setup) { s.MinFree = 1 << 60 }, "disk", "are free", "make room"},
		"taken port": {func(t *testing.T, s *doctor.Setup) {
			s.Ports = []int{listener(t, "").Addr().(*net.TCPAddr).Port}
		}, "ports", "is taken", "ss -ltnp"},
		"GPU without driver": {func(t *testing.T, s *doctor.Setup) { write(t, s.Dev+"/nvidia0", "") }, "GPU", "driver is not loaded", "modprobe nvidia"},
		"no NATS":            {func(_ *testing.T, s *doctor.Setup) { s.NATS = "nats://127.0.0.1:1" }, "NATS", "cannot be reached", "nats.log"},
		"another server": {func(t *testing.T, s *doctor.Setup) {
			s.NATS = "nats://" + listener(t, "220 mail\r\n").Addr().String()
		}, "NATS", "is no NATS", "end what listens there"},
		"Nomad is away": {func(_ *testing.T, s *doctor.Setup) { s.NomadAPI = "http://127.0.0.1:1" }, "driver", "does not answer", "nomad.log"},
		"no plugin":     {func(t *testing.T, s *doctor.Setup) { s.NomadAPI = answering(t, 200, `[{"Name":"one"}]`) }, "driver", "none has the driver", "docs/driver.md"},
		"sick plugin": {func(t *testing.T, s *doctor.Setup) {
			s.NomadAPI = answering(t, 200, `[{"Name":"one","Drivers":{"freshet":{"Detected":true,"HealthDescription":"no runsc"}}}]`)
		}, "driver", "one: no runsc", "nomad node status"},
		"wrong token":     {func(t *testing.T, s *doctor.Setup) { s.Gateway = answering(t, 401, `{}`) }, "gateway", "the token", "FRESHET_TOKEN"},
		"gateway is away": {func(_ *testing.T, s *doctor.Setup) { s.Gateway = "http://127.0.0.1:1" }, "gateway", "does not answer", "gateway.log"},
	} {
		t.Run(name, func(t *testing.T) {
			s := sound(t)
			test.breaks(t, &s)
			found := false
			for _, f := range doctor.Run(t.Context(), s) {
				switch {
				case f.Name != test.name && f.Wrong:
					t.Errorf("%s is wrong too: %s", f.Name, f.Says)
				case f.Name == test.name:
					found = f.Wrong && strings.Contains(f.Says, test.says) && strings.Contains(f.Mend, test.mend)
					if !found {
						t.Errorf("it says %+v; want %q, mended by %q", f, test.says, test.mend)
					}
				}
			}
			if !found && !t.Failed() {
				t.Errorf("nothing is said of %s", test.name)
			}
		})
	}
}
