package python_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/sdk/internal/spectest"
	"github.com/freshet-dev/freshet/sdk/python"
)

// everySetting is each setting of a function in Python once.
const everySetting = `
import freshet

@freshet.function(
    name="f", image="i", python="/bin/python3", args=["-O"], user="u", group_add=["g"], work_dir="/w", hostname="h", env={"A": "B"},
    cpu=1, memory=128, gpu=(1, "h100"), memory_hard_limit=256, cpu_hard_limit=True, pids_limit=1, shm_size=1, ulimit={"nofile": 1},
    timeout=1, startup_timeout="2m", queue_timeout=1, drain=1, concurrency=1, max_pending=1, max_running=1, cancel_on_disconnect=True,
    priority=1, datacenters=["dc"], methods=["m"], rate={"per_second": 0.5, "burst": 1},
    retries={"max": 1, "backoff": 1.5, "initial": 0.5, "max_delay": 1, "on": ["crash"]}, snapshot={"gpu": True},
    scale={
        "min": 1, "max": 2, "target_inflight": 1, "buffer": 1, "scaledown_window": 1, "zero_window": 1, "backlog_target": 1,
        "starts_per_minute": 1, "predict_period": "24h", "schedule": [{"cron": "0 8 * * *", "timezone": "UTC", "for": "1h", "min": 1}],
    },
    schedule=[
        {"name": "a", "cron": "0 9 * * *", "time_zone": "UTC", "method": "m", "input": {"n": 1}, "missed": "skip"}, {"name": "b", "every": 60, "method": "m"},
    ],
    web={"public": True, "domains": ["a.example"], "origins": ["*"]}, secrets=["db"], egress=True, allow=["10.0.0.0/8"],
    dns_servers=["1.1.1.1"], dns_search_domains=["d"], dns_options=["ndots:2"], extra_hosts=["h:1.1.1.1"], ports=["p"],
    network_mode="bridge", mounts={"/a": "/b"}, volumes={"/v": "v:ro", "/csi": {"name": "c", "source": "csi:c"}}, scratch={"/s": 4096},
    writable={"medium": "disk", "size": 1}, readonly_rootfs=True,
    cap_add=["net_bind_service"], auth={"username": "u", "password": "p", "server_address": "s"}, force_pull=True, image_pull_timeout=1,
)
class F:
    def m(self): ...
`

// noSetting says why a field of the spec is no setting's; a field's own fields are meant too.
func noSetting() map[string]string {
	return map[string]string{
		"namespace": "the deploy sets it", "version": "the deploy makes one from the code", "code": "the deploy sets it",
		"build": "it is not for functions", "batching": "Python gets each call alone", "entrypoint": "it is the runtime's",
		"handler.port": "it is an http handler's", "handler.ready": "it is an http handler's", "handler.live": "it is an http handler's",
		"parameter": "classes are made without arguments", "tty": "its streams are the protocol's", "cap_drop": "a handler has none",
		"volumes": "mounts says it", "mount.tmpfs_options.mode": "0o1777 suits a scratch directory",
		"interactive": "it means nothing here", "init": "it means nothing here", "labels": "it means nothing here", "logging": "it means nothing here",
	}
}

func described(t *testing.T, text string) (python.Description, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.py")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return python.DescribeFile(t.Context(), pythons(t)[0], path)
}

func TestEveryFieldOfTheSpecHasItsSetting(t *testing.T) {
	description, err := described(t, everySetting)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range spectest.Unset(description.Manifest.Functions[0], noSetting()) {
		t.Errorf("no setting sets %s: add one, or say in noSetting why there is none", path)
	}
	text, err := os.ReadFile("../../docs/python.md")
	if err != nil {
		t.Fatal(err)
	}
	_, wrong := described(t, "import freshet\n@freshet.function(no=1)\ndef f(): ...\n")
	if wrong == nil {
		t.Fatal("there is a setting no")
	}
	_, names, _ := strings.Cut(wrong.Error(), "use one of ")
	_, table, _ := strings.Cut(string(text), "## Settings")
	for name := range strings.SplitSeq(strings.TrimSpace(names), ", ") {
		if name != "name" && !strings.Contains(table, "`"+name+"`") {
			t.Errorf("docs/python.md does not name the setting %q", name)
		}
	}
}

// TestWrongSettingsAreSaidWithTheirPlace: what the spec refuses is told with the file's line too, before anything is deployed.
func TestWrongSettingsAreSaidWithTheirPlace(t *testing.T) {
	text := "import freshet\n"
	var wants []string
	for i, test := range []struct{ setting, field string }{
		{"timeout='48h'", "timeout"},
		{"scale=(3, 2)", "scaling.min"},
		{"schedule=[{'cron': '0 9 * * *', 'method': '-'}]", "schedule[0].method"},
		{"rate={'burst': 1}", "rate.burst"},
		{"gpu='no kind!'", "resources.gpu_kinds"},
		{"retries={'max': 1, 'on': ['bad weather']}", "retries.on"},
		{"web={'origins': ['example.org']}", "web.origins"},
	} {
		text += fmt.Sprintf("@freshet.function(%s)\ndef f%d(): ...\n", test.setting, i)
		wants = append(wants, fmt.Sprintf("app.py:%d: f%d: %s", 2+2*i, i, test.field))
	}
	_, err := described(t, text)
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it with %q", err, want)
		}
	}
}
