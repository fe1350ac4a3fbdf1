package gateway_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// builtImage is the digest of the image that builds say they made.
const builtImage = "5e1f3d7e3d4b6a58b3b7b9d46d2d9d4c39a0a1b5c7d0f9a4c2b8e6f1a3d5c7e9"

// TestBuildAnswers: with the build's lines and its image, or its error; what cannot be built is refused before.
func TestBuildAnswers(t *testing.T) {
	store, err := blobs.Open(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.Images().Put(t.Context(), blobs.Image{Name: "web", Digest: builtImage, Built: time.Unix(0, 0).UTC()}); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, startNATS(t, t.TempDir(), 0).ClientURL(), functions(echo()), func(c *gateway.Config) { c.Blobs = store }).up(t)
	build := func(body string) answer {
		t.Helper()
		return r.do(t, http.MethodPost, "/v1/images/builds", []byte(body), nil)
	}
	secret := base64.StdEncoding.EncodeToString([]byte("hunter2"))
	got := build(`{"build":{"dockerfile":"FROM scratch"},"secrets":{"s":"` + secret + `"}}`)
	want := []string{`{"line":"starting a build"}`, `{"line":"[0] RUN true"}`, `"reference":"freshet-image://sha256:` + builtImage + `"}}`}
	for _, line := range want {
		if got.status != http.StatusOK || !strings.Contains(string(got.body), line+"\n") {
			t.Errorf("answered %d %s, want a line %s", got.status, got.body, line)
		}
	}
	if got := build(`{"build":{"dockerfile":"FROM scratch","target":"broken"}}`); !strings.Contains(string(got.body), `{"error":{"kind":"user","message":"Dockerfile:1: no such stage"}}`) {
		t.Errorf("a build that fails: %s", got.body)
	}
	for field, body := range map[string]string{
		"body":             `{"build":`,
		"build.dockerfile": `{"build":{}}`,
		"build.context":    `{"build":{"context":"/etc"}}`,
		"no blob":          `{"build":{"context":"sha256:` + builtImage + `"}}`,
		"build.secrets":    `{"build":{"dockerfile":"FROM scratch","secrets":[{"a":"env:B"}]}}`,
		"resources":        `{"build":{"dockerfile":"FROM scratch"},"resources":{"memory":1}}`,
	} {
		if got := build(body); got.status < 400 || !strings.Contains(string(got.body), field) {
			t.Errorf("%s: %d %s", field, got.status, got.body)
		}
	}
}

// TestImagesOfTheGateway lists, shows and removes them, but for those that a function uses.
func TestImagesOfTheGateway(t *testing.T) {
	store, err := blobs.Open(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	used := spec.Function{App: "demo", Name: "used", Config: spec.Config{Container: spec.Container{Image: "freshet-image://team/used"}}}
	r := newRig(t, startNATS(t, t.TempDir(), 0).ClientURL(), functions(used), func(c *gateway.Config) { c.Blobs = store }).up(t)
	for i, name := range []string{"team/web:1.2", "team/used"} {
		if err := store.Images().Put(t.Context(), blobs.Image{Name: name, Digest: fmt.Sprintf("%064x", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		method, path string
		status       int
		want         string
	}{
		{http.MethodGet, "/v1/images", 200, `"name":"team/web:1.2"`},
		{http.MethodGet, "/v1/images/team%2Fweb:1.2", 200, `"reference":"freshet-image://sha256:` + strings.Repeat("0", 64)},
		{http.MethodGet, "/v1/images/web", 404, "no image web was built here"},
		{http.MethodPut, "/v1/images/docker.io%2Flibrary%2Fdebian:12-slim", 200, `"name":"docker.io/library/debian:12-slim"`},
		{http.MethodPut, "/v1/images/debian:12-slim", 400, "name a registry's image in full"},
		{http.MethodGet, "/v1/images/docker.io%2Flibrary%2Fdebian:12-slim", 200, `"digest":"` + strings.Repeat("0", 64)},
		{http.MethodGet, "/v2/library/debian/tags/list", 200, `["12-slim"]`},
		{http.MethodGet, "/v2/library/debian/manifests/13", 404, "MANIFEST_UNKNOWN"},
		{http.MethodGet, "/v2/library/debian/manifests/sha256:..", 404, "MANIFEST_UNKNOWN"},
		{http.MethodGet, "/v2/library/debian/blobs/sha256:" + strings.Repeat("1", 64), 404, "BLOB_UNKNOWN"},
		{http.MethodPost, "/v2/library/debian/blobs/uploads/", 405, "UNSUPPORTED"},
		{http.MethodDelete, "/v1/images/docker.io%2Flibrary%2Fdebian:12-slim", 204, ""},
		{http.MethodDelete, "/v1/images/team%2Fused", 409, "function demo.used uses the image"},
		{http.MethodDelete, "/v1/images/team%2Fweb:1.2", 204, ""},
		{http.MethodDelete, "/v1/images/team%2Fweb:1.2", 404, "no image"},
	} {
		if got := r.do(t, step.method, step.path, []byte(`{"digest":"sha256:`+strings.Repeat("0", 64)+`"}`), nil); got.status != step.status || !strings.Contains(string(got.body), step.want) {
			t.Errorf("%s %s: %d %s", step.method, step.path, got.status, got.body)
		}
	}
}
