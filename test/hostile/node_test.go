// Package hostile tests what guests may not do, through the real driver: Nomad's own plugin harness, real gVisor, real NATS, and a
// network with an outside, in a namespace of its own.
package hostile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/helper/uuid"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/testutils"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/test/hostile/world"
)

func TestMain(m *testing.M) { os.Exit(world.Inside(m.Run)) }

// node is a machine with the driver and NATS, as far as Nomad's client sees it.
type node struct {
	*testutils.DriverHarness
	t      *testing.T
	dir    string
	config driver.Config
	image  string
	js     jetstream.JetStream
	nc     *nats.Conn
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "freshet-hostile-")
	must(t, err)
	n := &node{t: t, dir: dir}
	n.serveNATS(t)
	n.config = driver.Config{
		DataDir: filepath.Join(dir, "data"), Runsc: os.Getenv("FRESHET_RUNSC"), Worker: filepath.Join(os.Getenv("FRESHET_BIN"), "freshet-worker"),
		AllowHostPaths: true, CgroupParent: fmt.Sprintf("freshet-test-%d-%s", os.Getpid(), uuid.Generate()[:8]),
		NATS: driver.NATSConfig{URL: n.nc.ConnectedUrl()},
	}
	n.image = world.Image(t, []string{"/bin/probe", "serve"}, map[string]string{"bin/probe": world.Build(t, "probe")})
	t.Cleanup(func() { tearDown(t, n) })
	ctx, cancel := context.WithCancel(context.Background())
	d := driver.New(ctx, zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel))
	n.DriverHarness = testutils.NewDriverHarness(t, d)
	t.Cleanup(func() {
		cancel()
		n.Kill()
		must(t, d.Close())
	})
	var data []byte
	must(t, base.MsgPackEncode(&data, &n.config))
	must(t, n.SetConfig(&base.Config{PluginConfig: data}))
	return n
}

func (n *node) serveNATS(t *testing.T) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "0.0.0.0", Port: server.RANDOM_PORT, JetStream: true, StoreDir: filepath.Join(n.dir, "nats"), MaxPayload: queue.MaxMessage, NoSigs: true})
	must(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(eventually.Patience) {
		t.Fatal("nats does not start")
	}
	n.nc, err = nats.Connect(strings.Replace(s.ClientURL(), "0.0.0.0", "127.0.0.1", 1))
	must(t, err)
	t.Cleanup(n.nc.Close)
	n.js, err = jetstream.New(n.nc)
	must(t, err)
	must(t, queue.Setup(t.Context(), n.js, queue.Settings{}))
}

// tearDown removes what the driver keeps between tasks, and fails for what else is there.
func tearDown(t *testing.T, n *node) {
	if err := driver.Clear(context.Background(), n.config, zerolog.Nop()); err != nil {
		t.Error(err)
	}
	for _, left := range []string{"tasks", "ahead", "images/holds"} {
		if entries, err := os.ReadDir(filepath.Join(n.config.DataDir, left)); err == nil && len(entries) > 0 {
			t.Errorf("%s of the data directory still holds %s", left, entries[0].Name())
		}
	}
	for _, place := range mounts(t, n.dir) {
		if strings.Contains(place, "/tasks/") {
			t.Errorf("a task's mount is left: %s", place)
		}
		must(t, unix.Unmount(place, unix.MNT_DETACH)) // what the node keeps for its next task
	}
	if left := processes(t, n.dir); len(left) > 0 {
		t.Errorf("processes are left: %s", left)
	}
	must(t, os.RemoveAll(n.dir))
}

// mounts are those below a directory, the last one first.
func mounts(t *testing.T, dir string) []string {
	data, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	var places []string
	for line := range strings.Lines(string(data)) {
		if place := strings.Fields(line)[1]; strings.HasPrefix(place, dir) {
			places = append(places, place)
		}
	}
	slices.Reverse(places)
	return places
}

