package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The most that a program with the SDK may need: modules, with its own, and bytes of a program that serves and calls functions.
const (
	maxModules = 25
	maxProgram = 12 << 20
)

const sdkProgram = `package main

import (
	"context"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
)

func main() {
	calls := client.New("http://127.0.0.1:8600")
	app := freshet.New("outside")
	freshet.Func(app, "hello", func(ctx context.Context, name string) (string, error) {
		return client.Call[string, string](ctx, calls, "other.hello", name)
	})
	app.Main()
}
`

// TestSDKIsSmall: outside the tree, with a module of its own that requires the SDK and nothing else, a program builds, from the SDK's
// folder as from the command line's own copy, and is small. docs/cli.md has the figures.
func TestSDKIsSmall(t *testing.T) {
	for _, way := range []string{"folder", "copy"} {
		t.Run(way, func(t *testing.T) {
			s := newTerminal(t)
			args := []string{"new", "go", "outside"}
			if way == "folder" {
				sdk, err := filepath.Abs("../../sdk")
				if err != nil {
					t.Fatal(err)
				}
				args = append(args, "--sdk", sdk)
			}
			s.run(t, args...)
			s.dir = filepath.Join(s.dir, "outside")
			if err := os.WriteFile(filepath.Join(s.dir, "main.go"), []byte(sdkProgram), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(s.dir, "main_test.go")); err != nil {
				t.Fatal(err)
			}
			s.golang(t, "build", "-trimpath", "-ldflags=-s -w", "-o", "program", ".")
			modules := strings.Fields(s.golang(t, "list", "-m", "-f", "{{.Path}}", "all"))
			info, err := os.Stat(filepath.Join(s.dir, "program"))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d modules, %.1f MB", len(modules), float64(info.Size())/(1<<20))
			if len(modules) > maxModules || info.Size() > maxProgram {
				t.Errorf("more than %d modules, %v, or %d bytes, more than %d", maxModules, modules, info.Size(), maxProgram)
			}
		})
	}
}

// TestCopyOfTheSDKIsWhole: it has every package of the SDK, without tests and what is theirs.
func TestCopyOfTheSDKIsWhole(t *testing.T) {
	s := newTerminal(t)
	s.run(t, "new", "go", "whole")
	s.dir = filepath.Join(s.dir, "whole")
	const format = "{{.ImportPath}} {{.GoFiles}} {{.EmbedFiles}}"
	got := s.golang(t, "list", "-f", format, "github.com/freshet-dev/freshet/sdk/...")
	s.dir = "../../sdk"
	there := regexp.MustCompile(`(?m)\S+_test\.go |^\S+/sdk/internal/.*\n`).ReplaceAllString(s.golang(t, "list", "-f", format, "./..."), "")
	if got != there {
		t.Errorf("it has\n%s\nof\n%s", got, there)
	}
}

func (s terminal) golang(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Env = s.dir, append(s.vars, "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
