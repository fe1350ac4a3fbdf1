package gateway

import (
	"net/http"
	"slices"
	"strings"
)

// routes is the whole API.
func (g *Gateway) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/functions/{app}/{function}/call", g.handleCall)
	mux.HandleFunc("POST /v1/functions/{app}/{function}/spawn", g.spawns.handleSpawn)
	mux.HandleFunc("POST /v1/functions/{app}/{function}/batch", g.spawns.handleBulk)
	mux.HandleFunc("POST /v1/functions/{app}/{function}/map", g.handleMap)
	mux.HandleFunc("POST /v1/functions/{app}/{function}/stream", g.handleStream)
	mux.HandleFunc("GET /v1/calls/{id}/values", g.spawns.handleValues)
	mux.HandleFunc("GET /v1/calls", g.spawns.handleList)
	mux.HandleFunc("GET /v1/calls/{id}", g.spawns.handleCallView)
	mux.HandleFunc("GET /v1/calls/{id}/result", g.spawns.handleResult)
	mux.HandleFunc("POST /v1/calls/{id}/cancel", g.spawns.handleCancel)
	mux.HandleFunc("GET /v1/batches/{id}", g.spawns.handleBatch)
	mux.HandleFunc("POST /v1/batches/{id}/cancel", g.spawns.handleCancelBatch)
	mux.HandleFunc("GET /v1/batches/{id}/results", g.spawns.handleBatchResults)
	mux.HandleFunc("GET /v1/dead", g.dead.handleList)
	mux.HandleFunc("GET /v1/dead/{id}", g.dead.handleDead)
	mux.HandleFunc("GET /v1/dead/{id}/input", g.dead.handleInput)
	mux.HandleFunc("POST /v1/dead/{id}/replay", g.dead.handleReplay)
	mux.HandleFunc("DELETE /v1/dead/{id}", g.dead.handleForget)
	mux.HandleFunc("GET /v1/functions", g.handleFunctions)
	mux.HandleFunc("GET /v1/functions/{app}/{function}", g.handleFunction)
	mux.HandleFunc("GET /v1/functions/{app}/{function}/logs", g.logs.handleLogs)
	mux.HandleFunc("GET /v1/workers", g.handleWorkers)
	mux.HandleFunc("PUT /v1/apps/{app}", g.deploys.handleDeploy)
	mux.HandleFunc("DELETE /v1/apps/{app}", g.deploys.handleDelete)
	mux.HandleFunc("PUT /v1/blobs/{digest}", g.handlePutBlob)
	mux.HandleFunc("GET /v1/blobs/{digest}", g.handleGetBlob)
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
