package gateway_test

import (
	"net/http"
	"strings"

	"github.com/freshet-dev/freshet/internal/queue"
)

// refusedInput is a row for what the gateway does not read.
func refusedInput(fault, path string, body ...string) faultRow {
	return faultRow{fault: fault, path: path, body: strings.Join(body, ""), status: http.StatusBadRequest, kind: "input"}
}

func refusedHeader(name, value string) faultRow {
	return faultRow{fault: "header " + name, header: [2]string{name, value}, body: "1", status: http.StatusBadRequest, kind: "input"}
}

func absent(fault, path string, body ...string) faultRow {
	return faultRow{fault: fault, path: path, body: strings.Join(body, ""), status: http.StatusNotFound, kind: "not_found"}
}

func conflicting(fault, path string, body ...string) faultRow {
	return faultRow{fault: fault, path: path, body: strings.Join(body, ""), status: http.StatusConflict, kind: "conflict"}
}

func expired(path string) faultRow {
	return faultRow{fault: "{id}: its result has expired", path: path, status: http.StatusGone, kind: "gone"}
}

// harmless is a row for what is taken, and changes nothing.
func harmless(fault, path string, body ...string) faultRow {
	return faultRow{fault: fault, path: path, body: strings.Join(body, ""), status: http.StatusOK}
}

// faultRows are the rows of each route that are its own, by its name in the API's document.
func faultRows(f *faultRig) map[string][]faultRow {
	rows := make(map[string][]faultRow)
	for _, some := range []map[string][]faultRow{callRows(), spawnedRows(f), scheduleRows(), appRows(f), adminRows(f), volumeRows()} {
		for name, of := range some {
			rows[name] = of
		}
	}
	return rows
}

// callRows are of the ways to call a function.
func callRows() map[string][]faultRow {
	const way = "POST /v1/functions/{app}/{function}/"
	rows := make(map[string][]faultRow)
	for _, last := range []string{"call", "spawn", "batch", "map", "stream"} {
		rows[way+last] = []faultRow{
			absent("{app}", "/v1/functions/none/echo/"+last, "1"), absent("{function}: near names help", "/v1/functions/demo/ecko/"+last, "1"),
			absent("{function}: its name is none", "/v1/functions/demo/%00/"+last, "1"), absent("namespace", "?namespace=none", "1"),
			refusedInput("method", "?method="+strings.Repeat("m", 129), "1"), refusedInput("param.x", "?param.x=1", "1"), refusedHeader("Freshet-Parameters", `{"x":1}`),
			refusedHeader("Freshet-Parameters", "{"), refusedHeader("Freshet-Timeout", "soon"), refusedHeader("Freshet-Timeout", "200h"),
			refusedHeader("Freshet-Keep", "1ms"), refusedHeader("Idempotency-Key", strings.Repeat("k", 256)),
			refusedHeader("Content-Type", strings.Repeat("t", queue.MaxHeader+1)),
		}
	}
	add := func(last string, more ...faultRow) { rows[way+last] = append(rows[way+last], more...) }
	taken := [2]string{"Idempotency-Key", "taken"}
	add("call", refusedInput("redirect", "?redirect=yes", "1"), refusedInput("wait", "?redirect=true&wait=1h", "1"),
		faultRow{fault: "body: another one under the same key", header: taken, body: "2", status: http.StatusConflict, kind: "conflict"})
	add("spawn", refusedInput("stream", "?stream=yes", "1"), refusedHeader("Freshet-Callback", "ftp://x"),
		faultRow{fault: "body: another one under the same key", header: [2]string{"Idempotency-Key", "spawned"}, body: "2", status: http.StatusConflict, kind: "conflict"})
	add("stream", faultRow{fault: "body: a key for a stream", header: taken, body: "1", status: http.StatusBadRequest, kind: "input"})
	for _, last := range []string{"batch", "map"} {
		add(last, refusedInput("batch", "?batch=x", "1"), refusedInput("from", "?from=-1", "1"), refusedInput("from: without a batch", "?from=1", "1"))
	}
	add("batch", absent("batch", "?batch="+unknownID, "1"), refusedInput("body: of no batch that there is", "?batch=x", "{"))
	add("map", refusedInput("window", "?window=0", "1"), refusedInput("order", "?order=random", "1"), refusedInput("on_error", "?on_error=panic", "1"),
		refusedInput("sent", "?sent=0", "1"), refusedInput("body: of no batch that there is", "?batch=x", "{"))
	return rows
}

