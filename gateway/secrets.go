package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/internal/secrets"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// Secrets keeps the secrets of functions.
type Secrets interface {
	// Get reads a version of a secret, 0 for the newest; it fails with a *secrets.NotFoundError where there is none.
	Get(ctx context.Context, namespace, name string, version int) (secrets.Secret, error)
	Names(ctx context.Context, namespace string) ([]string, error)
	// Versions are what there is of a secret, the newest first.
	Versions(ctx context.Context, namespace, name string) ([]secrets.Secret, error)
	Put(ctx context.Context, namespace, name string, change secrets.Change) (secrets.Secret, error)
	Remove(ctx context.Context, namespace, name string) error
}

// maxSecretRequest is the largest request for a secret, in bytes: its values may need escapes.
const maxSecretRequest = 6 * secrets.MaxBytes

// secretAPI makes, changes, lists and removes secrets. No answer of it has a value.
type secretAPI struct {
	responder
	directory

	payloads *payloads
	store    Secrets
	jobs     Jobs
}

// secretView is what may be seen of a secret: keys, and never values.
type secretView struct {
	Name    string    `json:"name"`
	Version int       `json:"version"`
	Keys    []string  `json:"keys"`
	Created time.Time `json:"created"`
	// Functions are those that name it.
	Functions []string `json:"functions"`
	// Restarted are the functions whose workers are being replaced.
	Restarted []string `json:"restarted,omitempty"`
}

// secretVersionView is one version of a secret.
type secretVersionView struct {
	Version int       `json:"version"`
	Keys    []string  `json:"keys"`
	Created time.Time `json:"created"`
}

// secretRequest is what a secret is to become.
type secretRequest struct {
	Values map[string]string `json:"values"`
	// Replace drops the keys that are not given.
	Replace bool `json:"replace"`
}

func (a *secretAPI) routes() []route {
	const secret = "/v1/secrets/{name}"
	namespace := []string{"namespace"}
	return []route{
		{"GET /v1/secrets", verbSecret, a.handleList, "List secrets with their keys", namespace, "", 200, plainJSON},
		{"GET " + secret, verbSecret, a.handleVersions, "List the versions of a secret", namespace, "", 200, plainJSON},
		{"PUT " + secret, verbSecret, a.handlePut, "Make a secret, or a new version of it", []string{"namespace", "create", "restart"}, plainJSON, 200, plainJSON},
		{"DELETE " + secret, verbSecret, a.handleRemove, "Remove a secret with all its versions", []string{"namespace", "force"}, "", 204, ""},
	}
}

// asked reads what a request is about.
func (a *secretAPI) asked(r *http.Request, parameters ...string) (ask, error) {
	asked, err := askOf(r, parameters...)
	if err == nil && a.store == nil {
		err = unavailable("this gateway keeps no secrets", nil)
	}
	return asked, err
}

