package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// object is a part of an OpenAPI document.
type object map[string]any

// parameterTexts say what each parameter of a query is for.
func parameterTexts() map[string]string {
	return map[string]string{
		"namespace": "Environment, a Nomad namespace; * for all in lists. Default default",
		"method":    "Method of a class",
		"param.x":   "Value of the class's parameter x; so with every other name",
		"redirect":  "true answers with 303 to the call's own address what takes longer than wait",
		"wait":      "How long to wait for the call's end, up to 150s",
		"stream":    "true keeps the values that the call yields",
		"batch":     "Batch to go on with",
		"from":      "Index of the first input",
		"sent":      "Index after the last input that was sent before: those before it may be left empty where their ends are known",
		"window":    "Calls in flight, 1 to 4096",
		"order":     "finished or input",
		"on_error":  "continue or stop",
		"function":  "APP or APP.FUNCTION; of workers, a function's name",
		"app":       "An app's name",
		"status":    "queued, running, done, failed, cancelled or expired",
		"since":     "How far back to look, such as 1h",
		"limit":     "Most entries of a page, 1 to 500",
		"after":     "Where to go on: the next of the page before, or the index of the last value",
		"follow":    "true waits for what is to come",
		"tail":      "Most old lines",
		"call":      "Lines of one call",
		"plan":      "true says what the deploy would change, and changes nothing",
		"warm":      "true starts and freezes one worker of each function first, and deploys nothing when one does not start; false starts none; by default those are started that replace another version",
		"ephemeral": "true is for what is deleted soon: the list of deploys does not have it",
		"message":   "What the deploy is for, for people",
		"commit":    "The commit that the source was at",
		"strategy":  "rolling: running calls finish on the old version. recreate: they begin anew on the new one. Default rolling",
		"path":      "A path in the volume; the volume itself when it is left out",
		"recursive": "true is for all below a folder",
		"mode":      "Permissions of the file, octal. Default 644",
		"create":    "true refuses when there is one already",
		"restart":   "true replaces the workers of the functions that use it, so that they have the new values",
		"force":     "true removes it although functions use it",
		"grace":     "How long the secret before goes on working, up to 168h. Default not at all",
		"command":   "A program and its arguments, a JSON list of strings",
		"tty":       "true runs it in a terminal",
		"rows":      "The terminal's height, in characters",
		"columns":   "The terminal's width, in characters",
		"usage":     "true asks the nodes what processor and memory the workers use",
		"fresh":     "true starts a sandbox for it though a worker runs",
		"number":    "The number of a deploy. Default the one before the last",
	}
}

// openAPI is the API's document, made from the routes themselves.
func openAPI(routes []route, version string) (json.RawMessage, error) {
	paths, texts := make(map[string]object), parameterTexts()
	inPath := regexp.MustCompile(`\{(\w+)\}`)
	for _, r := range routes {
		method, path, _ := strings.Cut(r.pattern, " ")
		parameters := []object{}
		for _, match := range inPath.FindAllStringSubmatch(path, -1) {
			parameters = append(parameters, object{"name": match[1], "in": "path", "required": true, "schema": object{"type": "string"}})
		}
		for _, name := range r.query {
			if texts[name] == "" {
				return nil, fmt.Errorf("document %s: nothing says what parameter %s is for", r.pattern, name)
			}
			parameters = append(parameters, object{"name": name, "in": "query", "description": texts[name], "schema": object{"type": "string"}})
		}
		operation := object{
			"summary": r.about, "operationId": operationID(method, path), "parameters": parameters, "responses": responses(r, path),
			"security": []object{},
		}
		if r.needs != "" {
			operation["security"] = []object{{"token": []string{}}, {"key": []string{}, "secret": []string{}}, {}}
		}
		if r.body != "" {
			operation["requestBody"] = object{"content": object{r.body: object{}}}
		}
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path][strings.ToLower(method)] = operation
	}
	return json.Marshal(object{
		"openapi": "3.0.3", "info": object{"title": "freshet gateway", "version": version}, "paths": paths, "components": components(),
	})
}