// spawnedRows are of what was spawned.
func spawnedRows(f *faultRig) map[string][]faultRow {
	rows := make(map[string][]faultRow)
	for name, path := range map[string]string{
		"GET /v1/calls/{id}": "/v1/calls/ID", "GET /v1/calls/{id}/result": "/v1/calls/ID/result", "GET /v1/calls/{id}/values": "/v1/calls/ID/values",
		"POST /v1/calls/{id}/cancel": "/v1/calls/ID/cancel", "GET /v1/batches/{id}": "/v1/batches/ID", "GET /v1/batches/{id}/results": "/v1/batches/ID/results",
		"POST /v1/batches/{id}/cancel": "/v1/batches/ID/cancel", "GET /v1/dead/{id}": "/v1/dead/ID", "GET /v1/dead/{id}/input": "/v1/dead/ID/input",
		"POST /v1/dead/{id}/replay": "/v1/dead/ID/replay", "DELETE /v1/dead/{id}": "/v1/dead/ID",
		"GET /v1/functions/{app}/{function}/outputs/{id}": "/v1/functions/demo/echo/outputs/ID",
	} {
		at := func(id string) string { return strings.Replace(path, "ID", id, 1) }
		rows[name] = []faultRow{refusedInput("{id}: it is none", at("x")), absent("{id}: of nothing", at(unknownID))}
		if !strings.Contains(path, "/dead/") {
			rows[name] = append(rows[name], expired(at(oldID)))
		}
	}
	add := func(name string, more ...faultRow) { rows[name] = append(rows[name], more...) }
	for _, name := range []string{"GET /v1/calls/{id}", "GET /v1/calls/{id}/result"} {
		add(name, refusedInput("wait", "?wait=1h"), refusedInput("redirect", "?redirect=yes"))
	}
	add("GET /v1/calls/{id}", refusedInput("{id}: of a batch", "/v1/calls/"+f.fill["batch"]))
	add("GET /v1/calls/{id}/values", refusedInput("after", "?after=x"), refusedHeader("Last-Event-Id", "x"))
	add("POST /v1/calls/{id}/cancel", conflicting("{id}: it has ended", ""), harmless("{id}: cancelled twice", "/v1/calls/"+f.fill["waiting"]+"/cancel"))
	add("GET /v1/batches/{id}/results", refusedInput("from", "?from=x"), refusedInput("follow", "?follow=yes"), refusedInput("status", "?status=odd"))
	output := "/v1/functions/demo/echo/outputs/"
	add("GET /v1/functions/{app}/{function}/outputs/{id}", absent("{app}", "/v1/functions/none/echo/outputs/"+f.fill["call"]),
		absent("{function}", "/v1/functions/demo/none/outputs/"+f.fill["call"]), absent("{id}: of a small output", output+f.fill["call"]),
		absent("namespace", output+f.fill["call"]+"?namespace=none"))
	for _, list := range []string{"calls", "dead"} {
		add("GET /v1/"+list, refusedInput("namespace", "?namespace=a.b"), refusedInput("namespace: a wildcard of the queue's", "?namespace=%3E"),
			refusedInput("function", "?function=a.b.*"), refusedInput("since", "?since=yesterday"), refusedInput("since: too long ago", "?since=1000h"),
			refusedInput("limit", "?limit=0"), refusedInput("limit: too many", "?limit=501"), refusedInput("after", "?after=x"))
	}
	add("GET /v1/calls", refusedInput("status", "?status=odd"))
	return rows
}

