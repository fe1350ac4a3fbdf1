package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	history "github.com/freshet-dev/freshet/gateway/deploys"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// Jobs puts functions into Nomad.
type Jobs interface {
	// Register creates or replaces a function's job; one that runs keeps its number of workers.
	Register(ctx context.Context, function spec.Function) error
	// Warm starts a worker of a function that takes no calls, and freezes it. It fails with a *wire.Error when the worker does not
	// start.
	Warm(ctx context.Context, function spec.Function) error
	// Build builds an image by a job of its own, and passes on what that says. It fails with a *wire.Error when the build does.
	Build(ctx context.Context, build jobs.Build, tell func(line string)) error
	// Stop stops a function's job.
	Stop(ctx context.Context, namespace, job string) error
}

// maxManifest is the largest manifest taken, in bytes.
const maxManifest = 4 << 20

// deployView is the answer to a deploy.
type deployView struct {
	App     string `json:"app"`
	Version string `json:"version"`
	// Number counts the app's deploys; 0 in a plan.
	Number    int            `json:"number,omitempty"`
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

	blobs Blobs
	jobs  Jobs
}

// handleDeploy registers an app's functions with Nomad, and stops those that it has no more. Everything is checked before anything
// is changed.
func (d *deploys) handleDeploy(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace", "plan", "warm", "message", "commit", "ephemeral")
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	manifest, err := d.readManifest(r, namespaceOf(query))
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	if query.Get("plan") == "true" {
		changes, err := d.changes(namespaceOf(query), manifest)
		if err != nil {
			d.refuse(w, r, err)
			return
		}
		d.respond(w, http.StatusOK, deployView{App: manifest.App, Functions: []deployedView{}, Changes: changes})
		return
	}
	if query.Get("warm") == "true" {
		if err := d.warm(r.Context(), namespaceOf(query), manifest); err != nil {
			d.refuse(w, r, err)
			return
		}
	}
	if query.Get("ephemeral") == "true" {
		d.tryOut(w, r, manifest, namespaceOf(query))
		return
	}
	d.answer(w, r, manifest, history.Deploy{Namespace: namespaceOf(query), Message: query.Get("message"), Commit: query.Get("commit")})
}

func (d *deploys) readManifest(r *http.Request, namespace string) (spec.Manifest, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxManifest+1))
	if err != nil {
		return spec.Manifest{}, badInput("body", err.Error(), "send the whole manifest")
	}
	if len(body) > maxManifest {
		return spec.Manifest{}, &problem{Kind: kindTooLarge, Message: fmt.Sprintf("body: a manifest has at most %d bytes", maxManifest)}
	}
	manifest, err := spec.DecodeManifest(body)
	if err != nil {
		return spec.Manifest{}, &problem{Kind: wire.KindInput, Message: err.Error()}
	}
	if manifest.App != r.PathValue("app") {
		return spec.Manifest{}, badInput("app", manifest.App, "use the app of the address, "+r.PathValue("app"))
	}
	for i := range manifest.Functions {
		f := &manifest.Functions[i]
		if f.Namespace == "" {
			f.Namespace = namespace
		}
		if err := d.checkFunction(r.Context(), *f, namespace); err != nil {
			return spec.Manifest{}, err
		}
	}
	return manifest, nil
}

func (d *deploys) checkFunction(ctx context.Context, f spec.Function, namespace string) error {
	if f.Namespace != namespace {
		return badInput("functions."+f.Name+".namespace", f.Namespace, "use the namespace of the address, "+namespace)
	}
	if err := f.Validate(); err != nil {
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

// deploy registers the functions and records that, so that it can be gone back to.
func (d *deploys) deploy(r *http.Request, manifest spec.Manifest, record history.Deploy) (deployView, error) {
	stores, err := d.connected() // what could not be recorded could not be gone back to
	if err != nil {
		return deployView{App: manifest.App}, err
	}
	answer, err := d.register(r, manifest, record.Namespace)
	if err != nil {
		return answer, err
	}
	record.App, record.Version, record.Time, record.Functions = manifest.App, answer.Version, time.Now().UTC(), manifest.Functions
	if answer.Number, err = stores.deploys.Add(r.Context(), record); err != nil {
		return answer, unavailable("the app was deployed, and that could not be recorded; deploy again", err)
	}
	d.awaitFunctions(r.Context(), manifest)
	return answer, nil
}

// tryOut deploys what is deleted soon: no list of deploys has it.
func (d *deploys) tryOut(w http.ResponseWriter, r *http.Request, manifest spec.Manifest, namespace string) {
	answer, err := d.register(r, manifest, namespace)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	d.awaitFunctions(r.Context(), manifest)
	d.respond(w, http.StatusOK, answer)
}

// register makes the functions' jobs, and stops those that the app has no more.
func (d *deploys) register(r *http.Request, manifest spec.Manifest, namespace string) (deployView, error) {
	answer := deployView{App: manifest.App}
	var err error
	if answer.Changes, err = d.changes(namespace, manifest); err != nil {
		return answer, err
	}
	kept := make(map[string]bool)
	for _, f := range manifest.Functions {
		if err := d.jobs.Register(r.Context(), f); err != nil {
			return answer, unavailable(fmt.Sprintf("function %s was not registered with Nomad, those before it were; deploy again", f.Name), err)
		}
		kept[f.JobID()] = true
		answer.Version = f.Version
		answer.Functions = append(answer.Functions, deployedView{
			Function: f.Name, Job: f.JobID(), URL: "http://" + r.Host + "/v1/functions/" + f.App + "/" + f.Name + "/call",
		})
	}
	answer.Stopped, err = d.stopJobs(r.Context(), namespace, manifest.App, kept)
	return answer, err
}

// awaitFunctions waits until this gateway sees what it registered, so that a call right after the deploy finds it.
func (d *deploys) awaitFunctions(ctx context.Context, manifest spec.Manifest) {
	ctx, cancel := context.WithTimeout(ctx, depthTimeout)
	defer cancel()
	for _, f := range manifest.Functions {
		d.functions.Await(ctx, f.Namespace, f.App, f.Name, f.Version)
	}
}

// stopJobs stops an app's jobs but for those kept.
func (d *deploys) stopJobs(ctx context.Context, namespace, app string, kept map[string]bool) ([]string, error) {
	var stopped []string
	for _, entry := range d.appJobs(namespace, app) {
		if kept[entry.Job] {
			continue
		}
		if err := d.jobs.Stop(ctx, namespace, entry.Job); err != nil {
			return stopped, unavailable("job "+entry.Job+" was not stopped; try again", err)
		}
		stopped = append(stopped, entry.Job)
	}
	return stopped, nil
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
	stopped, err := d.stopJobs(r.Context(), namespace, app, nil)
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