// operationID names an operation: its method and the words of its path.
func operationID(method, path string) string {
	words := strings.FieldsFunc(strings.TrimPrefix(path, "/v1"), func(r rune) bool { return r == '/' || r == '{' || r == '}' })
	return strings.ToLower(method) + "-" + strings.Join(words, "-")
}

func components() object {
	text := object{"type": "string"}
	fault := object{
		"type": "object", "required": []string{"kind", "message"},
		"properties": object{
			"kind": object{"type": "string", "enum": kinds()}, "message": text, "type": text, "traceback": text, "exception": text, "near": object{"type": "array", "items": text},
		},
	}
	byStatus := make(object)
	for status, of := range kindsByStatus() {
		byStatus["Problem"+strconv.Itoa(status)] = object{
			"description": "A problem document of RFC 9457: " + strings.Join(of, ", "),
			"content":     object{problemJSON: object{"schema": object{"$ref": "#/components/schemas/Problem"}}},
		}
	}
	problem := object{
		"type": "object", "required": []string{"type", "title", "status", "detail", "error"},
		"properties": object{"type": text, "title": text, "status": object{"type": "integer"}, "detail": text, "error": fault},
	}
	return object{
		"schemas": object{"Problem": problem},
		"securitySchemes": object{
			"token":  object{"type": "http", "scheme": "bearer"},
			"key":    object{"type": "apiKey", "in": "header", "name": "Freshet-Key"},
			"secret": object{"type": "apiKey", "in": "header", "name": "Freshet-Secret"},
		},
		"responses": byStatus,
	}
}

// kindsByStatus are the kinds of problem that have each status.
func kindsByStatus() map[int][]string {
	byStatus := make(map[int][]string)
	for _, kind := range kinds() {
		byStatus[statusOf(kind)] = append(byStatus[statusOf(kind)], string(kind))
	}
	return byStatus
}

// responses are all answers of a route: its successes, and the problems that it can have.
func responses(r route, path string) object {
	all := make(object)
	for _, status := range problemsOf(r, path) {
		all[strconv.Itoa(status)] = object{"$ref": "#/components/responses/Problem" + strconv.Itoa(status)}
	}
	for _, success := range append(otherAnswers(r), answered{r.status, r.answer}) {
		one := object{"description": http.StatusText(success.status)}
		if success.contentType != "" {
			one["content"] = object{success.contentType: object{}}
		}
		all[strconv.Itoa(success.status)] = one
	}
	return all
}

// answered is a kind of answer that is no problem.
type answered struct {
	status      int
	contentType string
}

// otherAnswers are those of a route beside its usual success.
func otherAnswers(r route) []answered {
	part := answered{http.StatusPartialContent, anyType}
	_, path, _ := strings.Cut(r.pattern, " ")
	switch {
	case strings.HasSuffix(path, "/call"):
		return []answered{{http.StatusSeeOther, ""}}
	case path == "/v1/calls/{id}/result":
		return []answered{part, {http.StatusAccepted, plainJSON}, {http.StatusSeeOther, ""}}
	case strings.HasSuffix(path, "/outputs/{id}"), path == "/v1/dead/{id}/input":
		return []answered{part}
	case r.pattern == "PUT /v1/blobs/{digest}":
		return []answered{{http.StatusCreated, plainJSON}}
	case path == "/readyz":
		return []answered{{http.StatusServiceUnavailable, plainJSON}}
	}
	return nil
}

// problemsOf are the statuses of the problems that a route can have.
func problemsOf(r route, path string) []int {
	if r.needs == "" {
		return nil
	}
	all := []int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable,
	}
	if strings.Contains(path, "{") {
		all = append(all, http.StatusNotFound, http.StatusConflict)
	}
	if r.body != "" {
		all = append(all, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge)
	}
	byID := strings.Contains(path, "{id}") && !strings.HasPrefix(path, "/v1/dead")
	if byID || slices.Contains(r.query, "batch") {
		all = append(all, http.StatusGone)
	}
	switch {
	case strings.HasSuffix(path, "/call"), strings.HasSuffix(path, "/result"), slices.Contains(r.query, "warm"): // how a call or a start ended
		all = append(all, statusClientClosed, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout)
	case r.answer == anyType: // a payload
		all = append(all, http.StatusBadGateway)
	}
	return all
}
