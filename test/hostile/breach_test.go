package hostile

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/test/hostile/world"
)

// word is what others have in their files, and no guest may find.
const word = "nobody-elses-business"

// asked is a way to have the probe do something in a sandbox.
type asked func(t *testing.T, verb, with string) string

// each runs the test in every kind of sandbox that guests get: functions with the least and the most network, and ordinary tasks.
func each(t *testing.T, n *node, test func(t *testing.T, ask asked)) {
	t.Helper()
	for kind, config := range map[string]string{"closed": "", "egress": "network { egress = true }"} {
		t.Run("function "+kind, func(t *testing.T) {
			job := "probe." + kind
			n.start(t, job, n.exec(config), nil)
			test(t, func(t *testing.T, verb, with string) string {
				t.Helper()
				result := n.call(t, job, verb, with)
				if result.Error != nil {
					t.Fatalf("%s %s: %v", verb, with, result.Error)
				}
				return string(result.Body)
			})
		})
	}
	for kind, config := range map[string]string{"root": "", "user": `writable { medium = "memory" }`} {
		t.Run("task "+kind, func(t *testing.T) {
			test(t, func(t *testing.T, verb, with string) string {
				t.Helper()
				return n.output(t, fmt.Sprintf("echo '%s' | /bin/probe %s", with, verb), config)
			})
		})
	}
}

// exec is a function that does what each call says.
func (n *node) exec(more string) string {
	return fmt.Sprintf("image = %q\nhandler { type = \"exec\" }\ncommand = \"/bin/probe\"\nargs = [\"{{method}}\"]\ntimeout = \"30s\"\n%s", n.image, more)
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var into T
	if err := json.Unmarshal([]byte(text), &into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return into
}

func TestNoWayOut(t *testing.T) {
	n := newNode(t)
	must(t, os.WriteFile(filepath.Join(n.dir, "host-file"), []byte(word), 0o666))
	neighbour := n.start(t, "neighbour", fmt.Sprintf("image = %q\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"for d in /alloc /local /secrets /tmp; do echo %s > $d/found; done; sleep 1000\"]", n.image, word), nil)
	serve(t, "0.0.0.0:4646", "0.0.0.0:8500", "0.0.0.0:4222")
	port := n.nc.ConnectedUrl()[strings.LastIndexByte(n.nc.ConnectedUrl(), ':'):]
	var closed []string
	for _, host := range []string{"127.0.0.1", world.Host, "192.0.0.1", "198.18.0.1"} {
		for _, service := range []string{":4646", ":8500", ":4222", port} {
			closed = append(closed, host+service)
		}
	}
	closed = append(closed, world.Metadata+":80", world.Private+":80", "[::1]:4646", "[fe80::1]:80")
	t.Log("neighbour", neighbour.AllocID)
	each(t, n, func(t *testing.T, ask asked) {
		if got := decode[struct {
			Tried    int
			Breaches []string
		}](t, ask(t, "try", "")); got.Tried < 40 || len(got.Breaches) > 0 {
			t.Errorf("of %d attempts these went well: %q", got.Tried, got.Breaches)
		}
		if found := decode[[]string](t, ask(t, "read", word)); len(found) > 0 {
			t.Errorf("found others' files: %q", found)
		}
		list, err := json.Marshal(closed)
		must(t, err)
		for address, answer := range decode[map[string]string](t, ask(t, "dial", string(list))) {
			if !strings.HasPrefix(answer, "no: ") {
				t.Errorf("%s %s", address, answer)
			}
		}
		open := decode[map[string]string](t, ask(t, "dial", fmt.Sprintf("[%q]", world.Website+":80")))[world.Website+":80"]
		egress := !strings.HasSuffix(t.Name(), "closed")
		if strings.HasPrefix(open, "answered: ") != egress {
			t.Errorf("the website %s, with egress %t", open, egress)
		}
	})
}

// serve answers on the node's own addresses, so that whoever gets through notices.
func serve(t *testing.T, addresses ...string) {
	t.Helper()
	for _, address := range addresses {
		listener, err := net.Listen("tcp", address)
		must(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte("the node\n"))
				_ = conn.Close()
			}
		}()
		t.Cleanup(func() {
			must(t, listener.Close())
			<-done
		})
	}
}

