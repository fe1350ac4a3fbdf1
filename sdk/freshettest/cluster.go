package freshettest

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/client"
)

// Option sets something of Cluster.
type Option func(*cluster)

// Freshet is the path of the command line, freshet. Default: the one on the PATH.
func Freshet(path string) Option { return func(c *cluster) { c.program = path } }

// Gateway is the address of a cluster that runs already, and the token that it asks for, if it does. Default: that of `freshet up` on this
// machine.
func Gateway(address, token string) Option {
	return func(c *cluster) { c.address, c.token = address, token }
}

// State is the state directory of the `freshet up` that is used, or started. Default: the command line's own.
func State(dir string) Option { return func(c *cluster) { c.state = dir } }

// cluster is an app that is deployed for a test.
type cluster struct {
	program, address, token, state string
	as                             string
	log                            func(...any)
}

// Cluster deploys an app, whose main package is in a folder, to a cluster on this machine, under a name of its own, and removes it when the test
// ends. It returns a client to which the app has its own name, as for Run. Where no cluster runs it starts one, which takes some seconds and
// root, and stops it at the end: `freshet up` beforehand saves that for each test. What the functions log is the test's log.
func Cluster(t testing.TB, app *freshet.App, dir string, options ...Option) *client.Client {
	t.Helper()
	manifest, err := app.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{program: "freshet", log: t.Log}
	for _, option := range options {
		option(c)
	}
	if c.program, err = exec.LookPath(c.program); err != nil {
		t.Fatalf("find the program freshet: %v: put it on the PATH, or name it with freshettest.Freshet", err)
	}
	if c.address == "" {
		c.start(t)
	}
	suffix := "-test-" + strings.ToLower(rand.Text()[:8])
	c.as = manifest.App[:min(len(manifest.App), 63-len(suffix))] + suffix
	c.serve(t, dir)
	rename := renamed{http.DefaultTransport, "/v1/functions/" + manifest.App + "/", "/v1/functions/" + c.as + "/"}
	return client.New(c.address, client.HTTPClient(&http.Client{Transport: rename}), client.Token(c.token))
}

// renamed calls an app under the name that it is deployed as.
type renamed struct {
	http.RoundTripper

	from, to string
}

func (n renamed) RoundTrip(r *http.Request) (*http.Response, error) {
	if rest, ok := strings.CutPrefix(r.URL.Path, n.from); ok {
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = n.to+rest, ""
	}
	return n.RoundTripper.RoundTrip(r)
}

// startLimit bounds the start of a cluster, a deploy, and the end of either.
const startLimit = 3 * time.Minute

// command is freshet with arguments, on the cluster's state directory.
func (c *cluster) command(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, c.program, arguments...)
	command.Env = os.Environ()
	if c.state != "" {
		command.Env = append(command.Env, "FRESHET_STATE="+c.state)
	}
	if c.token != "" {
		command.Env = append(command.Env, "FRESHET_TOKEN="+c.token)
	}
	return command
}

// start starts a cluster unless one runs.
func (c *cluster) start(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	out, err := c.command(ctx, "up", "--detach").CombinedOutput()
	if err != nil && strings.Contains(string(out), "with pid") {
		return // it runs, and goes on when the test has ended
	}
	if err != nil {
		t.Fatalf("freshet up: %v: %s", err, out)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startLimit)
		defer cancel()
		if out, err := c.command(ctx, "down").CombinedOutput(); err != nil {
			t.Errorf("freshet down: %v: %s", err, out)
		}
	})
}

// callURL finds the gateway in what `freshet serve` says of each function.
var callURL = regexp.MustCompile(`POST (https?://[^/]+)/v1/functions/`) // immutable

// serve runs `freshet serve` until the test ends: it deploys the app, and removes it when it is interrupted.
func (c *cluster) serve(t testing.TB, dir string) {
	t.Helper()
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	arguments := []string{"serve", dir, "--as", c.as}
	if c.address != "" {
		arguments = append(arguments, "--addr", c.address)
	}
	served := c.command(context.WithoutCancel(t.Context()), arguments...)
	output, err := served.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := served.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	var reading sync.WaitGroup
	reading.Go(func() { c.follow(output, ready) })
	t.Cleanup(func() {
		_ = served.Process.Signal(os.Interrupt) // it may have ended
		late := time.AfterFunc(startLimit, func() { _ = served.Process.Kill() })
		defer late.Stop()
		reading.Wait()
		if err := served.Wait(); err != nil {
			t.Errorf("freshet serve: %v", err)
		}
	})
	select {
	case address := <-ready:
		if !strings.HasPrefix(address, "http") {
			t.Fatalf("freshet serve: %s", address)
		}
		c.address = address
	case <-time.After(startLimit):
		t.Fatal("freshet serve: it took too long to deploy the app")
	}
}

// follow logs what `freshet serve` says. It gives the gateway's address to ready once it knows it, or else the last lines.
func (c *cluster) follow(output io.Reader, ready chan<- string) {
	const kept = 20
	var last []string
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		c.log(lines.Text())
		if last = append(last, lines.Text()); len(last) > kept {
			last = last[1:]
		}
		if found := callURL.FindStringSubmatch(lines.Text()); found != nil {
			select {
			case ready <- found[1]:
			default: // it is known
			}
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, os.ErrClosed) {
		last = append(last, fmt.Sprint(err))
	}
	select {
	case ready <- strings.Join(last, "\n"):
	default: // the address was, and nobody waits any more
	}
}