// processes are the command lines of those that name a word.
func processes(t *testing.T, word string) []string {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	var found []string
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), word) {
			found = append(found, strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return found
}

// task is one on the node.
type task struct {
	*drivers.TaskConfig
	n    *node
	stop sync.Once
}

// start starts a task, until the test ends. config is its config block in HCL.
func (n *node) start(t *testing.T, job, config string, change func(*drivers.TaskConfig)) *task {
	t.Helper()
	return n.startWith(t, job, config, change, nil)
}

// startWith starts it after prepare, which may write into the allocation's directories as Nomad's templates do.
func (n *node) startWith(t *testing.T, job, config string, change, prepare func(*drivers.TaskConfig)) *task {
	t.Helper()
	cfg := &drivers.TaskConfig{
		AllocID: uuid.Generate(), Name: "guest", JobName: job, Namespace: "default", NodeName: "here", Env: map[string]string{},
		Resources: &drivers.Resources{
			NomadResources: &structs.AllocatedTaskResources{Cpu: structs.AllocatedCpuResources{CpuShares: 500}, Memory: structs.AllocatedMemoryResources{MemoryMB: 192}},
			LinuxResources: &drivers.LinuxResources{CPUShares: 500, MemoryLimitBytes: 192 << 20, PercentTicks: 0.125},
		},
	}
	cfg.ID = fmt.Sprintf("%s/%s/%s", cfg.AllocID, cfg.Name, uuid.Generate()[:8])
	n.t.Cleanup(func() { _ = os.Remove(filepath.Dir(cfg.AllocDir)) }) // the harness leaves it, empty
	n.t.Cleanup(n.MkAllocDir(cfg, false))                             // it also ends the connection to the plugin, which other tests of the node need
	if change != nil {
		change(cfg)
	}
	if prepare != nil {
		prepare(cfg)
	}
	schema, err := n.TaskConfigSchema()
	must(t, err)
	var fields map[string]any
	hclutils.NewConfigParser(schema).ParseHCL(t, "config {\n"+config+"\n}", &fields)
	must(t, cfg.EncodeConcreteDriverConfig(fields))
	_, _, err = n.StartTask(cfg)
	if err != nil {
		t.Fatal(err)
	}
	made := &task{TaskConfig: cfg, n: n}
	t.Cleanup(func() { made.destroy(t) })
	return made
}

// destroy stops the task and removes it.
func (task *task) destroy(t *testing.T) {
	task.stop.Do(func() {
		if err := task.n.Impl().DestroyTask(task.ID, true); err != nil && !errors.Is(err, drivers.ErrTaskNotFound) {
			t.Errorf("destroy: %v", err)
		}
	})
}

// wait waits for the task's end.
func (task *task) wait(t *testing.T) *drivers.ExitResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), eventually.Patience)
	defer cancel()
	ends, err := task.n.Impl().WaitTask(ctx, task.ID)
	must(t, err)
	select {
	case end := <-ends:
		return end
	case <-ctx.Done():
		t.Fatal("the task does not end")
		return nil
	}
}

// output is what an ordinary task prints, which runs a script.
func (n *node) output(t *testing.T, script, config string) string {
	t.Helper()
	task := n.start(t, "plain", fmt.Sprintf("image = %q\ncommand = \"/bin/sh\"\nargs = [\"-c\", %q]\n%s", n.image, script, config), nil)
	end := task.wait(t)
	out, err := os.ReadFile(filepath.Join(task.TaskDir().LogDir, "guest.stdout.0"))
	must(t, err)
	if !end.Successful() {
		said, _ := os.ReadFile(filepath.Join(task.TaskDir().LogDir, "guest.stderr.0"))
		t.Fatalf("%q ended with %+v: %s %s", script, end, out, said)
	}
	return string(out)
}

// call calls a function and waits for how it ended.
func (n *node) call(t *testing.T, job, method, input string) queue.Result {
	t.Helper()
	return n.result(t, n.spawn(t, job, method, input))
}

func (n *node) spawn(t *testing.T, job, method, input string) string {
	t.Helper()
	app, name, _ := strings.Cut(job, ".")
	message, err := queue.Envelope{
		Function: queue.Function{Namespace: "default", App: app, Name: name}, Call: ulid.Make().String(),
		Method: method, Published: time.Now(), Body: []byte(input),
	}.Message()
	must(t, err)
	_, err = n.js.PublishMsg(t.Context(), message)
	must(t, err)
	return message.Header.Get(nats.MsgIdHdr)
}

func (n *node) result(t *testing.T, call string) queue.Result {
	t.Helper()
	var result queue.Result
	eventually.True(t, "call "+call+" ends", func() bool {
		var err error
		result, err = queue.LoadResult(t.Context(), n.js, call)
		return err == nil
	})
	return result
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