func scheduleRows() map[string][]faultRow {
	const route, at = "/v1/functions/{app}/{function}/schedules/{name}", "/v1/functions/demo/echo/schedules/"
	const valid = `{"every":"1h"}`
	rows := map[string][]faultRow{
		"GET /v1/schedules": {refusedInput("namespace", "?namespace=a.b"), refusedInput("function", "?function=a.b.c")},
	}
	for name, last := range map[string]string{"PUT " + route: "", "DELETE " + route: "", "POST " + route + "/pause": "/pause", "POST " + route + "/resume": "/resume", "POST " + route + "/run": "/run"} {
		rows[name] = []faultRow{
			absent("{app}", "/v1/functions/none/echo/schedules/tick"+last, valid), absent("{function}", "/v1/functions/demo/none/schedules/tick"+last, valid),
			refusedInput("{name}", at+"a.b"+last, valid), absent("namespace", at+"tick"+last+"?namespace=none", valid),
		}
		if !strings.HasPrefix(name, "PUT") {
			rows[name] = append(rows[name], absent("{name}: of nothing", at+"none"+last))
		}
	}
	for _, body := range []string{
		"", "{", "[]", valid + valid, `{"evry":"1h"}`, `{"every":"soon"}`, `{"every":"-1h"}`, `{"cron":"x"}`, `{"cron":"* * * * *","every":"1h"}`,
		`{"cron":"* * * * *","time_zone":"Mars"}`, `{"every":"1h","missed":"some"}`,
	} {
		rows["PUT "+route] = append(rows["PUT "+route], refusedInput("body: "+body, at+"new", body))
	}
	return rows
}

func appRows(f *faultRig) map[string][]faultRow {
	const deploy, valid = "PUT /v1/apps/{app}", `{"format":1,"app":"shop","functions":[]}`
	rows := map[string][]faultRow{
		deploy: {
			refusedInput("{app}", "/v1/apps/none", valid), refusedInput("{app}: its name is none", "/v1/apps/a%20b", `{"format":1,"app":"a b","functions":[]}`),
			refusedInput("namespace", "?namespace=a.b", valid), refusedInput("plan", "?plan=1", valid), refusedInput("warm", "?warm=1", valid),
			refusedInput("ephemeral", "?ephemeral=1", valid), refusedInput("strategy", "?strategy=blue", valid),
			refusedInput("message", "?message="+strings.Repeat("m", 1025), valid), refusedInput("commit", "?commit=%00", valid),
		},
		"GET /v1/apps/{app}/deploys": {refusedInput("{app}", "/v1/apps/a%20b/deploys"), refusedInput("namespace", "?namespace=a.b")},
		"POST /v1/apps/{app}/rollback": {
			absent("{app}", "/v1/apps/none/rollback"), refusedInput("{app}: its name is none", "/v1/apps/a%20b/rollback"), refusedInput("namespace", "?namespace=a.b"),
			refusedInput("number", "?number=0"), absent("number: of no deploy", "?number=99"), refusedInput("strategy", "?strategy=blue"),
			refusedInput("message", "?number=1&message=%00"),
		},
		"DELETE /v1/apps/{app}": {absent("{app}", "/v1/apps/none"), absent("namespace", "?namespace=none")},
	}
	for _, body := range []string{
		"", "{", `{"format":9,"app":"shop","functions":[]}`, `{"format":1,"app":"shop","functions":[null]}`, `{"format":1,"app":"shop","functions":[{"app":"shop","name":"a","timout":"1s"}]}`,
		`{"format":1,"app":"shop","functions":[{"app":"shop","name":"a","concurrency":-1}]}`, `{"format":1,"app":"shop","functions":[{"app":"shop","name":"a"},{"app":"shop","name":"a"}]}`,
		`{"format":1,"app":"shop","functions":[{"app":"shop","name":"a","namespace":"prod"}]}`,
		`{"format":1,"app":"shop","functions":[{"app":"shop","name":"a","handler":{"type":"go"},"code":"sha256:` + strings.Repeat("a", 64) + `"}]}`,
	} {
		rows[deploy] = append(rows[deploy], refusedInput("body: "+body, "", body))
	}
	rows[deploy] = append(rows[deploy], faultRow{
		fault: "body: a function that Nomad refuses", status: http.StatusServiceUnavailable, kind: "unavailable",
		body: `{"format":1,"app":"shop","functions":[{"app":"shop","name":"a","version":"2","handler":{"type":"go"},"code":"/srv/shop","env":{"V":"refused"}}]}`,
	})
	secret := []faultRow{refusedInput("{name}", "/v1/secrets/d.b", `{"values":{"A":"b"}}`), refusedInput("namespace", "?namespace=*", `{"values":{"A":"b"}}`)}
	rows["GET /v1/secrets"] = []faultRow{refusedInput("namespace", "?namespace=*")}
	rows["GET /v1/secrets/{name}"] = append([]faultRow{absent("{name}: of nothing", "/v1/secrets/none")}, secret...)
	rows["DELETE /v1/secrets/{name}"] = append([]faultRow{absent("{name}: of nothing", "/v1/secrets/none"), refusedInput("force", "?force=1")}, secret...)
	rows["PUT /v1/secrets/{name}"] = append([]faultRow{
		refusedInput("create", "?create=1", `{"values":{"A":"b"}}`), refusedInput("restart", "?restart=1", `{"values":{"A":"b"}}`),
		conflicting("{name}: of one that there is", "?create=true", `{"values":{"A":"b"}}`),
		refusedInput("body: no JSON", "", "{"), refusedInput("body: no values", "", `{"values":{}}`), refusedInput("body: a key", "", `{"values":{"A.B":"c"}}`),
		refusedInput("body: a field", "", `{"value":{"A":"c"}}`), refusedInput("body: two", "", `{"values":{"A":"b"}} {}`),
	}, secret...)
	return rows
}

