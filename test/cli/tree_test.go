package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryCommandHasItsScript: each command of the reference is run by a script, as people do, and once so that it fails.
func TestEveryCommandHasItsScript(t *testing.T) {
	reference := newTerminal(t).run(t, "reference")
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var scripts strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		scripts.Write(data)
	}
	heads := regexp.MustCompile(`(?m)^### (freshet( [a-z]+)*)`).FindAllStringSubmatch(reference, -1)
	if len(heads) < 30 {
		t.Fatalf("the reference has %d commands", len(heads))
	}
	for _, head := range heads {
		name := strings.TrimPrefix(head[1], "freshet ")
		if groups(reference, head[1]) || elsewhere(name) {
			continue
		}
		run := regexp.MustCompile(`(?m)^(exec|exits|until|!).*\bfreshet ` + name + `\b`)
		if !run.MatchString(scripts.String()) {
			t.Errorf("no script runs freshet %s", name)
		}
		fails := regexp.MustCompile(`(?m)^(exits|until) [1-9]\d* .*\bfreshet ` + name + `\b`)
		if !fails.MatchString(scripts.String()) && !unfailing(name) {
			t.Errorf("no script has freshet %s fail", name)
		}
	}
}

// groups tells whether a command does nothing but hold others.
func groups(reference, command string) bool {
	return command == "freshet" || strings.Contains(reference, "\n### "+command+" ") &&
		regexp.MustCompile(`(?m)^### `+command+` [a-z]`).MatchString(reference) && command != "freshet calls"
}

// elsewhere tells of commands that tests run which are not scripts: of edits, of images, and of whole clusters.
func elsewhere(name string) bool {
	switch name {
	case "serve", "demo", "gateway", "autoscaler":
		return true
	}
	return strings.HasPrefix(name, "image ") || strings.HasPrefix(name, "completion ")
}

// unfailing tells of commands that only a wrong flag can make fail.
func unfailing(name string) bool {
	switch name {
	case "version", "down", "context ls", "help", "completion":
		return true
	}
	return false
}
