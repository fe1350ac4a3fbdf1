package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/internal/queue"
)

// verb is what a request does; a token allows some.
type verb string

// The verbs. Admin is over tokens, and includes nothing else.
const (
	verbCall   verb = "call"
	verbRead   verb = "read"
	verbDeploy verb = "deploy"
	verbSecret verb = "secret"
	verbVolume verb = "volume"
	verbAdmin  verb = "admin"
	// verbExec is to run commands in workers, which is to see their secrets and to touch what they do.
	verbExec verb = "exec"
)

func allVerbs() []verb {
	return []verb{verbCall, verbRead, verbDeploy, verbExec, verbSecret, verbVolume, verbAdmin}
}

// verbNames lists the verbs for people.
func verbNames() string { return inWords(allVerbs()) }

func inWords(verbs []verb) string {
	names := make([]string, len(verbs))
	for i, v := range verbs {
		names[i] = string(v)
	}
	return strings.Join(names, ", ")
}

// guard lets through who may do what they ask for. Without it, as a gateway on one's own machine runs, everybody may do everything.
type guard struct {
	responder

	on     bool
	root   [sha256.Size]byte // the hash of the operator's token
	rooted bool
	tokens *tokens
}

// identity is who asks, in a request's context.
type identity struct{ token *token }

type identityKey struct{}

// permit refuses a request that may not touch the function, whose namespace and names may be empty for all of them.
func permit(ctx context.Context, f queue.Function) error {
	if who, known := ctx.Value(identityKey{}).(identity); known {
		return who.token.permit(f)
	}
	return nil
}

// permit refuses what the token is not for, and names the scope that it lacks.
func (t *token) permit(f queue.Function) error {
	if lacks := t.lacks(ownName(f)); lacks != "" {
		return forbidden("token " + t.label() + " is not for " + lacks)
	}
	return nil
}

// allow refuses what the token does not allow to do.
func (t *token) allow(v verb) error {
	if slices.Contains(t.Verbs, v) {
		return nil
	}
	return forbidden("token " + t.label() + " lacks the verb " + string(v) + ", its verbs are " + inWords(t.Verbs))
}

// turnAway refuses a request at once: the rest of its body, which the server would read first, may wait for the answer.
func (g *guard) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 always is
	endConnection(w, r)
	g.refuse(w, r, err)
}

// endConnection has a connection take no request after this one, whose body is not read to its end: in full duplex the server would
// read what is left of it together with the next request.
func endConnection(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
}

// need wraps the handler of a route that a token is needed for.
func (g *guard) need(of route) http.HandlerFunc {
	if !g.on {
		return of.serve
	}
	// What has no namespace is checked by its handler, where an id names a call, or else lies in none: programs, images and tokens.
	named := slices.Contains(of.query, "namespace")
	return func(w http.ResponseWriter, r *http.Request) {
		t, err := g.recognise(r)
		if err != nil {
			challenge(w)
			g.turnAway(w, r, err)
			return
		}
		err = t.allow(of.needs)
		if err == nil && named {
			err = t.permit(asked(r))
		}
		if err == nil {
			err = t.inRate()
		}
		if err != nil {
			g.turnAway(w, r, err)
			return
		}
		of.serve(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, identity{t})))
	}
}

func challenge(w http.ResponseWriter) { w.Header().Set("WWW-Authenticate", `Bearer realm="freshet"`) }

// admit tells why a request may not reach the server of a function. A token that it knew it by is taken out of Authorization.
func (g *guard) admit(r *http.Request, f queue.Function) error {
	if !g.on {
		return nil
	}
	t, err := g.recognise(r)
	if err != nil {
		return err
	}
	if err := t.allow(verbCall); err != nil {
		return err
	}
	if err := t.permit(f); err != nil {
		return err
	}
	if err := t.inRate(); err != nil {
		return err
	}
	if id, _ := keyOf(r); id == "" {
		r.Header.Del("Authorization")
	}
	return nil
}

