package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	history "github.com/freshet-dev/freshet/gateway/deploys"
	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// order is what a deploy is asked to do, and what its record says.
type order struct {
	history.Deploy

	warm warmth
	// recreate moves the calls that run to the new version; else they finish on the old one.
	recreate bool
	// ephemeral keeps it out of the list.
	ephemeral bool
}

// undoWait bounds how long what a failed deploy did may take to be undone.
const undoWait = 30 * time.Second

// plan says what a deploy would do.
func (d *deploys) plan(w http.ResponseWriter, r *http.Request, manifest spec.Manifest, namespace string) {
	if err := d.checkStore(r.Context(), manifest); err != nil {
		d.refuse(w, r, err)
		return
	}
	there, err := d.look(r.Context(), namespace, manifest.App)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	changes, err := there.changes(manifest)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	d.respond(w, http.StatusOK, deployView{App: manifest.App, Functions: []deployedView{}, Changes: changes})
}

// answer deploys and says what became of it.
func (d *deploys) answer(w http.ResponseWriter, r *http.Request, manifest spec.Manifest, o order) {
	if err := checkText("message", o.Message, maxMessage); err != nil {
		d.refuse(w, r, err)
		return
	}
	if err := checkText("commit", o.Commit, maxKey); err != nil {
		d.refuse(w, r, err)
		return
	}
	if who, known := r.Context().Value(identityKey{}).(identity); known {
		o.By = who.token.Name
	}
	answer, err := d.deploy(r.Context(), manifest, o)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	for _, f := range manifest.Functions {
		answer.Version = f.Version
		answer.Functions = append(answer.Functions, deployedView{
			Function: f.Name, Job: f.JobID(), URL: "http://" + r.Host + "/v1/functions/" + f.App + "/" + f.Name + "/call",
		})
	}
	d.respond(w, http.StatusOK, answer)
}

// deploy makes an app's jobs those of the manifest and records that, so that it can be gone back to. Of several deploys of an app at
// once one goes on. When it fails the app is as it was.
func (d *deploys) deploy(ctx context.Context, manifest spec.Manifest, o order) (deployView, error) {
	answer := deployView{App: manifest.App, Functions: []deployedView{}}
	stores, err := d.connected() // what could not be recorded could not be gone back to
	if err != nil {
		return answer, err
	}
	ctx, release, err := lockApp(ctx, stores, o.Namespace, manifest.App)
	if err != nil {
		return answer, err
	}
	defer release()
	if err := d.checkStore(ctx, manifest); err != nil {
		return answer, err
	}
	there, err := d.look(ctx, o.Namespace, manifest.App)
	if err != nil {
		return answer, err
	}
	if answer.Changes, err = there.changes(manifest); err != nil {
		return answer, err
	}
	if there.same(answer.Changes) {
		if answer.Unchanged, answer.Number, err = d.recorded(ctx, stores, manifest, o); err != nil || answer.Unchanged {
			return answer, err
		}
	}
	if err := d.warm(ctx, answer.Changes, manifest, o); err != nil {
		return answer, err
	}
	if o.recreate {
		d.handOver(o.Namespace, manifest.App, answer.Changes)
	}
	if answer.Stopped, err = d.replace(ctx, there, manifest, o.Namespace); err != nil {
		return answer, err
	}
	if !o.ephemeral {
		o.App, o.Time, o.Functions = manifest.App, time.Now().UTC(), manifest.Functions
		for _, f := range manifest.Functions {
			o.Version = f.Version
		}
		if answer.Number, err = stores.deploys.Add(ctx, o.Deploy); err != nil {
			return answer, unavailable("the app was deployed, and that could not be recorded; deploy again", err)
		}
	}
	d.awaitFunctions(ctx, manifest)
	return answer, nil
}

// lockApp keeps other deploys of the app away until release is called.
func lockApp(ctx context.Context, stores *stores, namespace, app string) (locked context.Context, release func(), err error) {
	locked, release, err = stores.deploys.Lock(ctx, namespace, app)
	if errors.Is(err, history.ErrBusy) {
		return nil, nil, &problem{
			Kind: kindConflict, Message: "app " + app + " in namespace " + namespace + " is being deployed or deleted already; try again when that is done",
			retryAfter: time.Second,
		}
	}
	if err != nil {
		return nil, nil, unavailable("the deploy could not begin; try again", err)
	}
	return locked, release, nil
}

// recorded tells whether the last deploy in the list did what the manifest says: what could not be recorded is done again.
func (d *deploys) recorded(ctx context.Context, stores *stores, manifest spec.Manifest, o order) (bool, int, error) {
	if o.ephemeral {
		return true, 0, nil
	}
	past, err := stores.deploys.List(ctx, o.Namespace, manifest.App)
	if err != nil {
		return false, 0, unavailable("the deploys cannot be read; try again", err)
	}
	if len(past) == 0 {
		return false, 0, nil
	}
	changes, err := history.Compare(past[0].Functions, manifest.Functions)
	return allKept(changes), past[0].Number, err
}

