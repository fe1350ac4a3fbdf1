package spec_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

func valid() spec.Function {
	return spec.Function{
		App: "llm", Name: "generate",
		Config: spec.Config{Code: "/srv/llm", Handler: &spec.Handler{Type: spec.HandlerGo, Entry: "generate"}},
	}
}

func TestValidSpecs(t *testing.T) {
	for name, change := range map[string]func(*spec.Function){
		"defaults": func(*spec.Function) {},
		"a blob":   func(f *spec.Function) { f.Code = "sha256:" + strings.Repeat("0f", 32) },
		"egress with lists": func(f *spec.Function) {
			f.Network = spec.Network{Egress: true, Allow: []string{"10.0.0.0/8:443", "fd00::/8", "[fd00::/8]:53"}}
		},
		"min above 10": func(f *spec.Function) { f.Scaling.Min = 20 },
		"a web endpoint": func(f *spec.Function) {
			f.Web = spec.Web{Enabled: true, Public: true, Domains: []string{"a.example.org", "b-1.example"}, Origins: []string{"https://a.example:8443", "*"}}
		},
		"a public server": func(f *spec.Function) {
			f.Handler = &spec.Handler{Type: spec.HandlerHTTP, Port: 80}
			f.Image, f.Code, f.Web.Public = "nginx", "", true
		},
		"ordinary task": func(f *spec.Function) { f.Handler, f.Code = nil, "" },
	} {
		f := valid()
		change(&f)
		if err := f.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrongSpecsNameTheField(t *testing.T) {
	for field, change := range map[string]func(*spec.Function){
		"namespace":       func(f *spec.Function) { f.Namespace = "a.b" },
		"app":             func(f *spec.Function) { f.App = "-llm" },
		"name":            func(f *spec.Function) { f.Name = strings.Repeat("x", 64) },
		"version":         func(f *spec.Function) { f.Version = "a\nb" },
		"priority":        func(f *spec.Function) { f.Priority = 101 },
		"drain":           func(f *spec.Function) { f.Drain = -1 },
		"handler.type":    func(f *spec.Function) { f.Handler.Type = "ruby" },
		"code":            func(f *spec.Function) { f.Code = "" },
		"timeout":         func(f *spec.Function) { f.Timeout = spec.Duration(time.Millisecond) },
		"startup_timeout": func(f *spec.Function) { f.StartupTimeout = spec.Duration(25 * time.Hour) },
		"concurrency":     func(f *spec.Function) { f.Concurrency = 1001 },
		"max_pending":     func(f *spec.Function) { f.MaxPending = -1 },
		"retries.max":     func(f *spec.Function) { f.Retries.Max = 101 },
		"retries.backoff": func(f *spec.Function) { f.Retries.Backoff = math.NaN() },
		"retries.initial": func(f *spec.Function) { f.Retries.Initial = -1 },
		"web": func(f *spec.Function) {
			f.Handler, f.Image, f.Code, f.Web.Enabled = &spec.Handler{Type: spec.HandlerExec}, "busybox", "", true
		},
		"web.enabled":      func(f *spec.Function) { f.Web.Public = true },
		"web.domains[0]":   func(f *spec.Function) { f.Web = spec.Web{Enabled: true, Domains: []string{"A.example.org"}} },
		"web.domains[1]":   func(f *spec.Function) { f.Web = spec.Web{Enabled: true, Domains: []string{"a.example", "a.example"}} },
		"web.domains[2]":   func(f *spec.Function) { f.Web = spec.Web{Enabled: true, Domains: []string{"a.b", "b.c", "127.0.0.1"}} },
		"web.origins[0]":   func(f *spec.Function) { f.Web = spec.Web{Enabled: true, Origins: []string{"https://a.example/"}} },
		"network.allow":    func(f *spec.Function) { f.Network.Allow = []string{"10.0.0.0/8"} },
		"network.allow[0]": func(f *spec.Function) { f.Network = spec.Network{Egress: true, Allow: []string{"10.0.0.0/8:0"}} },
		"mount[0].source":  func(f *spec.Function) { f.Mounts = []spec.Mount{{Source: "../a", Target: "/b"}} },
		"mount[0].type":    func(f *spec.Function) { f.Mounts = []spec.Mount{{Type: "volume", Source: "a", Target: "/b"}} },
		"mount[0].tmpfs_options": func(f *spec.Function) {
			f.Mounts = []spec.Mount{{Type: "tmpfs", Target: "/b", TmpfsOptions: make([]spec.TmpfsOptions, 2)}}
		},
		"volumes[0]":               func(f *spec.Function) { f.Volumes = []string{"a"} },
		"volumes[0].target":        func(f *spec.Function) { f.Volumes = []string{"a:b"} },
		"handler.port":             func(f *spec.Function) { f.Handler.Port = 80 },
		"handler.ready":            func(f *spec.Function) { f.Handler.Ready = "healthz" },
		"command":                  func(f *spec.Function) { f.Command = "sh" },
		"tty":                      func(f *spec.Function) { f.TTY = true },
		"cap_add[0]":               func(f *spec.Function) { f.CapAdd = []string{"net admin"} },
		"pids_limit":               func(f *spec.Function) { f.PidsLimit = -1 },
		"shm_size":                 func(f *spec.Function) { f.ShmSize = -1 },
		"memory_hard_limit":        func(f *spec.Function) { f.MemoryHardLimit = -1 },
		"ulimit.nofile":            func(f *spec.Function) { f.Ulimit = []map[string]string{{"nofile": "2:1"}} },
		"writable.medium":          func(f *spec.Function) { f.Writable = &spec.Writable{Medium: "tape"} },
		"writable.size":            func(f *spec.Function) { f.Writable = &spec.Writable{SizeMB: -1} },
		"network_mode":             func(f *spec.Function) { f.NetworkMode = "container:x" },
		"dns_servers[0]":           func(f *spec.Function) { f.DNSServers = []string{"dns.example"} },
		"extra_hosts[0]":           func(f *spec.Function) { f.ExtraHosts = []string{"a=1.2.3.4"} },
		"work_dir":                 func(f *spec.Function) { f.WorkDir = "srv" },
		"image_pull_timeout":       func(f *spec.Function) { f.ImagePullTimeout = -1 },
		"mount[0].target":          func(f *spec.Function) { f.Mounts = []spec.Mount{{Source: "/a", Target: "/b/../c"}} },
		"env.A=B":                  func(f *spec.Function) { f.Env = map[string]string{"A=B": "x"} },
		"resources.memory":         func(f *spec.Function) { f.Resources.MemoryMB = 1 },
		"resources.gpus":           func(f *spec.Function) { f.Resources.GPUs = -1 },
		"resources.gpu_kinds":      func(f *spec.Function) { f.Resources.GPUKinds = []string{"h100"} },
		"resources.gpu_kinds[1]":   func(f *spec.Function) { f.Resources.GPUs, f.Resources.GPUKinds = 1, []string{"h100", "h100"} },
		"resources.gpu_kinds[0]":   func(f *spec.Function) { f.Resources.GPUs, f.Resources.GPUKinds = 1, []string{"a100 80gb"} },
		"scaling.min":              func(f *spec.Function) { f.Scaling.Min, f.Scaling.Max = 3, 2 },
		"scaling.max":              func(f *spec.Function) { f.Scaling.Max = spec.MaxScale + 1 },
		"scaling.target_inflight":  func(f *spec.Function) { f.Scaling.TargetInflight = -1 },
		"scaling.buffer":           func(f *spec.Function) { f.Scaling.Buffer = -1 },
		"scaling.scaledown_window": func(f *spec.Function) { f.Scaling.ScaledownWindow = 1 },
	} {
		t.Run(field, func(t *testing.T) {
			f := valid()
			change(&f)
			var wrong *spec.ValidationError
			if err := f.Validate(); !errors.As(err, &wrong) {
				t.Fatalf("got %v", err)
			}
			if len(wrong.Fields) != 1 || wrong.Fields[0].Field != field || wrong.Fields[0].Mend == "" {
				t.Errorf("got %+v, want one about %s with a mend", wrong.Fields, field)
			}
		})
	}
}

func TestSnapshotOfAWritableMountIsRefused(t *testing.T) {
	f := valid()
	f.Snapshot.Enabled = true
	f.Mounts = []spec.Mount{{Source: "/a", Target: "/b"}}
	if err := f.Validate(); err == nil || !strings.Contains(err.Error(), "mount[0].readonly") {
		t.Errorf("got %v", err)
	}
}

func TestConfigReadsBlocksHoweverTheyCome(t *testing.T) {
	object := map[string]any{"type": "go", "entry": "x"}
	want := spec.Config{Code: "/a", Handler: &spec.Handler{Type: "go", Entry: "x"}}
	for name, handler := range map[string]any{
		"JSON": object, "the agent's API": []any{object}, "nomad/api": []map[string]any{object},
	} {
		got, err := spec.DecodeConfig(map[string]any{"code": "/a", "handler": handler, "retries": []any{}})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestWrongConfigsNameTheField(t *testing.T) {
	for field, raw := range map[string]map[string]any{
		"handler":     {"handler": []any{map[string]any{}, map[string]any{}}},
		"concurency":  {"concurency": 3},
		"concurrency": {"concurrency": "three"},
	} {
		_, err := spec.DecodeConfig(raw)
		var wrong spec.FieldError
		if !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if _, err := spec.DecodeConfig(map[string]any{"timeout": 90}); err == nil || !strings.Contains(err.Error(), "90s") {
		t.Errorf("a duration without unit: %v", err)
	}
}

func TestRetryDelaysGrowToTheirLimit(t *testing.T) {
	r := spec.Retries{Backoff: 3, Initial: spec.Duration(time.Second), MaxDelay: spec.Duration(10 * time.Second)}
	for attempt, want := range map[int]time.Duration{1: time.Second, 2: 3 * time.Second, 3: 9 * time.Second, 4: 10 * time.Second, 1000: 10 * time.Second} {
		if got := r.Delay(attempt); got != want {
			t.Errorf("after attempt %d: got %s, want %s", attempt, got, want)
		}
	}
}

func TestManifestsAreChecked(t *testing.T) {
	for text, says := range map[string]string{
		`{"format":2,"app":"a"}`:                                      "format",
		`{"format":1,"app":"a b"}`:                                    "app",
		`{"format":1,"app":"a","functions":[{"app":"b","name":"c"}]}`: "functions[0].app",
		`{"format":1,"app":"a","function":[]}`:                        "function",
		`hello`:                                                       "manifest",
	} {
		if _, err := spec.DecodeManifest([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want something about %s", text, err, says)
		}
	}
}

// FuzzDecodeConfig: no config of a job makes the driver or a gateway panic, and what passes can be written and read again.
func FuzzDecodeConfig(f *testing.F) {
	f.Add([]byte(`{"code":"/a","handler":[{"type":"go"}],"timeout":"5s"}`))
	f.Add([]byte(`{"retries":[{"backoff":1e308}],"mount":[{"source":"/"}]}`))
	f.Add([]byte(`{"mount":[]}`))
	f.Add([]byte(`{"network":{"egress":true,"allow":["::/0"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var raw map[string]any
		if json.Unmarshal(data, &raw) != nil {
			return
		}
		config, err := spec.DecodeConfig(raw)
		if err != nil {
			return
		}
		if config.WithDefaults().Validate() != nil {
			return
		}
		text, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		var again map[string]any
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		got, err := spec.DecodeConfig(again)
		if err != nil {
			t.Fatal(err)
		}
		if written, err := json.Marshal(got); err != nil || string(written) != string(text) {
			t.Fatalf("got %s, %v, want %s", written, err, text)
		}
	})
}

// FuzzDecodeManifest: what a program prints is not trusted.
func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"app":"a","functions":[{"app":"a","name":"f"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := spec.DecodeManifest(data)
		if err == nil && !spec.ValidName(m.App) {
			t.Fatalf("app %q passed", m.App)
		}
		for _, f := range m.Functions {
			_ = f.Validate()
		}
	})
}
