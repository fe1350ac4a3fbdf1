package gateway

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// allNamespaces in a query asks for every namespace, as Nomad's own API has it.
const allNamespaces = "*"

func namespaceOf(query url.Values) string {
	if query.Has("namespace") {
		return query.Get("namespace")
	}
	return spec.DefaultNamespace
}

// directory finds functions.
type directory struct{ functions Functions }

// find looks a function up, and suggests others when it is not there.
func (d directory) find(namespace, app, name string) (spec.Function, error) {
	if function, ok := d.functions.Get(namespace, app, name); ok {
		return function, nil
	}
	if !d.functions.Ready() {
		return spec.Function{}, unavailable("the functions have not been read from Nomad yet; try again", nil)
	}
	wanted := app + "." + name
	var known []string
	for _, entry := range d.functions.List() {
		if entry.Spec.Namespace != namespace {
			continue
		}
		if entry.Spec.App == app && entry.Spec.Name == name {
			return spec.Function{}, &problem{Kind: kindConflict, Message: "function " + wanted + " cannot be called, its job is wrong: " + entry.Err.Error()}
		}
		known = append(known, entry.Spec.JobID())
	}
	return spec.Function{}, &problem{Kind: kindNotFound, Message: "no function " + wanted + " in namespace " + namespace, Near: near(wanted, known)}
}

// functionView is a function as the API shows it.
type functionView struct {
	Namespace   string `json:"namespace"`
	App         string `json:"app"`
	Function    string `json:"function"`
	Version     string `json:"version,omitempty"`
	Min         int    `json:"min"`
	Max         int    `json:"max"`
	Concurrency int    `json:"concurrency"`
	// Count is how many workers Nomad should run, Workers how many report, Ready how many of them take calls.
	Count   int `json:"count"`
	Workers int `json:"workers"`
	Ready   int `json:"ready"`
	// Pending is the number of calls waiting and running.
	Pending int64  `json:"pending"`
	Job     string `json:"job"`
	// Error says what is wrong with the job.
	Error string         `json:"error,omitempty"`
	Spec  *spec.Function `json:"spec,omitempty"`
}

func (g *Gateway) view(entry jobs.Entry, depths map[queue.Function]int64) functionView {
	key := entry.Key()
	all, ready := g.workers.count(key)
	view := functionView{
		Namespace: key.Namespace, App: key.App, Function: key.Name, Version: entry.Spec.Version,
		Min: entry.Spec.Scaling.Min, Max: entry.Spec.Scaling.Max, Concurrency: entry.Spec.Concurrency,
		Count: entry.Count, Workers: all, Ready: ready, Pending: depths[key], Job: entry.Job,
	}
	if entry.Err != nil {
		view.Error = entry.Err.Error()
	}
	return view
}

// depthTimeout bounds how long a list waits for the queue's counts.
const depthTimeout = 3 * time.Second

func (g *Gateway) depths(ctx context.Context) (map[queue.Function]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, depthTimeout)
	defer cancel()
	depths, err := queue.Depths(ctx, g.js)
	if err != nil {
		return nil, unavailable("the queue cannot be read; try again", err)
	}
	return depths, nil
}

// handleFunctions lists a namespace's functions.
func (g *Gateway) handleFunctions(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace")
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	depths, err := g.depths(r.Context())
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	namespace := namespaceOf(query)
	views := []functionView{} // an empty list in JSON, never null
	for _, entry := range g.functions.List() {
		if namespace == allNamespaces || entry.Spec.Namespace == namespace {
			views = append(views, g.view(entry, depths))
		}
	}
	g.respond(w, http.StatusOK, views)
}

// handleFunction shows one function with its spec.
func (g *Gateway) handleFunction(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace")
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	function, err := g.find(namespaceOf(query), r.PathValue("app"), r.PathValue("function"))
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	depths, err := g.depths(r.Context())
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	entry, _ := g.functions.Entry(queue.Function{Namespace: function.Namespace, App: function.App, Name: function.Name})
	view := g.view(entry, depths)
	view.Spec = &function
	g.respond(w, http.StatusOK, view)
}
