package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	history "github.com/freshet-dev/freshet/gateway/deploys"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// maxMessage is the longest message of a deploy, in bytes.
const maxMessage = 1024

// handleHistory lists an app's deploys, the newest first.
func (d *deploys) handleHistory(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace")
	if err == nil {
		err = checkApp(namespaceOf(query), r.PathValue("app"))
	}
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	stores, err := d.connected()
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	list, err := stores.deploys.List(r.Context(), namespaceOf(query), r.PathValue("app"))
	if err != nil {
		d.refuse(w, r, unavailable("the deploys cannot be read; try again", err))
		return
	}
	d.respond(w, http.StatusOK, list)
}

// handleRollback deploys what an earlier deploy did, exactly. It is a deploy itself, with a number of its own.
func (d *deploys) handleRollback(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery, "namespace", "number", "message", "strategy")
	if err == nil {
		err = checkApp(namespaceOf(query), r.PathValue("app"))
	}
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	move, err := parseStrategy(query)
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	namespace, app, number := namespaceOf(query), r.PathValue("app"), 0
	if query.Has("number") {
		if number, err = strconv.Atoi(query.Get("number")); err != nil || number < 1 {
			d.refuse(w, r, badInput("number", query.Get("number"), "use the number of a deploy, as the list of them has it"))
			return
		}
	}
	stores, err := d.connected()
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	past, err := stores.deploys.Find(r.Context(), namespace, app, number)
	if errors.Is(err, history.ErrNotFound) {
		d.refuse(w, r, &problem{Kind: kindNotFound, Message: "app " + app + " in namespace " + namespace + " had no such deploy: GET /v1/apps/" + app + "/deploys lists them"})
		return
	}
	if err != nil {
		d.refuse(w, r, unavailable("the deploys cannot be read; try again", err))
		return
	}
	for _, f := range past.Functions {
		if err := d.checkFunction(r.Context(), f, namespace); err != nil {
			d.refuse(w, r, fmt.Errorf("go back to deploy %d: %w", past.Number, err))
			return
		}
	}
	manifest := spec.Manifest{Format: spec.ManifestVersion, App: app, Functions: past.Functions}
	d.answer(w, r, manifest, order{Deploy: history.Deploy{Namespace: namespace, Message: query.Get("message"), Commit: past.Commit, Of: past.Number}, recreate: move})
}

// checkApp refuses names that the queue's keys could not hold.
func checkApp(namespace, app string) error {
	if !spec.ValidName(namespace) {
		return badInput("namespace", namespace, "use "+spec.NamePattern)
	}
	if !spec.ValidName(app) {
		return badInput("app", app, "use "+spec.NamePattern)
	}
	return nil
}