func volumeRows() map[string][]faultRow {
	const volume, none = "/v1/volumes/{name}", "/v1/volumes/none"
	namespace := refusedInput("namespace", "?namespace=*")
	outside := refusedInput("path: out of the volume", "?path=../x")
	tar := [2]string{"Content-Type", "application/x-tar"}
	return map[string][]faultRow{
		"GET /v1/volumes":               {namespace},
		"PUT " + volume:                 {refusedInput("{name}", "/v1/volumes/d.b"), conflicting("{name}: of one that there is", ""), namespace},
		"DELETE " + volume:              {absent("{name}: of nothing", none), refusedInput("force", "?force=1"), namespace},
		"GET " + volume + "/files":      {absent("{name}: of nothing", none+"/files"), refusedInput("recursive", "?recursive=1"), outside, namespace},
		"GET " + volume + "/content":    {absent("{name}: of nothing", none+"/content?path=x"), outside, namespace},
		"DELETE " + volume + "/content": {absent("{name}: of nothing", none+"/content?path=x"), refusedInput("recursive", "?path=kept&recursive=1"), outside, namespace},
		"PUT " + volume + "/content": {
			absent("{name}: of nothing", none+"/content?path=x", "x"), refusedInput("mode", "?path=x&mode=999", "x"), outside, namespace,
			{fault: "body: no tar", path: "?path=folder", header: tar, body: strings.Repeat("x", 1024), status: http.StatusBadRequest, kind: "input"},
		},
	}
}

