// Package images tests images that stand for a registry's, and the examples that need images of their own, in a whole cluster.
package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/test/clustertest"
)

// patience bounds a call, starts and loads with it.
const patience = 4 * time.Minute

// cluster is that of all tests.
var cluster *clustertest.Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "freshet-images-")
	if err == nil {
		cluster = &clustertest.Cluster{Bin: os.Getenv("FRESHET_BIN"), Dir: dir}
		if cluster.Bin == "" {
			err = errors.New("FRESHET_BIN must name the folder of freshet's programs: use `make test`")
		}
	}
	code := 1
	if err == nil {
		if err = cluster.Up(); err == nil {
			code = m.Run()
		}
		err = errors.Join(err, cluster.Stop())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if code != 0 {
		cluster.TellLogs(os.Stderr)
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// freshet runs the command line, which may not fail.
func freshet(t *testing.T, args ...string) string {
	t.Helper()
	out, err := cluster.Freshet(args...)
	if err != nil {
		t.Fatalf("freshet %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// example is a copy of an example's folder.
func example(t *testing.T, name, image string) string {
	t.Helper()
	return copied(t, "../../examples/"+name, image)
}

// copied is a copy of an app's folder whose image is another one, and whose workers go as soon as they have nothing to do.
func copied(t *testing.T, from, image string) string {
	t.Helper()
	dir := t.TempDir()
	scale := regexp.MustCompile(`scale=\(0, (\d)\)`)
	files, err := filepath.Glob(from + "/*")
	if err != nil || len(files) == 0 {
		t.Fatal(err, "no files")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.Replace(string(text), "dockerfile:Dockerfile", image, 1))
		text = scale.ReplaceAll(text, []byte(`scale={"max": $1, "scaledown_window": 1, "zero_window": 1}`))
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// pythonImage is an image of Debian's packages and of what pip finds, made once.
func pythonImage(t *testing.T, pip string, packages ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../../tools/python-image", packages...)
	cmd.Env, cmd.Stderr = append(os.Environ(), "PIP="+pip), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return "docker-archive:" + strings.TrimSpace(string(out))
}

// deploy deploys an app, and waits until its functions are known.
func deploy(t *testing.T, dir string, functions ...string) {
	t.Helper()
	freshet(t, "deploy", filepath.Join(dir, "app.py"))
	eventually.True(t, "the functions are known", func() bool {
		out := freshet(t, "ps")
		for _, function := range functions {
			if !strings.Contains(out, function) {
				return false
			}
		}
		return true
	})
}

// call calls a function, and tells how long it took.
func call(t *testing.T, function string, input any) ([]byte, time.Duration) {
	t.Helper()
	body, contentType := []byte(nil), "application/json"
	if raw, ok := input.([]byte); ok {
		body, contentType = raw, "application/octet-stream"
	} else {
		var err error
		if body, err = json.Marshal(input); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	got, err := client.New(cluster.State.Gateway()).Do(ctx, client.Request{
		Function: function, Body: body, ContentType: contentType,
	})
	if err != nil {
		t.Fatalf("call %s: %v", function, err)
	}
	return got.Body, time.Since(began)
}
