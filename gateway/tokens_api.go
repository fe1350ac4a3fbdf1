package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freshet-dev/freshet/sdk/spec"
)

const (
	// maxTokenRequest is the largest request for a token, in bytes.
	maxTokenRequest = 64 << 10
	// maxGrace is the longest that a replaced secret goes on working, maxRetired how many of a token do.
	maxGrace   = 7 * 24 * time.Hour
	maxRetired = 8
)

// tokenAPI makes, lists, rotates and revokes tokens.
type tokenAPI struct {
	*exchange
	responder

	seen *tokens
}

// tokenRequest is what a request for a token says.
type tokenRequest struct {
	Name       string   `json:"name"`
	Verbs      []verb   `json:"verbs"`
	Namespaces []string `json:"namespaces"`
	Functions  []string `json:"functions"`
	Rate       float64  `json:"rate"`
	// TTL is how long it lasts, such as "720h"; for ever when empty.
	TTL string `json:"ttl"`
}

// createdView is the only answer that holds a token's secret.
type createdView struct {
	token

	Token string `json:"token"`
}

// tokenView is a token in a list.
type tokenView struct {
	token

	// LastUsed is when a gateway last took it, to about a minute.
	LastUsed time.Time `json:"last_used,omitzero"`
}

func parseToken(body []byte, now time.Time) (token, error) {
	var request tokenRequest
	if err := decodeStrict(body, &request); err != nil {
		return token{}, badInput("body", "", "send a token's name and verbs as JSON: "+err.Error())
	}
	t := token{
		ID: strings.ToLower(rand.Text()[:12]), Name: request.Name, Verbs: request.Verbs, Namespaces: request.Namespaces,
		Functions: request.Functions, Rate: request.Rate, Created: now.UTC(),
	}
	if err := checkText("name", request.Name, maxKey); err != nil {
		return t, err
	}
	if len(t.Verbs) == 0 {
		return t, badInput("verbs", "", "name some of "+verbNames())
	}
	for _, v := range t.Verbs {
		if !slices.Contains(allVerbs(), v) {
			return t, badInput("verbs", string(v), "use "+verbNames())
		}
	}
	if !(t.Rate >= 0 && t.Rate <= 1e6) {
		return t, badInput("rate", fmt.Sprint(t.Rate), "use 0 to 1000000 requests a second")
	}
	if request.TTL != "" {
		lasts, err := time.ParseDuration(request.TTL)
		if err != nil || lasts <= 0 {
			return t, badInput("ttl", request.TTL, "use a duration from now, such as 720h")
		}
		t.Expires = t.Created.Add(lasts)
	}
	return t, checkScope(t)
}

// checkScope refuses what no namespace and no function is called: a token for it would be one for nothing.
func checkScope(t token) error {
	for _, namespace := range t.Namespaces {
		if !spec.ValidName(namespace) {
			return badInput("namespaces", namespace, "use "+spec.NamePattern)
		}
	}
	for _, function := range t.Functions {
		app, name, both := strings.Cut(function, ".")
		if !spec.ValidName(app) || both && !spec.ValidName(name) {
			return badInput("functions", function, "use APP or APP.FUNCTION")
		}
	}
	return nil
}

func (a *tokenAPI) bucket() (jetstream.KeyValue, error) {
	stores, err := a.connected()
	if err != nil {
		return nil, err
	}
	return stores.tokens, nil
}

// within refuses tokens that reach beyond the one that is shown.
func within(ctx context.Context, t token) error {
	if who, known := ctx.Value(identityKey{}).(identity); known && !who.token.spans(t) {
		return forbidden("token " + who.token.label() + " is not over tokens beyond its own namespaces (" + orAll(strings.Join(who.token.Namespaces, ", ")) +
			") and functions (" + orAll(strings.Join(who.token.Functions, ", ")) + ")")
	}
	return nil
}