func adminRows(f *faultRig) map[string][]faultRow {
	const function = "/v1/functions/{app}/{function}"
	const command = "?command=%5B%22true%22%5D"
	exec := []faultRow{
		refusedInput("command", "?command=true"), refusedInput("command: empty", "?command=%5B%5D"), refusedInput("tty", command+"&tty=maybe"),
		refusedInput("rows", command+"&rows=-1"), refusedInput("columns", command+"&columns=65536"),
	}
	return map[string][]faultRow{
		"GET /v1/workers/{id}/exec": append([]faultRow{absent("{id}", "/v1/workers/00000000/exec"+command)}, exec...),
		"GET " + function + "/exec": append([]faultRow{
			absent("{app}", "/v1/functions/none/echo/exec"+command), absent("{function}", "/v1/functions/demo/none/exec"+command), absent("namespace", command+"&namespace=none"),
			refusedInput("fresh", command+"&fresh=maybe"), refusedInput("command: without a WebSocket", command),
		}, exec...),
		"GET /v1/functions": {harmless("namespace", "?namespace=none")},
		"GET " + function:   {absent("{app}", "/v1/functions/none/echo"), absent("{function}", "/v1/functions/demo/none"), absent("namespace", "?namespace=none")},
		"GET " + function + "/logs": {
			absent("{app}", "/v1/functions/none/echo/logs"), absent("{function}", "/v1/functions/demo/none/logs"), absent("namespace", "?namespace=none"),
			refusedInput("follow", "?follow=1"), refusedInput("since", "?since=yesterday"), refusedInput("tail", "?tail=x"), refusedInput("tail: too many", "?tail=100001"),
			harmless("call", "?call=none"),
		},
		"GET /v1/workers": {harmless("namespace", "?namespace=none"), harmless("app", "?app=none"), harmless("function", "?function=none"), refusedInput("usage", "?usage=1")},
		"PUT /v1/blobs/{digest}": {
			refusedInput("{digest}", "/v1/blobs/abc", "x"), refusedInput("body: another digest's", "/v1/blobs/"+strings.Repeat("a", 64), "x"),
		},
		"GET /v1/blobs/{digest}": {refusedInput("{digest}", "/v1/blobs/abc"), absent("{digest}: of nothing", "/v1/blobs/"+strings.Repeat("a", 64))},
		"POST /v1/images/builds": {
			refusedInput("body: no JSON", "", "{"), refusedInput("body: nothing", "", ""), refusedInput("body: a context that is no blob", "", `{"build":{"context":"/etc","dockerfile":"FROM scratch"}}`),
			absent("body: a context that is not there", "", `{"build":{"context":"sha256:`+strings.Repeat("a", 64)+`","dockerfile":"FROM scratch"}}`),
			refusedInput("body: secrets that are named", "", `{"build":{"dockerfile":"FROM scratch","secrets":{"a":"b"}}}`),
			refusedInput("namespace", "?namespace=a.b", `{"build":{"dockerfile":"FROM scratch"}}`),
		},
		"PUT /v1/images/{image}": {
			refusedInput("{image}", "/v1/images/none", `{"digest":"sha256:x"}`), absent("body: of no image", "/v1/images/docker.io%2Fa%2Fb:1", `{"digest":"sha256:x"}`),
			refusedInput("body: no JSON", "/v1/images/docker.io%2Fa%2Fb:1", "{"), refusedInput("body: a field", "/v1/images/docker.io%2Fa%2Fb:1", `{"digst":"x"}`),
		},
		"GET /v1/images":            nil,
		"GET /v1/images/{image}":    {absent("{image}", "/v1/images/none")},
		"DELETE /v1/images/{image}": {absent("{image}", "/v1/images/none")},
		"GET /v1/tokens":            nil,
		"POST /v1/tokens": {
			refusedInput("body: no JSON", "", "{"), refusedInput("body: no verbs", "", `{"name":"x"}`), refusedInput("body: a verb", "", `{"verbs":["fly"]}`),
			refusedInput("body: a rate", "", `{"verbs":["read"],"rate":-1}`), refusedInput("body: a time", "", `{"verbs":["read"],"ttl":"0s"}`),
			refusedInput("body: a namespace", "", `{"verbs":["read"],"namespaces":["*"]}`), refusedInput("body: a field", "", `{"verbs":["read"],"nmae":1}`),
			refusedInput("body: a name", "", `{"verbs":["read"],"name":"\u0000"}`),
		},
		"POST /v1/tokens/{token}/rotate": {absent("{token}", "/v1/tokens/abcdefghijkl/rotate"), absent("{token}: its id is none", "/v1/tokens/x.used/rotate"), refusedInput("grace", "?grace=200h")},
		"DELETE /v1/tokens/{token}":      {absent("{token}", "/v1/tokens/abcdefghijkl"), absent("{token}: its id is none", "/v1/tokens/"+f.fill["token"]+".used")},
		"GET /web/{app}/{function}/{path}": {
			absent("{app}", "/web/none/site/"), absent("{function}", "/web/demo/none/"), absent("{function}: it has no web endpoint", "/web/demo/echo/"),
		},
	}
}
