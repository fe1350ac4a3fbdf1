package gateway

import (
	"errors"
	"net/http"

	"github.com/nats-io/nats.go"

	"github.com/freshet-dev/freshet/gateway/web"
	"github.com/freshet-dev/freshet/internal/queue"
)

// HostNames tells which host names lead to the gateway or its functions, so that they may have certificates.
func HostNames(g *Gateway) func(host string) bool { return g.web.Serves }

// webDoor is what web endpoints need of the gateway.
type webDoor struct {
	*guard

	nc *nats.Conn
}

// webRoute is what the API's document says of web endpoints.
func webRoute() route {
	return route{
		pattern: "GET /web/{app}/{function}/{path}", needs: verbCall, about: "Send a request, of any method and path, to a function's own server",
		status: http.StatusOK, answer: anyType,
	}
}

// Admit implements web.Gateway.
func (d webDoor) Admit(r *http.Request, f queue.Function) error { return d.admit(r, f) }

// Refuse implements web.Gateway.
func (d webDoor) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	var fault *web.Fault
	if errors.As(err, &fault) {
		err = &problem{Kind: fault.Kind, Message: fault.Message, retryAfter: fault.RetryAfter}
	}
	if statusOf(asProblem(err).Kind) == http.StatusUnauthorized {
		challenge(w)
	}
	d.turnAway(w, r, err)
}

// Hint implements web.Gateway.
func (d webDoor) Hint(function queue.Function, waiting int) {
	if err := d.nc.Publish(function.DemandSubject(), queue.Demand(waiting)); err != nil {
		d.log.Debug().Err(err).Str("function", function.String()).Msg("hint demand")
	}
}
