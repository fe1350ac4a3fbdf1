package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shellBlocks returns the commands of a document's blocks of shell, fenced as sh or indented, without their comments.
func shellBlocks(t *testing.T, document string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../..", document))
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	fence := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			if fence == "" {
				fence = line
			} else {
				fence = ""
			}
		case fence == "```sh" || fence == "" && strings.HasPrefix(line, "    "):
			command, _, _ := strings.Cut(strings.TrimSpace(line), "   #")
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	return commands
}

// TestCommandsOfTheDocumentsWork runs what the documents tell people to type, but for what starts or stops the cluster and
// what builds.
func TestCommandsOfTheDocumentsWork(t *testing.T) {
	seen := make(map[string]bool) // a map of 10,000 queries takes its time
	for _, document := range []string{"README.md", "examples/gosearch/README.md"} {
		ran := 0
		for _, command := range shellBlocks(t, document) {
			program, rest, _ := strings.Cut(command, " ")
			if program != "freshet" && program != "curl" || strings.HasPrefix(rest, "up") || strings.HasPrefix(rest, "down") {
				continue
			}
			ran++
			if seen[command] {
				continue
			}
			seen[command] = true
			command = strings.ReplaceAll(command, "http://127.0.0.1:8600", shared.State.Gateway())
			if program == "curl" {
				command = strings.Replace(command, "curl", "curl --fail --silent --show-error", 1)
			}
			run := exec.Command("/bin/sh", "-c", command)
			run.Dir = "../.."
			run.Env = append(os.Environ(), "FRESHET_STATE="+shared.Dir, "PATH="+shared.Bin+":"+os.Getenv("PATH"))
			if out, err := run.CombinedOutput(); err != nil || len(out) == 0 {
				t.Errorf("%s: %s: %v: %s", document, command, err, out)
			}
		}
		if ran < 3 {
			t.Errorf("%s: found only %d commands", document, ran)
		}
	}
}

// TestProgramOfTheREADMECompiles builds the Go program that the README shows.
func TestProgramOfTheREADMECompiles(t *testing.T) {
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(data), "```go\n")
	program, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("the README shows no program")
	}
	sdk, err := filepath.Abs("../../sdk")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	module := "module example\n\ngo 1.26.3\n\nrequire github.com/freshet-dev/freshet/sdk v0.0.0\n\nreplace github.com/freshet-dev/freshet/sdk => " + sdk + "\n"
	for name, text := range map[string]string{"main.go": program, "go.mod": module} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vet := exec.Command("go", "vet", ".")
	vet.Dir = dir
	vet.Env = append(os.Environ(), "GOWORK=off")
	if out, err := vet.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
