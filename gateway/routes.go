package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// route is one address of the API, and what its document says of it.
type route struct {
	pattern string
	needs   verb
	serve   http.HandlerFunc
	about   string
	query   []string // its parameters
	body    string   // content type of the request's body; empty for none
	status  int      // of a success
	answer  string   // content type of a success; empty for none
}

const (
	plainJSON = "application/json"
	anyType   = "*/*"
	// problemJSON is the type of RFC 9457's documents.
	problemJSON = "application/problem+json"
)

// routes are those that a token may be needed for: the whole API but health and metrics.
func (g *Gateway) routes() []route {
	return slices.Concat(g.callRoutes(), g.spawnRoutes(), g.scheduleRoutes(), g.adminRoutes(), g.secrets.routes(), g.volumes.routes())
}

func (g *Gateway) callRoutes() []route {
	const function = "POST /v1/functions/{app}/{function}/"
	return []route{
		{function + "call", verbCall, g.handleCall, "Call a function and wait for the result", []string{"namespace", "method", "param.x", "redirect", "wait"}, anyType, 200, anyType},
		{function + "spawn", verbCall, g.spawns.handleSpawn, "Queue a call and answer with its address", []string{"namespace", "method", "param.x", "stream"}, anyType, 202, plainJSON},
		{function + "batch", verbCall, g.spawns.handleBulk, "Queue a call for each line", []string{"namespace", "method", "param.x", "batch", "from"}, ndjson, 202, plainJSON},
		{function + "map", verbCall, g.handleMap, "Call a function for each line and stream the results", []string{"namespace", "method", "param.x", "batch", "from", "sent", "window", "order", "on_error"}, ndjson, 200, ndjson},
		{function + "stream", verbCall, g.handleStream, "Call a generator and stream its values", []string{"namespace", "method", "param.x"}, anyType, 200, ndjson},
		{"GET /v1/functions/{app}/{function}/outputs/{id}", verbRead, g.handleOutput, "Fetch the output of a call that is too large for a line", []string{"namespace"}, "", 200, anyType},
	}
}

func (g *Gateway) spawnRoutes() []route {
	return []route{
		{"GET /v1/calls", verbRead, g.spawns.handleList, "List what was spawned", []string{"namespace", "function", "status", "since", "limit", "after"}, "", 200, plainJSON},
		{"GET /v1/calls/{id}", verbRead, g.spawns.handleCallView, "Show a spawned call", []string{"wait", "redirect"}, "", 200, plainJSON},
		{"GET /v1/calls/{id}/result", verbRead, g.spawns.handleResult, "Fetch the result of a spawned call", []string{"wait", "redirect"}, "", 200, anyType},
		{"GET /v1/calls/{id}/values", verbRead, g.spawns.handleValues, "Stream the values of a spawned generator", []string{"after"}, "", 200, ndjson},
		{"POST /v1/calls/{id}/cancel", verbCall, g.spawns.handleCancel, "Cancel a spawned call", nil, "", 200, plainJSON},
		{"GET /v1/batches/{id}", verbRead, g.spawns.handleBatch, "Show a batch", nil, "", 200, plainJSON},
		{"GET /v1/batches/{id}/results", verbRead, g.spawns.handleBatchResults, "Stream the results of a batch", []string{"from", "follow", "status"}, "", 200, ndjson},
		{"POST /v1/batches/{id}/cancel", verbCall, g.spawns.handleCancelBatch, "Cancel a batch", nil, "", 200, plainJSON},
		{"GET /v1/dead", verbRead, g.dead.handleList, "List dead calls", []string{"namespace", "function", "since", "limit", "after"}, "", 200, plainJSON},
		{"GET /v1/dead/{id}", verbRead, g.dead.handleDead, "Show a dead call and why its attempts failed", nil, "", 200, plainJSON},
		{"GET /v1/dead/{id}/input", verbRead, g.dead.handleInput, "Fetch the input of a dead call", nil, "", 200, anyType},
		{"POST /v1/dead/{id}/replay", verbCall, g.dead.handleReplay, "Run a dead call again", nil, "", 202, plainJSON},
		{"DELETE /v1/dead/{id}", verbCall, g.dead.handleForget, "Forget a dead call", nil, "", 204, ""},
	}
}

func (g *Gateway) scheduleRoutes() []route {
	const schedule = "/v1/functions/{app}/{function}/schedules/{name}"
	namespace := []string{"namespace"}
	return []route{
		{"GET /v1/schedules", verbRead, g.schedules.handleList, "List schedules", []string{"namespace", "function"}, "", 200, plainJSON},
		{"PUT " + schedule, verbDeploy, g.schedules.handlePut, "Make or replace a schedule", namespace, plainJSON, 200, plainJSON},
		{"DELETE " + schedule, verbDeploy, g.schedules.handleDelete, "End a schedule", namespace, "", 204, ""},
		{"POST " + schedule + "/pause", verbDeploy, g.schedules.handlePause, "Make no calls until it is resumed", namespace, "", 200, plainJSON},
		{"POST " + schedule + "/resume", verbDeploy, g.schedules.handleResume, "Make calls again", namespace, "", 200, plainJSON},
		{"POST " + schedule + "/run", verbCall, g.schedules.handleRun, "Make a call now", namespace, "", 202, plainJSON},
	}
}

