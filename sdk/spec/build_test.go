package spec_test

import (
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// TestWrongBuilds names the field of each.
func TestWrongBuilds(t *testing.T) {
	right := spec.Build{Context: "local/src", Args: []map[string]string{{"A": "b"}}, Secrets: []map[string]string{{"t": "secrets/t", "e": "env:E"}}, Name: "team/web:1.2"}
	if err := (spec.Config{Build: &right}).Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*spec.Config){
		"image":            func(c *spec.Config) { c.Image = "alpine" },
		"code":             func(c *spec.Config) { c.Code = "/program" },
		"command":          func(c *spec.Config) { c.Command = "true" },
		"handler":          func(c *spec.Config) { c.Handler = &spec.Handler{Type: spec.HandlerExec} },
		"build.context":    func(c *spec.Config) { c.Build.Context = "sha256:abc" },
		"build.dockerfile": func(c *spec.Config) { c.Build.Context = "" },
		"build.file":       func(c *spec.Config) { c.Build.File = "../Dockerfile" },
		"build.name":       func(c *spec.Config) { c.Build.Name = "Web" },
		"build.secrets.t":  func(c *spec.Config) { c.Build.Secrets = []map[string]string{{"t": "/etc/shadow"}} },
		"build.secrets.e":  func(c *spec.Config) { c.Build.Secrets = []map[string]string{{"e": "env:"}} },
		"build.disk":       func(c *spec.Config) { c.Build.DiskMB = -1 },
		"build.timeout":    func(c *spec.Config) { c.Build.Timeout = spec.MaxTimeout + 1 },
	} {
		build := right
		config := spec.Config{Build: &build}
		change(&config)
		if err := config.Validate(); err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%s: %v", field, err)
		}
	}
	function := spec.Function{App: "a", Name: "f", Config: spec.Config{Build: &right}}
	if err := function.Validate(); err == nil || !strings.Contains(err.Error(), "build: ") {
		t.Errorf("a function: %v", err)
	}
}

// TestImageNames: names are words with a tag.
func TestImageNames(t *testing.T) {
	for name, valid := range map[string]bool{
		"web": true, "team/web:1.2": true, "a-b_c.d/e": true, "web:Latest_1-x": true,
		"": false, "Web": false, "web:": false, "/web": false, "web/": false, "a//b": false, "web:1/2": false, "-web": false,
		strings.Repeat("a", 129): false,
	} {
		if spec.ValidImageName(name) != valid {
			t.Errorf("%q: valid is %v", name, !valid)
		}
	}
}
