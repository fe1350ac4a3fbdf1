package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/nomadtest"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// blocks are the fenced blocks of a document in a language.
func blocks(t *testing.T, document, language string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../..", document))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, part := range strings.Split(string(data), "```"+language+"\n")[1:] {
		block, _, closed := strings.Cut(part, "```")
		if !closed {
			t.Fatalf("%s: a block of %s does not end", document, language)
		}
		all = append(all, block)
	}
	return all
}

// programOf is the Go blocks of a document as one program, which makes its app.
func programOf(blocks []string) string {
	return `package main

import (
	"context"
	"iter"
	"os"
	"strings"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/wire"
)

func main() {
	` + strings.Join(blocks, "\n") + `
	_, _ = call, iter.Seq[int](nil)
	app.Main()
}
`
}

// TestPageForPeopleFromModalIsTrue deploys the app of its Go blocks, types its commands, and reads its HCL as Nomad and freshet do.
func TestPageForPeopleFromModalIsTrue(t *testing.T) {
	const page = "docs/coming-from-modal.md"
	dir := filepath.Join(t.TempDir(), "llm")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	module := fmt.Sprintf("module llm\n\ngo 1.26\n\nrequire github.com/freshet-dev/freshet/sdk v0.0.0\n\nreplace github.com/freshet-dev/freshet/sdk => %s/sdk\n", root)
	for name, text := range map[string]string{"main.go": programOf(blocks(t, page, "go")), "go.mod": module} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tidy := exec.Command("go", "mod", "tidy")
	tidy.Dir = dir
	tidy.Env = append(os.Environ(), "GOWORK=off")
	if out, err := tidy.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		for _, undo := range [][]string{{"delete", "llm"}, {"secret", "rm", "llm-db"}} {
			if out, err := shared.Freshet(undo...); err != nil {
				t.Errorf("freshet %v: %v: %s", undo, err, out)
			}
		}
	})
	if out, err := shared.Freshet("secret", "create", "llm-db", "USER=shop"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, command := range shellBlocks(t, page) {
		if strings.HasPrefix(command, "freshet secret create") {
			continue // it was made before the app, which names it
		}
		command = strings.ReplaceAll(command, "http://127.0.0.1:8600", shared.State.Gateway())
		command = strings.ReplaceAll(command, "curl ", "curl --fail --silent --show-error ")
		run := exec.Command("/bin/sh", "-c", command)
		run.Dir = dir
		run.Env = append(os.Environ(), "GOWORK=off", "FRESHET_STATE="+shared.Dir, "PATH="+shared.Bin+":"+os.Getenv("PATH"))
		if out, err := run.CombinedOutput(); err != nil || len(out) == 0 {
			t.Errorf("%s: %v: %s", command, err, out)
		}
	}
}

// TestJobspecBlocksOfThePagesForPeopleFromElsewhere are read by Nomad's parser and then as a function's spec.
func TestJobspecBlocksOfThePagesForPeopleFromElsewhere(t *testing.T) {
	nomad := nomadtest.Start(t)
	all := append(blocks(t, "docs/coming-from-modal.md", "hcl"), blocks(t, "docs/coming-from-kubernetes.md", "hcl")...)
	for _, block := range all {
		job, err := nomad.Jobs().ParseHCL(jobWith(block), true)
		if err != nil {
			t.Errorf("%s: %v", block, err)
			continue
		}
		job.Namespace = new(spec.DefaultNamespace)
		if _, err := jobs.Function(job); err != nil {
			t.Errorf("%s: %v", block, err)
		}
	}
}

// jobWith is a function's job with a block where it belongs.
func jobWith(block string) string {
	meta := "meta = {\n \"freshet.app\" = \"llm\"\n \"freshet.function\" = \"generate\"\n}\n"
	resources, scaling, base := "", "", ""
	if !strings.Contains(block, "handler {") {
		base = "code = \"/srv/llm\"\nhandler {\n type = \"go\"\n entry = \"generate\"\n}\n"
	} else if !strings.Contains(block, "image") {
		base = "image = \"x\"\n"
	}
	switch {
	case strings.HasPrefix(block, "meta"):
		meta = block
	case strings.HasPrefix(block, "resources"):
		resources = block
	case strings.HasPrefix(block, "scaling"):
		scaling = block
	default:
		base += block
	}
	return "job \"llm.generate\" {\n" + meta + "group \"worker\" {\n" + scaling + "task \"guest\" {\ndriver = \"freshet\"\nconfig {\n" + base + "}\n" + resources + "}\n}\n}\n"
}