func allKept(changes []history.Change) bool {
	for _, change := range changes {
		if change.Action != history.Keep {
			return false
		}
	}
	return true
}

// present is what Nomad has under an app's names, by the jobs' ids.
type present map[string]jobs.Job

// look reads what there is from Nomad itself: what this gateway knows may be older than another one's last deploy.
func (d *deploys) look(ctx context.Context, namespace, app string) (present, error) {
	if err := checkApp(namespace, app); err != nil {
		return nil, err
	}
	all, err := d.jobs.App(ctx, namespace, app)
	if err != nil {
		return nil, unavailable("the app's jobs cannot be read from Nomad; try again", err)
	}
	there := make(present, len(all))
	for _, job := range all {
		there[job.ID] = job
	}
	return there, nil
}

// changes are what a deploy of the manifest does. It refuses to replace what is somebody else's.
func (p present) changes(manifest spec.Manifest) ([]history.Change, error) {
	for _, f := range manifest.Functions {
		if p[f.JobID()].Foreign {
			return nil, foreign(&jobs.ForeignError{Namespace: f.Namespace, Job: f.JobID()})
		}
	}
	var before []spec.Function
	for _, job := range p {
		if !job.Foreign && !job.Stopped && !job.Spec.IsPool() {
			before = append(before, job.Spec)
		}
	}
	return history.Compare(before, manifest.Functions)
}

// same tells whether nothing is to be done.
func (p present) same(changes []history.Change) bool {
	for _, job := range p {
		if job.Err != nil && !job.Foreign && !job.Stopped {
			return false // the job is wrong: what it says in full is not known
		}
	}
	return allKept(changes)
}

func foreign(err *jobs.ForeignError) *problem {
	return &problem{Kind: kindConflict, Message: err.Error() + "; nothing was deployed"}
}

// replace registers the manifest's functions and stops those that the app has no more, or else leaves all as it was.
func (d *deploys) replace(ctx context.Context, there present, manifest spec.Manifest, namespace string) (stopped []string, err error) {
	var touched []string
	defer func() {
		if err != nil {
			err = d.undo(ctx, there, touched, namespace, err)
		}
	}()
	kept := make(map[string]bool)
	for _, f := range manifest.Functions {
		id := f.JobID()
		err := d.jobs.Register(ctx, f)
		var taken *jobs.ForeignError
		if errors.As(err, &taken) {
			return nil, foreign(taken)
		}
		touched = append(touched, id) // also when it failed: the word that it was done may have been lost
		if err != nil {
			return nil, unavailable("job "+id+" was not registered with Nomad", err)
		}
		kept[id] = true
	}
	for id, job := range there {
		pool := job.Spec.IsPool() && kept[job.Spec.App+"."+spec.BaseName(job.Spec.Name)] // which goes with its function
		if kept[id] || pool || job.Foreign || job.Stopped {
			continue
		}
		touched = append(touched, id)
		if err := d.jobs.Stop(ctx, namespace, id); err != nil {
			return nil, unavailable("job "+id+" was not stopped", err)
		}
		stopped = append(stopped, id)
	}
	return stopped, nil
}

// undo makes the jobs what they were before a deploy that failed, and says why it did.
func (d *deploys) undo(ctx context.Context, there present, touched []string, namespace string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWait)
	defer cancel()
	p := asProblem(cause)
	for _, id := range touched {
		job, was := there[id]
		var err error
		if was && !job.Stopped {
			err = d.jobs.Restore(ctx, job)
		} else {
			err = d.jobs.Stop(ctx, namespace, id)
		}
		if err != nil {
			p.Message += "; nor could job " + id + " be made what it was: deploy again"
			p.cause = errors.Join(p.cause, err)
			return p
		}
	}
	if p.cause != nil {
		p.Message += fmt.Sprintf(", so the app is as it was: %v", p.cause)
	}
	return p
}

// remove stops all of an app's jobs.
func (d *deploys) remove(ctx context.Context, namespace, app string) ([]string, error) {
	stores, err := d.connected()
	if err != nil {
		return nil, err
	}
	ctx, release, err := lockApp(ctx, stores, namespace, app)
	if err != nil {
		return nil, err
	}
	defer release()
	var stopped []string
	for _, entry := range d.appJobs(namespace, app) {
		if err := d.jobs.Stop(ctx, namespace, entry.Job); err != nil {
			return nil, unavailable("job "+entry.Job+" was not stopped; try again", err)
		}
		stopped = append(stopped, entry.Job)
	}
	return stopped, nil
}