// small gives a task little of everything.
func small(cfg *drivers.TaskConfig) {
	cfg.Resources.NomadResources.Memory.MemoryMB, cfg.Resources.LinuxResources.MemoryLimitBytes = 96, 96<<20
}

func TestGuestsThatWantTooMuch(t *testing.T) {
	n := newNode(t)
	n.start(t, "quiet.neighbour", n.exec(""), nil)
	calm := func(t *testing.T) {
		t.Helper()
		if result := n.call(t, "quiet.neighbour", "echo", "still here"); result.Error != nil {
			t.Errorf("the neighbour: %v", result.Error)
		}
	}
	calm(t)
	t.Run("memory of a function", func(t *testing.T) {
		task := n.start(t, "bomb.memory", n.exec(""), small)
		if result := n.call(t, "bomb.memory", "eat", "2000"); result.Error == nil || result.Error.Kind != wire.KindMemory || !strings.Contains(result.Error.Message, "96 MB") {
			t.Errorf("got %v", result.Error)
		}
		if end := task.wait(t); !end.OOMKilled {
			t.Errorf("the worker ended with %+v", end)
		}
		calm(t)
	})
	t.Run("memory of a task", func(t *testing.T) {
		task := n.start(t, "bomb", fmt.Sprintf("image = %q\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"echo 2000 | exec /bin/probe eat\"]", n.image), small)
		if end := task.wait(t); !end.OOMKilled || end.Successful() {
			t.Errorf("ended with %+v", end)
		}
		calm(t)
	})
	t.Run("processes", func(t *testing.T) {
		n.start(t, "bomb.forks", n.exec("pids_limit = 40"), nil)
		result := n.call(t, "bomb.forks", "forks", "500")
		if result.Error == nil && strings.Contains(string(result.Body), "no end") {
			t.Errorf("started %s", result.Body)
		}
		t.Log(string(result.Body), result.Error)
		calm(t)
	})
	for _, medium := range []string{"disk", "memory"} {
		t.Run(medium, func(t *testing.T) {
			n.start(t, "bomb."+medium, n.exec(fmt.Sprintf("writable {\n medium = %q\n size = 20\n}", medium)), nil)
			result := n.call(t, "bomb."+medium, "fill", "/full 400")
			if result.Error != nil || !strings.Contains(string(result.Body), "no space left") {
				t.Errorf("wrote %s, %v", result.Body, result.Error)
			}
			t.Log(string(result.Body))
			calm(t)
		})
	}
	t.Run("a temporary directory", func(t *testing.T) { // which is the guest's memory
		n.start(t, "bomb.tmp", n.exec(""), nil)
		if result := n.call(t, "bomb.tmp", "fill", "/tmp/full 400"); result.Error == nil || result.Error.Kind != wire.KindMemory {
			t.Errorf("wrote %s, %v", result.Body, result.Error)
		}
		calm(t)
	})
	t.Run("logs", func(t *testing.T) { flood(t, n, calm) })
}

// flood: what a guest prints takes bounded room.
func flood(t *testing.T, n *node, calm func(*testing.T)) {
	t.Helper()
	task := n.start(t, "bomb", fmt.Sprintf("image = %q\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"echo 150 | exec /bin/probe flood\"]", n.image), nil)
	if end := task.wait(t); !end.Successful() {
		t.Errorf("ended with %+v", end)
	}
	var size int64
	files, err := filepath.Glob(filepath.Join(task.TaskDir().LogDir, "*"))
	must(t, err)
	for _, file := range files {
		info, err := os.Stat(file)
		must(t, err)
		if info.Mode().IsRegular() {
			size += info.Size()
		}
	}
	if size > 110<<20 || size < 50<<20 {
		t.Errorf("the logs take %d MB", size>>20)
	}
	calm(t)
}