func (a *secretAPI) handleList(w http.ResponseWriter, r *http.Request) {
	asked, err := a.asked(r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	names, err := a.store.Names(r.Context(), asked.namespace)
	if err != nil {
		a.refuse(w, r, secretProblem(err))
		return
	}
	list := []secretView{} // an empty list in JSON, never null
	for _, name := range names {
		secret, err := a.store.Get(r.Context(), asked.namespace, name, 0)
		var gone *secrets.NotFoundError
		if errors.As(err, &gone) {
			continue // it was removed meanwhile
		}
		if err != nil {
			a.refuse(w, r, secretProblem(err))
			return
		}
		list = append(list, a.view(secret))
	}
	a.respond(w, http.StatusOK, list)
}

func (a *secretAPI) view(s secrets.Secret) secretView {
	return secretView{Name: s.Name, Version: s.Version, Keys: s.Keys(), Created: s.Created, Functions: a.users(s.Namespace, s.Name)}
}

// users are the names of the functions that name a secret.
func (a *secretAPI) users(namespace, name string) []string {
	return a.named(namespace, func(f spec.Function) bool { return f.UsesSecret(name) })
}

func (a *secretAPI) handleVersions(w http.ResponseWriter, r *http.Request) {
	asked, err := a.asked(r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	versions, err := a.store.Versions(r.Context(), asked.namespace, asked.name)
	if err != nil {
		a.refuse(w, r, a.near(r.Context(), asked, err))
		return
	}
	answer := struct {
		secretView

		Versions []secretVersionView `json:"versions"`
	}{secretView: a.view(versions[0])}
	for _, v := range versions {
		answer.Versions = append(answer.Versions, secretVersionView{v.Version, v.Keys(), v.Created})
	}
	a.respond(w, http.StatusOK, answer)
}

func (a *secretAPI) handlePut(w http.ResponseWriter, r *http.Request) {
	asked, err := a.asked(r, "create", "restart")
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	body, err := a.payloads.readAll(w, r, maxSecretRequest, "a request for a secret")
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	change, err := parseSecretRequest(body)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	change.New = asked.is("create")
	secret, err := a.store.Put(r.Context(), asked.namespace, asked.name, change)
	switch {
	case errors.Is(err, secrets.ErrExists):
		err = &problem{Kind: kindConflict, Message: "there is a secret " + asked.name + " already: change it with `freshet secret set " + asked.name + " KEY=VALUE`"}
	case err != nil:
		err = secretProblem(err)
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	answer := a.view(secret)
	if asked.is("restart") {
		if answer.Restarted, err = a.restart(r.Context(), asked); err != nil {
			a.refuse(w, r, err)
			return
		}
	}
	a.respond(w, http.StatusOK, answer)
}

// restart replaces the workers of the functions that use a secret: each finishes its calls while another one starts.
func (a *secretAPI) restart(ctx context.Context, asked ask) ([]string, error) {
	restarted := []string{}
	for _, entry := range a.functions.List() {
		if entry.Spec.Namespace != asked.namespace || !entry.Spec.UsesSecret(asked.name) {
			continue
		}
		workers, err := a.jobs.Restart(ctx, asked.namespace, entry.Job)
		if err != nil {
			return nil, unavailable("the secret was changed, and the workers of "+entry.Job+" were not replaced: set it again, with --restart", err)
		}
		if workers > 0 {
			restarted = append(restarted, entry.Job)
		}
	}
	slices.Sort(restarted)
	return restarted, nil
}

// parseSecretRequest reads a request. What it says of one that is wrong has no value of it.
func parseSecretRequest(body []byte) (secrets.Change, error) {
	var request secretRequest
	if err := decodeStrict(body, &request); err != nil {
		return secrets.Change{}, badInput("body", "", `send {"values": {"KEY": "value"}} as JSON`)
	}
	if err := secrets.Check(request.Values); err != nil {
		return secrets.Change{}, &problem{Kind: wire.KindInput, Message: err.Error()}
	}
	return secrets.Change{Values: request.Values, Replace: request.Replace}, nil
}

func (a *secretAPI) handleRemove(w http.ResponseWriter, r *http.Request) {
	asked, err := a.asked(r, "force")
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	if users := a.users(asked.namespace, asked.name); len(users) > 0 && !asked.is("force") {
		a.refuse(w, r, &problem{Kind: kindConflict, Message: fmt.Sprintf(
			"secret %s is used by %s: deploy them without it first, or remove it with --force: their next worker would then not start",
			asked.name, strings.Join(users, ", "))})
		return
	}
	if err := a.store.Remove(r.Context(), asked.namespace, asked.name); err != nil {
		a.refuse(w, r, a.near(r.Context(), asked, err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// near names the secrets that look like one that is not there.
func (a *secretAPI) near(ctx context.Context, asked ask, err error) error {
	p := secretProblem(err)
	if p.Kind == kindNotFound {
		if names, err := a.store.Names(ctx, asked.namespace); err == nil { // else there is no hint
			p.Near = near(asked.name, names)
		}
	}
	return p
}

// secretProblem says why a secret cannot be read or written.
func secretProblem(err error) *problem {
	var none *secrets.NotFoundError
	var wrong spec.FieldError
	switch {
	case errors.As(err, &none):
		return &problem{Kind: kindNotFound, Message: none.Error()}
	case errors.As(err, &wrong):
		return &problem{Kind: wire.KindInput, Message: err.Error()}
	case errors.Is(err, secrets.ErrBusy):
		return unavailable(err.Error(), nil)
	}
	return unavailable("Nomad does not give its variables; try again", err)
}

// checkStore refuses functions that name secrets or volumes which there are not.
func (d *deploys) checkStore(ctx context.Context, manifest spec.Manifest) error {
	if err := checkVolumes(d.volumes, manifest); err != nil {
		return err
	}
	return d.checkSecrets(ctx, manifest)
}

// checkSecrets refuses functions that name secrets which there are not, or which lack keys.
func (d *deploys) checkSecrets(ctx context.Context, manifest spec.Manifest) error {
	for _, f := range manifest.Functions {
		for i, text := range f.Secrets {
			if err := d.checkSecret(ctx, f, fmt.Sprintf("functions.%s.secrets[%d]", f.Name, i), text); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *deploys) checkSecret(ctx context.Context, f spec.Function, field, text string) error {
	named, err := spec.ParseSecret(text)
	if err != nil {
		return &problem{Kind: wire.KindInput, Message: field + ": " + err.Error()}
	}
	if d.secrets == nil {
		return badInput(field, text, "this gateway keeps no secrets: remove it")
	}
	found, err := d.secrets.Get(ctx, f.Namespace, named.Name, named.Version)
	var none *secrets.NotFoundError
	if errors.As(err, &none) {
		return badInput(field, text, none.Error())
	}
	if err != nil {
		return secretProblem(err)
	}
	if missing := found.Missing(named.Required); len(missing) > 0 {
		return badInput(field, text, fmt.Sprintf("the secret has no key %s: set it with `freshet secret set %s %s=VALUE`",
			strings.Join(missing, ", "), named.Name, missing[0]))
	}
	return nil
}
