package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
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
	// Retired are secrets that were replaced, and work until their grace ends.
	Retired []retired `json:"retired,omitempty"`
	// Verbs are what it allows; Namespaces and Functions where, each everywhere when empty. A function is APP or APP.FUNCTION.
	Verbs      []verb   `json:"verbs"`
	Namespaces []string `json:"namespaces,omitempty"`
	Functions  []string `json:"functions,omitempty"`
	// Rate is how many requests a second each gateway takes, with as many at once; 0 for any number.
	Rate    float64   `json:"rate,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`

	limiter *rate.Limiter
	use     *usage
}

// retired is a secret that was replaced by another one.
type retired struct {
	Hash  string    `json:"hash,omitempty"`
	Until time.Time `json:"until"`
}

// label names the token in messages.
func (t *token) label() string { return cmp.Or(t.Name, t.ID) }

// ends is when a secret of the token stops to work, zero for never; ok is false where it is none of the token's.
func (t *token) ends(hash string) (end time.Time, ok bool) {
	if subtle.ConstantTimeCompare([]byte(t.Hash), []byte(hash)) == 1 {
		return t.Expires, true
	}
	for _, old := range t.Retired {
		if subtle.ConstantTimeCompare([]byte(old.Hash), []byte(hash)) != 1 {
			continue
		}
		if !t.Expires.IsZero() && t.Expires.Before(old.Until) {
			return t.Expires, true
		}
		return old.Until, true
	}
	return end, false
}

// lacks names the scope that the token would need for all of what is asked for, where an empty namespace, app or name stands for
// every one; it is empty where it has it.
func (t *token) lacks(f queue.Function) string {
	if len(t.Namespaces) > 0 && !slices.Contains(t.Namespaces, f.Namespace) {
		return "namespace " + orAll(f.Namespace) + ", its namespaces are " + strings.Join(t.Namespaces, ", ")
	}
	if len(t.Functions) == 0 || f.App != "" && slices.Contains(t.Functions, f.App) ||
		f.Name != "" && slices.Contains(t.Functions, f.App+"."+f.Name) {
		return ""
	}
	return "function " + orAll(strings.Trim(f.App+"."+f.Name, ".")) + ", its functions are " + strings.Join(t.Functions, ", ")
}

func orAll(name string) string {
	if name == "" {
		return "* (all)"
	}
	return name
}

// spans tells whether another token allows nothing where this one does not.
func (t *token) spans(other token) bool {
	if len(t.Namespaces) > 0 && len(other.Namespaces) == 0 || len(t.Functions) > 0 && len(other.Functions) == 0 {
		return false
	}
	for _, namespace := range other.Namespaces {
		if len(t.Namespaces) > 0 && !slices.Contains(t.Namespaces, namespace) {
			return false
		}
	}
	for _, function := range other.Functions {
		app, _, _ := strings.Cut(function, ".")
		if len(t.Functions) > 0 && !slices.Contains(t.Functions, app) && !slices.Contains(t.Functions, function) {
			return false
		}
	}
	return true
}

// fresh gives the token a new secret and returns the whole of it.
func (t *token) fresh() string {
	whole := tokenPrefix + t.ID + "_" + rand.Text()
	t.Hash = hashOf(sha256.Sum256([]byte(whole)))
	return whole
}

func hashOf(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:]) }

// view is the token without what it is recognised by.
func (t token) view() token {
	t.Hash, t.Retired = "", slices.Clone(t.Retired)
	for i := range t.Retired {
		t.Retired[i].Hash = ""
	}
	return t
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

// find looks up a token that is shown, by the hash of all of it, and when that stops to work.
func (t *tokens) find(shown, hash string) (found *token, end time.Time, ok bool) {
	id, _, _ := strings.Cut(strings.TrimPrefix(shown, tokenPrefix), "_")
	t.mu.RLock()
	found, ok = t.byID[id]
	t.mu.RUnlock()
	if !ok {
		return nil, end, false
	}
	end, ok = found.ends(hash)
	return found, end, ok
}

// lastUse is when this gateway last saw a token; zero where it did not.
func (t *tokens) lastUse(id string) time.Time {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if known, ok := t.byID[id]; ok {
		return known.use.time()
	}
	return time.Time{}
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
	read := &token{use: &usage{}}
	if err := json.Unmarshal(entry.Value(), read); err != nil {
		return fmt.Errorf("read token %s: %w", entry.Key(), err)
	}
	if before, known := t.byID[read.ID]; known {
		read.use = before.use
	}
	if read.Rate > 0 {
		read.limiter = rate.NewLimiter(rate.Limit(read.Rate), max(1, int(read.Rate)))
	}
	t.byID[read.ID] = read
	return nil
}

// followTokens keeps the tokens, and writes down when they are used, until the context ends.
func (g *Gateway) followTokens(ctx context.Context, bucket jetstream.KeyValue) error {
	watcher, err := bucket.Watch(ctx, "*") // not the records of their use
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
	g.done.Go(func() { (&useRecorder{g.guard.tokens, bucket, g.exchange.log}).run(ctx) })
	return nil
}
