package e2e

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/internal/busyboxtest"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/jobspecs"
)

// nomad runs Nomad's own command line against the cluster.
func nomad(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(os.Getenv("FRESHET_NOMAD"), args...)
	cmd.Env = append(os.Environ(), "NOMAD_ADDR="+shared.State.Nomad())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func build(t *testing.T, dir string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", dir, err, out)
	}
	return program
}

// TestJobspecsRun has Nomad's own tool validate, plan and run each jobspec as it stands, and freshet take it for what it is.
func TestJobspecsRun(t *testing.T) {
	image, program := "image=docker-archive:"+busyboxtest.Image(t, t.TempDir()), "code="+build(t, "../guests/misbehave")
	calls := map[string]string{"exec": "text.sort", "schedule": "news.digest"} // those that busybox is enough for
	for _, name := range jobspecs.Names() {
		if strings.HasPrefix(name, "system/") {
			continue // they are a cluster themselves: test/system
		}
		t.Run(name, func(t *testing.T) {
			text, err := jobspecs.Template(name)
			if err != nil {
				t.Fatal(err)
			}
			var variables []string
			for declaration, value := range map[string]string{"variable \"image\"": image, "variable \"code\"": program} {
				if strings.Contains(string(text), declaration) {
					variables = append(variables, "-var", value)
				}
			}
			path := "../../jobspecs/" + name + ".nomad.hcl"
			job := regexp.MustCompile(`(?m)^job "(.+)"`).FindStringSubmatch(string(text))[1]
			t.Cleanup(func() {
				if out, err := nomad(t, "job", "stop", "-purge", job); err != nil {
					t.Errorf("%v: %s", err, out)
				}
				if name != "gosearch" {
					return
				}
				if out, err := shared.Freshet("deploy", "../../examples/gosearch"); err != nil { // of the same name, and other tests'
					t.Errorf("%v: %s", err, out)
				}
			})
			for _, verb := range []string{"validate", "plan", "run"} {
				out, err := nomad(t, append(append([]string{"job", verb}, variables...), path)...)
				var exit *exec.ExitError
				if errors.As(err, &exit) && verb == "plan" && exit.ExitCode() == 1 { // says that there is something to do
					continue
				}
				if err != nil {
					t.Fatalf("nomad job %s: %v: %s", verb, err, out)
				}
			}
			if !strings.Contains(string(text), "freshet.app") {
				eventually.True(t, "the helper writes and the server shows it", func() bool {
					out, err := nomad(t, "alloc", "exec", "-job", "-task", "pages", job, "wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
					return err == nil && strings.Contains(out, "UTC")
				})
				return
			}
			eventually.True(t, "freshet knows the function", func() bool {
				out, err := shared.Freshet("ps", "--json")
				app, function, _ := strings.Cut(job, ".")
				return err == nil && strings.Contains(out, `"`+app+`"`) && strings.Contains(out, `"`+function+`"`)
			})
			if calls[name] == "" {
				return
			}
			if out, err := shared.Freshet("call", calls[name], "tea"); err != nil || !strings.Contains(out, "tea") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// TestHandWrittenJobIsAFunction runs a jobspec with Nomad's own tool and calls it with nothing but HTTP.
func TestHandWrittenJobIsAFunction(t *testing.T) {
	template, err := jobspecs.Template("function")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("hello", "byhand", "greet", "one").Replace(string(template))
	path := filepath.Join(t.TempDir(), "byhand.nomad.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := nomad(t, "job", "run", "-var", "code="+build(t, "../guests/misbehave"), path); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer func() {
		if out, err := nomad(t, "job", "stop", "-purge", "byhand.one"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		eventually.True(t, "the function is gone", func() bool { return status(t, "byhand/one", `{"do":"say"}`) == http.StatusNotFound })
	}()
	eventually.True(t, "the function is known", func() bool { return status(t, "byhand/one", `{"do":"say","with":"x"}`) == http.StatusOK })
	out, err := nomad(t, "job", "status", "byhand.one")
	if err != nil || !strings.Contains(out, "service") || !strings.Contains(out, "running") {
		t.Errorf("nomad job status: %v: %s", err, out)
	}
	worker := workers(t, "byhand", "one")[0]
	eventually.True(t, "Nomad shows the worker as running", func() bool {
		out, err := nomad(t, "alloc", "status", worker.Alloc)
		return err == nil && strings.Contains(out, "Task \"guest\" is \"running\"")
	})
}

// TestRenderedJobspecIsTheDeploy: what `freshet jobspec render` prints changes nothing for Nomad where the app is deployed.
func TestRenderedJobspecIsTheDeploy(t *testing.T) {
	dir := t.TempDir()
	if out, err := shared.Freshet("jobspec", "render", "../../examples/gosearch", "--out", dir); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := nomad(t, "job", "plan", "-no-color", filepath.Join(dir, "gosearch.search.nomad.hcl"))
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("%v: %s", err, out)
	}
	differences, _, _ := strings.Cut(out, "Scheduler dry-run")
	same := regexp.MustCompile(`^\+/- (Job: |Task Group: |Scaling \{)`) // Nomad compares the numbers of policies by their types
	for line := range strings.Lines(differences) {
		line = strings.TrimSpace(line)
		if (strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-")) && !same.MatchString(line) {
			t.Errorf("the plan has %q in\n%s", line, out)
		}
	}
}

// status calls a function by plain HTTP and returns the answer's status.
func status(t *testing.T, function, body string) int {
	t.Helper()
	address := shared.State.Gateway() + "/v1/functions/" + function + "/call"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Freshet-Timeout", "10s")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}