// handleCreate makes a token. Its secret is in this answer and nowhere else.
func (a *tokenAPI) handleCreate(w http.ResponseWriter, r *http.Request) {
	body, err := a.payloads.readAll(w, r, maxTokenRequest, "a request for a token")
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	t, err := parseToken(body, time.Now())
	if err == nil {
		err = within(r.Context(), t)
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	whole := t.fresh()
	a.issue(w, r, t, 0, whole)
}

// issue stores a token that has a new secret, in place of the given revision (0: of none), and answers with it.
func (a *tokenAPI) issue(w http.ResponseWriter, r *http.Request, t token, revision uint64, whole string) {
	bucket, err := a.bucket()
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	data, err := json.Marshal(t)
	if err != nil {
		a.refuse(w, r, fmt.Errorf("encode token: %w", err))
		return
	}
	status := http.StatusCreated
	if revision == 0 {
		_, err = bucket.Create(r.Context(), t.ID, data)
	} else {
		status = http.StatusOK
		_, err = bucket.Update(r.Context(), t.ID, data, revision)
	}
	switch {
	case errors.Is(err, jetstream.ErrKeyExists):
		a.refuse(w, r, &problem{Kind: kindConflict, Message: "token " + t.ID + " was rotated or revoked in the same moment; try again", retryAfter: time.Second})
	case err != nil:
		a.refuse(w, r, unavailable("the token could not be stored; try again", err))
	default:
		a.respond(w, status, createdView{t.view(), whole})
	}
}

// load reads the token of a request's path, and its revision.
func (a *tokenAPI) load(r *http.Request) (token, uint64, error) {
	var t token
	bucket, err := a.bucket()
	if err != nil {
		return t, 0, err
	}
	id := r.PathValue("token")
	if !validTokenID(id) {
		return t, 0, &problem{Kind: kindNotFound, Message: "no token " + id}
	}
	entry, err := bucket.Get(r.Context(), id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return t, 0, &problem{Kind: kindNotFound, Message: "no token " + id}
	}
	if err != nil {
		return t, 0, unavailable("the token cannot be read; try again", err)
	}
	if err := json.Unmarshal(entry.Value(), &t); err != nil {
		return t, 0, fmt.Errorf("read token %s: %w", id, err)
	}
	return t, entry.Revision(), within(r.Context(), t)
}

func validTokenID(id string) bool {
	return len(id) == 12 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// handleRotate gives a token another secret. The one before goes on working for the grace that is asked for; without one all others end
// at once.
func (a *tokenAPI) handleRotate(w http.ResponseWriter, r *http.Request) {
	grace, err := parseGrace(r.URL.RawQuery)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	t, revision, err := a.load(r)
	if err == nil {
		err = t.retire(grace, time.Now().UTC())
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	whole := t.fresh()
	a.issue(w, r, t, revision, whole)
}

func parseGrace(rawQuery string) (time.Duration, error) {
	query, err := parseQuery(rawQuery, "grace")
	if err != nil || !query.Has("grace") {
		return 0, err
	}
	grace, err := time.ParseDuration(query.Get("grace"))
	if err != nil || grace < 0 || grace > maxGrace {
		return 0, badInput("query parameter grace", query.Get("grace"), "use a duration up to 168h, such as 1h")
	}
	return grace, nil
}

// retire puts the token's secret among those that work for a while yet.
func (t *token) retire(grace time.Duration, now time.Time) error {
	if !t.Expires.IsZero() && !now.Before(t.Expires) {
		return &problem{Kind: kindConflict, Message: "token " + t.ID + " expired at " + t.Expires.Format(time.RFC3339) + ": another secret would not work either, make another token"}
	}
	if grace == 0 {
		t.Retired = nil
		return nil
	}
	t.Retired = slices.DeleteFunc(t.Retired, func(old retired) bool { return !now.Before(old.Until) })
	if len(t.Retired) >= maxRetired {
		return &problem{Kind: kindConflict, Message: fmt.Sprintf("token %s has %d replaced secrets that work yet: rotate it without a grace, which ends them, or later", t.ID, maxRetired)}
	}
	t.Retired = append(t.Retired, retired{Hash: t.Hash, Until: now.Add(grace)})
	return nil
}

// handleRevoke ends a token.
func (a *tokenAPI) handleRevoke(w http.ResponseWriter, r *http.Request) {
	t, _, err := a.load(r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	bucket, err := a.bucket()
	if err == nil {
		err = bucket.Purge(r.Context(), t.ID)
	}
	if err == nil {
		err = bucket.Purge(r.Context(), t.ID+useSuffix)
	}
	if err != nil {
		a.refuse(w, r, unavailable("the token could not be revoked; try again", err))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// handleList lists the tokens, without their secrets.
func (a *tokenAPI) handleList(w http.ResponseWriter, r *http.Request) {
	bucket, err := a.bucket()
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	list, err := a.list(r.Context(), bucket)
	if err != nil {
		a.refuse(w, r, unavailable("the tokens cannot be read; try again", err))
		return
	}
	a.respond(w, http.StatusOK, list)
}

// list reads the tokens that the request may see, the oldest first.
func (a *tokenAPI) list(ctx context.Context, bucket jetstream.KeyValue) ([]tokenView, error) {
	watcher, err := bucket.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer func() { _ = watcher.Stop() }() // fails only on a closed connection
	views, used := []tokenView{}, make(map[string]time.Time)
	for {
		select {
		case entry := <-watcher.Updates():
			if entry == nil { // all that there are
				for i := range views {
					views[i].LastUsed = later(used[views[i].ID], a.seen.lastUse(views[i].ID))
				}
				slices.SortFunc(views, func(a, b tokenView) int { return a.Created.Compare(b.Created) })
				return views, nil
			}
			if err := readListed(ctx, entry, &views, used); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readListed reads an entry of the bucket: a token, or when one was used.
func readListed(ctx context.Context, entry jetstream.KeyValueEntry, views *[]tokenView, used map[string]time.Time) error {
	if id, isUse := strings.CutSuffix(entry.Key(), useSuffix); isUse {
		last, err := time.Parse(time.RFC3339Nano, string(entry.Value()))
		used[id] = last
		return err
	}
	var t token
	if err := json.Unmarshal(entry.Value(), &t); err != nil {
		return err
	}
	if within(ctx, t) == nil {
		*views = append(*views, tokenView{token: t.view()})
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
