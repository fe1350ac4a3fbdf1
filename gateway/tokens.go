package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"

	"github.com/freshet-dev/freshet/internal/queue"
)

// tokenPrefix begins every token, so that scanners find those that leaked. An id follows, then a secret.
const tokenPrefix = "frt_"

// token is a token as it is kept: its secret only as a hash. Secrets are 128 random bits, so one round of SHA-256 is enough.
type token struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Hash string `json:"hash,omitempty"`
	// Verbs are what it allows; Namespaces and Functions where, each everywhere when empty. A function is APP or APP.FUNCTION.
	Verbs      []verb   `json:"verbs"`
	Namespaces []string `json:"namespaces,omitempty"`
	Functions  []string `json:"functions,omitempty"`
	// Rate is how many requests a second each gateway takes, with as many at once; 0 for any number.
	Rate    float64   `json:"rate,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`

	limiter *rate.Limiter
}

func (t *token) expired(now time.Time) bool { return !t.Expires.IsZero() && now.After(t.Expires) }

// covers tells whether the token is for all of what is asked for: an empty namespace, app or name stands for every one.
func (t *token) covers(f queue.Function) bool {
	if len(t.Namespaces) > 0 && !slices.Contains(t.Namespaces, f.Namespace) {
		return false
	}
	return len(t.Functions) == 0 || f.App != "" && slices.Contains(t.Functions, f.App) ||
		f.Name != "" && slices.Contains(t.Functions, f.App+"."+f.Name)
}

// limit takes one request from the token's rate, or tells how long to wait.
func (t *token) limit(now time.Time) (time.Duration, bool) {
	if t.limiter == nil || t.limiter.AllowN(now, 1) {
		return 0, true
	}
	return time.Duration(float64(time.Second) / t.Rate), false
}

// tokens are those of the cluster, as this gateway knows them: it follows the bucket that holds them.
type tokens struct {
	mu     sync.RWMutex
	byID   map[string]*token
	loaded bool
}

func (t *tokens) ready() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.loaded
}

// find looks up a token that is shown; sum is its hash.
func (t *tokens) find(shown string, sum [sha256.Size]byte) (*token, bool) {
	id, _, _ := strings.Cut(strings.TrimPrefix(shown, tokenPrefix), "_")
	t.mu.RLock()
	found, ok := t.byID[id]
	t.mu.RUnlock()
	if !ok {
		return nil, false
	}
	return found, subtle.ConstantTimeCompare([]byte(found.Hash), []byte(hex.EncodeToString(sum[:]))) == 1
}

func (t *tokens) put(entry jetstream.KeyValueEntry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if entry == nil {
		t.loaded = true // all that there were
		return nil
	}
	if entry.Operation() != jetstream.KeyValuePut {
		delete(t.byID, entry.Key())
		return nil
	}
	read := &token{}
	if err := json.Unmarshal(entry.Value(), read); err != nil {
		return fmt.Errorf("read token %s: %w", entry.Key(), err)
	}
	if read.Rate > 0 {
		read.limiter = rate.NewLimiter(rate.Limit(read.Rate), max(1, int(read.Rate)))
	}
	t.byID[read.ID] = read
	return nil
}