func (g *Gateway) adminRoutes() []route {
	namespace := []string{"namespace"}
	return []route{
		{"GET /v1/functions", verbRead, g.handleFunctions, "List functions", namespace, "", 200, plainJSON},
		{"GET /v1/functions/{app}/{function}", verbRead, g.handleFunction, "Show a function", namespace, "", 200, plainJSON},
		{"GET /v1/functions/{app}/{function}/logs", verbRead, g.logs.handleLogs, "Stream log lines", []string{"namespace", "follow", "since", "tail", "call"}, "", 200, ndjson},
		{"GET /v1/workers", verbRead, g.handleWorkers, "List live workers", []string{"namespace", "app", "function", "usage"}, "", 200, plainJSON},
		{"GET /v1/workers/{id}/exec", verbExec, g.execs.handleWorkerExec, "Run a command in a worker, over a WebSocket", []string{"command", "tty", "rows", "columns"}, "", 101, ""},
		{"GET /v1/functions/{app}/{function}/exec", verbExec, g.execs.handleFunctionExec, "Run a command in one of a function's workers, or in a fresh sandbox, over a WebSocket", []string{"namespace", "command", "tty", "rows", "columns", "fresh"}, "", 101, ""},
		{"PUT /v1/apps/{app}", verbDeploy, g.deploys.handleDeploy, "Deploy an app's manifest", []string{"namespace", "plan", "warm", "message", "commit", "ephemeral", "strategy"}, plainJSON, 200, plainJSON},
		{"GET /v1/apps/{app}/deploys", verbRead, g.deploys.handleHistory, "List an app's deploys", namespace, "", 200, plainJSON},
		{"POST /v1/apps/{app}/rollback", verbDeploy, g.deploys.handleRollback, "Deploy again what an earlier deploy did", []string{"namespace", "number", "message", "strategy"}, "", 200, plainJSON},
		{"DELETE /v1/apps/{app}", verbDeploy, g.deploys.handleDelete, "Stop an app's functions", namespace, "", 200, plainJSON},
		{"PUT /v1/blobs/{digest}", verbDeploy, g.handlePutBlob, "Store a program", nil, anyType, 200, plainJSON},
		{"GET /v1/blobs/{digest}", verbRead, g.handleGetBlob, "Fetch a program", nil, "", 200, anyType},
		{"POST /v1/images/builds", verbDeploy, g.images.handleBuild, "Build an image and stream what the build says", namespace, plainJSON, 200, ndjson},
		{"GET /v1/images", verbRead, g.images.handleList, "List the images that were built in the cluster", nil, "", 200, plainJSON},
		{"GET /v1/images/{image}", verbRead, g.images.handleImage, "Show what an image's name means", nil, "", 200, plainJSON},
		{"PUT /v1/images/{image}", verbAdmin, g.images.handleName, "Have a registry's tag mean an image that was built here", nil, plainJSON, 200, plainJSON},
		{"DELETE /v1/images/{image}", verbDeploy, g.images.handleRemove, "Remove an image", nil, "", 204, ""},
		{"GET /v1/tokens", verbAdmin, g.tokens.handleList, "List tokens", nil, "", 200, plainJSON},
		{"POST /v1/tokens", verbAdmin, g.tokens.handleCreate, "Make a token", nil, plainJSON, 201, plainJSON},
		{"POST /v1/tokens/{token}/rotate", verbAdmin, g.tokens.handleRotate, "Give a token another secret", []string{"grace"}, "", 200, plainJSON},
		{"DELETE /v1/tokens/{token}", verbAdmin, g.tokens.handleRevoke, "End a token", nil, "", 204, ""},
	}
}

// openRoutes are those that no token is needed for. They take whatever parameters probes add.
func openRoutes(g *Gateway, document *json.RawMessage) []route {
	describe := func(w http.ResponseWriter, _ *http.Request) { g.respond(w, http.StatusOK, *document) }
	return []route{
		{"GET /openapi.json", "", describe, "Show this document", nil, "", 200, plainJSON},
		{"GET /healthz", "", g.handleHealth, "Say that the process answers", nil, "", 200, plainJSON},
		{"GET /readyz", "", g.handleReady, "Say whether calls can be taken, or what is missing", nil, "", 200, plainJSON},
		{"GET /metrics", "", g.metrics.handler.ServeHTTP, "Show the metrics, for Prometheus", nil, "", 200, "text/plain"},
	}
}

// serveMux is the whole API.
func (g *Gateway) serveMux(version string) (http.Handler, error) {
	mux, document := http.NewServeMux(), json.RawMessage{}
	routes, open := g.routes(), openRoutes(g, &document)
	for _, route := range routes {
		if len(route.query) == 0 {
			route.serve = g.noQuery(route.serve)
		}
		mux.HandleFunc(route.pattern, g.guard.need(route))
	}
	for _, route := range open {
		mux.HandleFunc(route.pattern, route.serve)
	}
	var err error
	if document, err = openAPI(slices.Concat(routes, open, []route{webRoute()}), version); err != nil {
		return nil, err
	}
	mux.Handle(registryPath, &registry{guard: g.guard, blobs: g.blobs})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { g.handleUnknown(mux, w, r) })
	return mux, nil
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
