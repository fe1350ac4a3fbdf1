package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
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
	verbAdmin  verb = "admin"
)

func allVerbs() []verb { return []verb{verbCall, verbRead, verbDeploy, verbSecret, verbAdmin} }

// verbNames lists the verbs for people.
func verbNames() string {
	names := make([]string, 0, len(allVerbs()))
	for _, v := range allVerbs() {
		names = append(names, string(v))
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

// may tells whether the request may touch the function, whose namespace and names may be empty for all of them.
func may(ctx context.Context, f queue.Function) bool {
	who, known := ctx.Value(identityKey{}).(identity)
	return !known || who.token.covers(ownName(f))
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

// need wraps a handler that the verb is needed for.
func (g *guard) need(v verb, next http.HandlerFunc) http.HandlerFunc {
	if !g.on {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		t, err := g.recognise(r)
		if err != nil {
			challenge(w)
			g.turnAway(w, r, err)
			return
		}
		if !slices.Contains(t.Verbs, v) {
			g.turnAway(w, r, forbidden("the token does not allow to "+string(v)+" here"))
			return
		}
		f := asked(r)
		if byID := r.PathValue("id") != ""; !byID && v != verbAdmin && !t.covers(ownName(f)) { // handlers check what an id names
			g.turnAway(w, r, forbidden("the token is not for all that is asked for: name a namespace and a function that it is for"))
			return
		}
		if wait, ok := t.limit(time.Now()); !ok {
			g.turnAway(w, r, rateUsed(wait))
			return
		}
		next(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, identity{t})))
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
	if !slices.Contains(t.Verbs, verbCall) || !t.covers(f) {
		return forbidden("the token does not allow to call " + f.String())
	}
	if wait, ok := t.limit(time.Now()); !ok {
		return rateUsed(wait)
	}
	if id, _ := keyOf(r); id == "" {
		r.Header.Del("Authorization")
	}
	return nil
}

func rateUsed(wait time.Duration) *problem {
	return &problem{Kind: kindQueueFull, Message: "the token's rate is used up; try again later", retryAfter: wait}
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
	t, ok := g.tokens.find(shown, sum)
	if !ok || t.expired(time.Now()) {
		return nil, &problem{Kind: kindUnauthorized, Message: "the token is not valid: it is unknown, revoked or expired"}
	}
	return t, nil
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