// inRate takes one request from the token's rate.
func (t *token) inRate() error {
	if t.limiter == nil || t.limiter.Allow() {
		return nil
	}
	wait := time.Duration(float64(time.Second) / t.Rate)
	return tooFast("token "+t.label()+" takes "+strconv.FormatFloat(t.Rate, 'g', -1, 64)+" requests a second here, its rate; try again later", wait)
}

// asked is the function that a request's path or query names; what it does not name stands for all.
func asked(r *http.Request) queue.Function {
	query := r.URL.Query()
	f := queue.Function{Namespace: namespaceOf(query), App: r.PathValue("app"), Name: r.PathValue("function")}
	if f.Namespace == allNamespaces {
		f.Namespace = ""
	}
	if f.App == "" {
		f.App, f.Name = query.Get("app"), query.Get("function")
	}
	if f.App == "" {
		f.App, f.Name, _ = strings.Cut(f.Name, ".")
	}
	return f
}

func forbidden(message string) *problem { return &problem{Kind: kindForbidden, Message: message} }

// recognise finds the token that a request shows: as a bearer token, or as an id and a secret in headers of their own, which
// proxies can add.
func (g *guard) recognise(r *http.Request) (*token, error) {
	shown, _ := strings.CutPrefix(first(r.Header, "Authorization"), "Bearer ")
	if id, secret := keyOf(r); id != "" {
		shown = tokenPrefix + id + "_" + secret
	}
	if shown == "" {
		return nil, &problem{Kind: kindUnauthorized, Message: "no token: send Authorization: Bearer TOKEN, or Freshet-Key and Freshet-Secret"}
	}
	sum := sha256.Sum256([]byte(shown))
	if g.rooted && subtle.ConstantTimeCompare(sum[:], g.root[:]) == 1 {
		return &token{Verbs: allVerbs()}, nil
	}
	if !g.tokens.ready() {
		return nil, unavailable("the tokens have not been read yet; try again", nil)
	}
	t, end, ok := g.tokens.find(shown, hashOf(sum))
	if !ok {
		return nil, &problem{Kind: kindUnauthorized, Message: "the token is not valid: it is unknown or revoked"}
	}
	now := time.Now()
	if !end.IsZero() && !now.Before(end) {
		return nil, t.over(end)
	}
	t.use.note(now)
	return t, nil
}

// over says of a secret that was the token's when it ended, and what to do.
func (t *token) over(end time.Time) *problem {
	p := &problem{Kind: kindTokenExpired, Message: fmt.Sprintf(
		"token %s (%s) expired at %s: whoever has a token with the verb admin makes another with POST /v1/tokens, or freshet token create",
		t.label(), t.ID, end.Format(time.RFC3339))}
	if !end.Equal(t.Expires) {
		p.Message = fmt.Sprintf("this secret of token %s (%s) expired at %s, when the grace of its rotation ended: use the one that the rotation gave, "+
			"or whoever has a token with the verb admin rotates it again with POST /v1/tokens/%s/rotate, or freshet token rotate", t.label(), t.ID, end.Format(time.RFC3339), t.ID)
	}
	return p
}

// keyOf is a token in headers of its own, which leave Authorization to others: its id, and its secret. Modal's clients know its names.
func keyOf(r *http.Request) (id, secret string) {
	if id = first(r.Header, "Freshet-Key"); id != "" {
		return id, first(r.Header, "Freshet-Secret")
	}
	return first(r.Header, "Modal-Key"), first(r.Header, "Modal-Secret")
}

// crossOrigin lets pages of the given origins use the API.
func crossOrigin(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		h := w.Header()
		h.Add("Vary", "Origin")
		if origin == "" || !slices.Contains(origins, origin) && !slices.Contains(origins, "*") {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "Freshet-Call, Freshet-Batch, Freshet-Worker, Freshet-Attempt, Freshet-Error, Location, Retry-After, Server-Timing")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE")
			h.Set("Access-Control-Allow-Headers",
				"Authorization, Content-Type, Idempotency-Key, Freshet-Key, Freshet-Secret, Freshet-Timeout, Freshet-Keep, Last-Event-Id, Traceparent")
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
