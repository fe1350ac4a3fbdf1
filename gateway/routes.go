package gateway

import (
	"net/http"
	"slices"
	"strings"
)

// routes is the whole API.
func (g *Gateway) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, needs verb, next http.HandlerFunc) {
		mux.HandleFunc(pattern, g.guard.need(needs, next))
	}
	handle("POST /v1/functions/{app}/{function}/call", verbCall, g.handleCall)
	handle("POST /v1/functions/{app}/{function}/spawn", verbCall, g.spawns.handleSpawn)
	handle("POST /v1/functions/{app}/{function}/batch", verbCall, g.spawns.handleBulk)
	handle("POST /v1/functions/{app}/{function}/map", verbCall, g.handleMap)
	handle("POST /v1/functions/{app}/{function}/stream", verbCall, g.handleStream)
	handle("GET /v1/calls/{id}/values", verbRead, g.spawns.handleValues)
	handle("GET /v1/calls", verbRead, g.spawns.handleList)
	handle("GET /v1/calls/{id}", verbRead, g.spawns.handleCallView)
	handle("GET /v1/calls/{id}/result", verbRead, g.spawns.handleResult)
	handle("POST /v1/calls/{id}/cancel", verbCall, g.spawns.handleCancel)
	handle("GET /v1/batches/{id}", verbRead, g.spawns.handleBatch)
	handle("POST /v1/batches/{id}/cancel", verbCall, g.spawns.handleCancelBatch)
	handle("GET /v1/batches/{id}/results", verbRead, g.spawns.handleBatchResults)
	handle("GET /v1/dead", verbRead, g.dead.handleList)
	handle("GET /v1/dead/{id}", verbRead, g.dead.handleDead)
	handle("GET /v1/dead/{id}/input", verbRead, g.dead.handleInput)
	handle("POST /v1/dead/{id}/replay", verbCall, g.dead.handleReplay)
	handle("DELETE /v1/dead/{id}", verbCall, g.dead.handleForget)
	handle("GET /v1/functions", verbRead, g.handleFunctions)
	handle("GET /v1/functions/{app}/{function}", verbRead, g.handleFunction)
	handle("GET /v1/functions/{app}/{function}/logs", verbRead, g.logs.handleLogs)
	handle("GET /v1/workers", verbRead, g.handleWorkers)
	handle("PUT /v1/apps/{app}", verbDeploy, g.deploys.handleDeploy)
	handle("DELETE /v1/apps/{app}", verbDeploy, g.deploys.handleDelete)
	handle("PUT /v1/blobs/{digest}", verbDeploy, g.handlePutBlob)
	handle("GET /v1/blobs/{digest}", verbRead, g.handleGetBlob)
	const schedule = "/v1/functions/{app}/{function}/schedules/{name}"
	handle("GET /v1/schedules", verbRead, g.schedules.handleList)
	handle("PUT "+schedule, verbDeploy, g.schedules.handlePut)
	handle("DELETE "+schedule, verbDeploy, g.schedules.handleDelete)
	handle("POST "+schedule+"/pause", verbDeploy, g.schedules.handlePause)
	handle("POST "+schedule+"/resume", verbDeploy, g.schedules.handleResume)
	handle("POST "+schedule+"/run", verbCall, g.schedules.handleRun)
	handle("GET /v1/tokens", verbAdmin, g.tokens.handleList)
	handle("POST /v1/tokens", verbAdmin, g.tokens.handleCreate)
	handle("POST /v1/tokens/{token}/rotate", verbAdmin, g.tokens.handleRotate)
	handle("DELETE /v1/tokens/{token}", verbAdmin, g.tokens.handleRevoke)
	mux.HandleFunc("GET /healthz", g.handleHealth)
	mux.HandleFunc("GET /readyz", g.handleReady)
	mux.Handle("GET /metrics", g.metrics.handler)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { g.handleUnknown(mux, w, r) })
	return mux
}

// handleUnknown answers what no route takes: another method's path with 405, any other path with 404.
func (g *Gateway) handleUnknown(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := mux.Handler(probe); pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		list := strings.Join(allowed, ", ")
		g.refuse(w, r, &problem{
			Kind: kindNotAllowed, Message: "method " + r.Method + " is not for " + r.URL.Path + ": use " + list, allow: list,
		})
		return
	}
	g.refuse(w, r, &problem{Kind: kindNotFound, Message: "no such path: " + r.URL.Path + "; a call is POST /v1/functions/APP/FUNCTION/call"})
}

// handleHealth says that the process answers.
func (g *Gateway) handleHealth(w http.ResponseWriter, _ *http.Request) {
	g.respond(w, http.StatusOK, map[string]string{"status": "ok"})
}

// handleReady says whether calls can be taken, and what is missing.
func (g *Gateway) handleReady(w http.ResponseWriter, _ *http.Request) {
	missing := []string{}
	if !g.nc.IsConnected() {
		missing = append(missing, "nats")
	}
	if g.ready.Load() == nil {
		missing = append(missing, "streams")
	}
	if !g.functions.Ready() {
		missing = append(missing, "functions")
	}
	slices.Sort(missing)
	status := http.StatusOK
	if len(missing) > 0 {
		status = http.StatusServiceUnavailable
	}
	g.respond(w, status, struct {
		Ready   bool     `json:"ready"`
		Missing []string `json:"missing"`
	}{len(missing) == 0, missing})
}