// follow keeps the tokens until the context ends.
func (g *Gateway) followTokens(ctx context.Context, bucket jetstream.KeyValue) error {
	watcher, err := bucket.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch tokens: %w", err)
	}
	g.done.Go(func() {
		defer func() { _ = watcher.Stop() }() // fails only on a closed connection
		for {
			select {
			case entry := <-watcher.Updates():
				if err := g.guard.tokens.put(entry); err != nil {
					g.exchange.log.Error().Err(err).Msg("a token cannot be used")
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

// tokenAPI makes, lists, rotates and revokes tokens.
type tokenAPI struct {
	*exchange
	responder
}

// tokenRequest is what a request for a token says.
type tokenRequest struct {
	Name       string   `json:"name"`
	Verbs      []verb   `json:"verbs"`
	Namespaces []string `json:"namespaces"`
	Functions  []string `json:"functions"`
	Rate       float64  `json:"rate"`
	// Expires is a duration from now, such as "720h"; never when empty.
	Expires string `json:"expires"`
}

// maxTokenRequest is the largest request for a token, in bytes.
const maxTokenRequest = 64 << 10

// createdView is the only answer that holds a token's secret.
type createdView struct {
	token

	Token string `json:"token"`
}

// fresh gives the token a new secret and returns the whole of it.
func (t *token) fresh() string {
	whole := tokenPrefix + t.ID + "_" + rand.Text()
	sum := sha256.Sum256([]byte(whole))
	t.Hash = hex.EncodeToString(sum[:])
	return whole
}

func parseToken(body io.Reader, now time.Time) (token, error) {
	decoder := json.NewDecoder(io.LimitReader(body, maxTokenRequest))
	decoder.DisallowUnknownFields()
	var request tokenRequest
	if err := decoder.Decode(&request); err != nil {
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
	if request.Expires != "" {
		lasts, err := time.ParseDuration(request.Expires)
		if err != nil || lasts <= 0 {
			return t, badInput("expires", request.Expires, "use a duration from now, such as 720h")
		}
		t.Expires = t.Created.Add(lasts)
	}
	return t, nil
}

func (a *tokenAPI) bucket() (jetstream.KeyValue, error) {
	stores, err := a.connected()
	if err != nil {
		return nil, err
	}
	return stores.tokens, nil
}

func (a *tokenAPI) save(ctx context.Context, t token) error {
	bucket, err := a.bucket()
	if err != nil {
		return err
	}
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encode token: %w", err)
	}
	if _, err := bucket.Put(ctx, t.ID, data); err != nil {
		return unavailable("the token could not be stored; try again", err)
	}
	return nil
}

// handleCreate makes a token. Its secret is in this answer and nowhere else.
func (a *tokenAPI) handleCreate(w http.ResponseWriter, r *http.Request) {
	t, err := parseToken(r.Body, time.Now())
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	a.issue(w, r, t, http.StatusCreated)
}

// issue gives the token a new secret, stores it and answers with it.
func (a *tokenAPI) issue(w http.ResponseWriter, r *http.Request, t token, status int) {
	whole := t.fresh()
	if err := a.save(r.Context(), t); err != nil {
		a.refuse(w, r, err)
		return
	}
	t.Hash = ""
	a.respond(w, status, createdView{t, whole})
}

func (a *tokenAPI) load(ctx context.Context, id string) (token, error) {
	var t token
	bucket, err := a.bucket()
	if err != nil {
		return t, err
	}
	if !validTokenID(id) {
		return t, &problem{Kind: kindNotFound, Message: "no token " + id}
	}
	entry, err := bucket.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return t, &problem{Kind: kindNotFound, Message: "no token " + id}
	}
	if err != nil {
		return t, unavailable("the token cannot be read; try again", err)
	}
	if err := json.Unmarshal(entry.Value(), &t); err != nil {
		return t, fmt.Errorf("read token %s: %w", id, err)
	}
	return t, nil
}

func validTokenID(id string) bool {
	return len(id) == 12 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// handleRotate gives a token another secret; the old one ends at once.
func (a *tokenAPI) handleRotate(w http.ResponseWriter, r *http.Request) {
	t, err := a.load(r.Context(), r.PathValue("token"))
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	a.issue(w, r, t, http.StatusOK)
}

// handleRevoke ends a token.
func (a *tokenAPI) handleRevoke(w http.ResponseWriter, r *http.Request) {
	t, err := a.load(r.Context(), r.PathValue("token"))
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	bucket, err := a.bucket()
	if err == nil {
		err = bucket.Purge(r.Context(), t.ID)
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
	list := []token{} // an empty list in JSON, never null
	ids, err := bucket.Keys(r.Context())
	if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
		a.refuse(w, r, unavailable("the tokens cannot be read; try again", err))
		return
	}
	for _, id := range ids {
		t, err := a.load(r.Context(), id)
		if err != nil {
			continue // it was revoked meanwhile
		}
		t.Hash = ""
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b token) int { return a.Created.Compare(b.Created) })
	a.respond(w, http.StatusOK, list)
}
