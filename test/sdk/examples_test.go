package sdk

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the repository's folder.
const root = "../.."

// exampleRow is a line of the table in examples/README.md: program, what it shows, command, answer.
var exampleRow = regexp.MustCompile("(?m)^\\| \\[([a-z]+)\\]\\(([a-z]+)/main\\.go\\) \\| [^|]+ \\| `freshet ([^`]+)` \\| `([^`]+)` \\|$")

// maxExample bounds an example's lines: it shows one thing.
const maxExample = 60

// TestExamplesAnswerAsTheirTableSays runs each line of the table in a cluster.
func TestExamplesAnswerAsTheirTableSays(t *testing.T) {
	table, err := os.ReadFile(filepath.Join(root, "examples", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	larger := map[string]bool{"gosearch": true, "web": true} // which other tests run
	listed := maps.Clone(larger)
	for _, row := range exampleRow.FindAllStringSubmatch(string(table), -1) {
		name, command, want := row[1], row[3], row[4]
		listed[name] = true
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := exec.CommandContext(t.Context(), "sh", "-c", filepath.Join(shared.Bin, "freshet")+" "+command)
			run.Dir = root
			run.Env = append(os.Environ(), "FRESHET_STATE="+shared.Dir)
			var logs strings.Builder
			run.Stderr = &logs
			got, err := run.Output()
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("got %s, %v, want %s: %s", got, err, want, logs.String())
			}
		})
	}
	mains, err := filepath.Glob(filepath.Join(root, "examples", "*", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, main := range mains {
		name := filepath.Base(filepath.Dir(main))
		if !listed[name] {
			t.Errorf("examples/%s is not in the table of examples/README.md, or its line there is not as the others", name)
		}
		text, err := os.ReadFile(main)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(text), "\n"); lines >= maxExample && !larger[name] {
			t.Errorf("examples/%s has %d lines: show one thing in fewer than %d", name, lines, maxExample)
		}
	}
}
