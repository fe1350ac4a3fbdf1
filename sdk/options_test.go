package freshet

import (
	"context"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/internal/spectest"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// everyOption is each option once.
func everyOption() []Option {
	return []Option{
		Datacenters("dc"), Priority(1), User("u", "g"), Env("A", "B"), CPU(1), MemoryMB(1), GPU(1, "h100"),
		Scale(1, 2), TargetInflight(1), Buffer(1), ScaledownWindow(1), ZeroWindow(1), BacklogTarget(1), StartsPerMinute(1),
		PredictPeriod(1), Warm("* * * * *", "UTC", time.Hour, 1), Drain(1), Timeout(1), StartupTimeout(1), Concurrency(1), MaxPending(1),
		MaxRunning(1), QueueTimeout(1), CancelOnDisconnect(), Rate(1, 1), Retries(1, 1, 1), RetryDelay(1), RetryOn(wire.KindUser),
		SnapshotGPU(), Secrets("s"), Egress("10.0.0.0/8"), Image("i"), ImageAuth("s", "u", "p"), ImagePull(1, true), WorkDir("/w"), Hostname("h"),
		ReadonlyRoot(), Writable(spec.MediumDisk, 1), Capabilities("c"), Processes(1), SharedMemory(1), Ulimit("nofile", "1"),
		CPUHardLimit(), MemoryHardLimit(1), Ports("p"), NetworkMode("none"), DNS("1.1.1.1"), DNSSearch([]string{"d"}, []string{"o"}),
		Host("h", "1.1.1.1"), Mount("/a", "/b"), Scratch("/s", 1), Secrets("db"),
		ReadonlyVolume("v", "/v"), NomadVolume("csi:d", "d", "/d"), Cron("0 9 * * *", "UTC"), Every(time.Hour),
		Scheduled(spec.CallSchedule{Name: "n", Method: "m", Missed: "skip"}, 1),
		Public(), Domains("d"), Origins("*"),
	}
}

// noOption says why a field of the spec is no option's; a field's own fields are meant too.
func noOption() map[string]string {
	return map[string]string{
		"app": "freshet.New names it", "namespace": "the deploy says where", "version": "the deploy makes it of the code", "name": "freshet.Func names it", "handler": "it is the SDK's", "code": "the deploy sets it",
		"build": "it is not for functions", "batching": "freshet.Batched has it", "methods": "freshet.Method adds them",
		"parameter": "a class's fields declare them", "entrypoint": "the program is the function's own", "command": "as entrypoint",
		"args": "as entrypoint", "tty": "its streams are the protocol's", "cap_drop": "a handler has none", "volumes": "Mount says it",
		"interactive": "it means nothing here", "init": "it means nothing here", "labels": "it means nothing here", "logging": "it means nothing here",
		"web.enabled": "Server sets it", "mount.tmpfs_options.mode": "0o1777 suits a scratch directory",
	}
}

func TestEveryFieldOfTheSpecHasItsOption(t *testing.T) {
	app := New("a")
	Func(app, "f", func(context.Context, string) (string, error) { return "", nil }, everyOption()...)
	got := app.functions[0].spec
	for _, path := range spectest.Unset(got, noOption()) {
		t.Errorf("no option sets %s: add one, or say in noOption why there is none", path)
	}
}
