package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	history "github.com/freshet-dev/freshet/gateway/deploys"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/volumes"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// Jobs puts functions into Nomad.
type Jobs interface {
	// App reads the jobs that have names of an app's functions, as they are now.
	App(ctx context.Context, namespace, app string) ([]jobs.Job, error)
	// Register creates or replaces a function's job; one that runs keeps its number of workers. It fails with a *jobs.ForeignError when
	// a job of that name is somebody else's.
	Register(ctx context.Context, function spec.Function) error
	// Restore makes a job what it was when App read it.
	Restore(ctx context.Context, job jobs.Job) error
	// Warm starts a worker of a function that takes no calls, and freezes it. It fails with a *wire.Error when the worker does not
	// start.
	Warm(ctx context.Context, function spec.Function) error
	// Build builds an image by a job of its own, and passes on what that says. It fails with a *wire.Error when the build does.
	Build(ctx context.Context, build jobs.Build, tell func(line string)) error
	// Exec runs a command in a worker, and Sandbox a sandbox like those of a function's workers for as long as it is used. They fail with
	// a *wire.Error when the command, or the sandbox, does not start.
	Exec(ctx context.Context, exec jobs.Exec) (int, error)
	Sandbox(ctx context.Context, function spec.Function, use func(alloc string) error) error
	// Usage asks what a worker uses of its node.
	Usage(ctx context.Context, namespace, alloc string) (jobs.Usage, error)
	// Stop stops a function's job.
	Stop(ctx context.Context, namespace, job string) error
	// Restart replaces the workers of a function's job that run, and returns how many: each finishes its calls while another one starts.
	Restart(ctx context.Context, namespace, job string) (int, error)
	// Warmed lists what Warm runs, or left behind where its gateway died, and PurgeWarmed removes it.
	Warmed(ctx context.Context) ([]jobs.Warmed, error)
	PurgeWarmed(ctx context.Context, left jobs.Warmed) error
}

// maxManifest is the largest manifest taken, in bytes.
const maxManifest = 4 << 20

// deployView is the answer to a deploy.
type deployView struct {
	App     string `json:"app"`
	Version string `json:"version"`
	// Number counts the app's deploys; 0 in a plan.
	Number int `json:"number,omitempty"`
	// Unchanged says that all was so already: nothing was done, and the number is that of the last deploy.
	Unchanged bool           `json:"unchanged,omitempty"`
	Functions []deployedView `json:"functions"`
	// Changes are what the deploy does to each function.
	Changes []history.Change `json:"changes"`
	// Stopped are the jobs of functions that the app has no more.
	Stopped []string `json:"stopped,omitempty"`
}

type deployedView struct {
	Function string `json:"function"`
	Job      string `json:"job"`
	URL      string `json:"url"`
}

// deploys makes the jobs of apps, and stops them.
type deploys struct {
	*exchange
	responder
	directory

	blobs   Blobs
	jobs    Jobs
	secrets Secrets
	volumes *volumes.Store
}

// handleDeploy registers an app's functions with Nomad, and stops those that it has no more. Everything is checked before anything
// is changed.
func (d *deploys) handleDeploy(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace", "plan", "warm", "message", "commit", "ephemeral", "strategy")
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	move, err := parseStrategy(query)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	warm, err := parseWarm(query)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	manifest, err := d.readManifest(w, r, namespaceOf(query))
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	if query.Get("plan") == "true" {
		d.plan(w, r, manifest, namespaceOf(query))
		return
	}
	d.answer(w, r, manifest, order{
		Deploy: history.Deploy{Namespace: namespaceOf(query), Message: query.Get("message"), Commit: query.Get("commit")},
		warm:   warm, ephemeral: query.Get("ephemeral") == "true", recreate: move,
	})
}

func (d *deploys) readManifest(w http.ResponseWriter, r *http.Request, namespace string) (spec.Manifest, error) {
	body, err := d.payloads.readAll(w, r, maxManifest, "a manifest")
	if err != nil {
		return spec.Manifest{}, err
	}
	manifest, err := spec.DecodeManifest(body)
	if err != nil {
		return spec.Manifest{}, &problem{Kind: wire.KindInput, Message: err.Error()}
	}
	if manifest.App != r.PathValue("app") {
		return spec.Manifest{}, badInput("app", manifest.App, "use the app of the address, "+r.PathValue("app"))
	}
	names := make(map[string]bool, len(manifest.Functions))
	for i := range manifest.Functions {
		f := &manifest.Functions[i]
		if names[f.Name] {
			return spec.Manifest{}, badInput(fmt.Sprintf("functions[%d].name", i), f.Name, "the app has a function of this name already; use another name")
		}
		names[f.Name] = true
		if f.Namespace == "" {
			f.Namespace = namespace
		}
		if err := d.checkFunction(r.Context(), *f, namespace); err != nil {
			return spec.Manifest{}, err
		}
	}
	return manifest, d.checkDomains(manifest)
}

func (d *deploys) checkFunction(ctx context.Context, f spec.Function, namespace string) error {
	if f.Namespace != namespace {
		return badInput("functions."+f.Name+".namespace", f.Namespace, "use the namespace of the address, "+namespace)
	}
	if err := jobs.CheckSpec(f); err != nil {
		return &problem{Kind: wire.KindInput, Message: "function " + f.Name + ": " + err.Error()}
	}
	digest, ok := strings.CutPrefix(f.Code, "sha256:")
	if !ok {
		return nil
	}
	there, err := d.blobs.Has(ctx, digest)
	if err != nil {
		return blobProblem(digest, err)
	}
	if !there {
		return badInput("functions."+f.Name+".code", f.Code, "upload it first, with PUT /v1/blobs/"+digest)
	}
	return nil
}

// awaitFunctions waits until this gateway sees what it registered, so that a call right after the deploy finds it.
func (d *deploys) awaitFunctions(ctx context.Context, manifest spec.Manifest) {
	ctx, cancel := context.WithTimeout(ctx, depthTimeout)
	defer cancel()
	for _, f := range manifest.Functions {
		d.functions.Await(ctx, f.Namespace, f.App, f.Name, f.Version)
	}
}

func (d *deploys) appJobs(namespace, app string) []jobs.Entry {
	var entries []jobs.Entry
	for _, entry := range d.functions.List() {
		if entry.Spec.Namespace == namespace && entry.Spec.App == app {
			entries = append(entries, entry)
		}
	}
	return entries
}

// handleDelete stops all of an app's jobs.
func (d *deploys) handleDelete(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace")
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	namespace, app := namespaceOf(query), r.PathValue("app")
	if len(d.appJobs(namespace, app)) == 0 {
		d.refuse(w, r, &problem{Kind: kindNotFound, Message: "no app " + app + " in namespace " + namespace, Near: near(app, d.apps(namespace))})
		return
	}
	stopped, err := d.remove(r.Context(), namespace, app)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	d.awaitGone(r.Context(), namespace, app)
	d.respond(w, http.StatusOK, deployView{App: app, Functions: []deployedView{}, Changes: []history.Change{}, Stopped: stopped})
}

// awaitGone waits until this gateway sees that an app is no more.
func (d *deploys) awaitGone(ctx context.Context, namespace, app string) {
	ctx, cancel := context.WithTimeout(ctx, depthTimeout)
	defer cancel()
	for len(d.appJobs(namespace, app)) > 0 && ctx.Err() == nil {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (d *deploys) apps(namespace string) []string {
	var names []string
	for _, entry := range d.functions.List() {
		if entry.Spec.Namespace == namespace {
			names = append(names, entry.Spec.App)
		}
	}
	return names
}
