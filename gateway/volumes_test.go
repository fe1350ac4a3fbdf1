package gateway_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/volumes"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// TestVolumes goes through the API of volumes: what it takes and refuses.
func TestVolumes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "volumes")
	store, err := volumes.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	user := echo()
	user.NamedVolumes = []spec.Volume{{Name: "models", Target: "/models"}}
	r := newRig(t, startNATS(t, t.TempDir(), 0).ClientURL(), functions(user), func(c *gateway.Config) { c.Volumes = store }).up(t)
	hostile := func(name, target string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, "default", "models", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "", "", 200, "[]"},
		{"GET", "/models/files", "", 404, "make it with `freshet volume create models`"},
		{"PUT", "/models/content?path=a", "x", 404, ""},
		{"PUT", "/mo.dels", "", 400, `name: \"mo.dels\"`},
		{"PUT", "/models?namespace=..", "", 400, "name one namespace"},
		{"PUT", "/models", "", 201, `"functions":["demo.echo"]`},
		{"PUT", "/models", "", 409, "there is a volume models already"},
		{"GET", "/models/files", "", 200, ""},
		{"GET", "/modules/files", "", 404, `"near":["models"]`},
		{"PUT", "/models/content?path=a/b.bin&mode=755", "weights", 200, `{"files":1,"bytes":7}`},
		{"PUT", "/models/content?path=a/b.bin&mode=7777", "weights", 400, "octal"},
		{"PUT", "/models/content", "weights", 400, "name a file"},
		{"PUT", "/models/content?path=../x", "weights", 400, "within the volume"},
		{"PUT", "/models/content?path=a", "weights", 400, "a folder is there"},
		{"PUT", "/models/content?path=out/x", "weights", 400, "leads out of the volume"},
		{"GET", "/models/content?path=out/passwd", "", 400, "leads out of the volume"},
		{"GET", "/models/content?path=file", "", 400, "leads out of the volume"},
		{"GET", "/models/content?path=a/b.bin", "", 200, "weights"},
		{"GET", "/models/content?path=none", "", 400, "there is no such file"},
		{"GET", "/models/content?path=a", "", 200, "b.bin"},
		{"GET", "/models/files?path=a", "", 200, `{"path":"a/b.bin","kind":"file","size":7,"mode":"0755"`},
		{"GET", "/models/files?recursive=true", "", 200, `{"path":"a","kind":"dir"`},
		{"GET", "/models/files?recursive=maybe", "", 400, "use true or false"},
		{"DELETE", "/models/content?path=a", "", 400, "not empty"},
		{"DELETE", "/models/content?recursive=true", "", 400, "name what to remove"},
		{"DELETE", "/models/content?path=a&recursive=true", "", 204, ""},
		{"DELETE", "/models", "", 409, "used by demo.echo"},
		{"DELETE", "/models?force=true", "", 204, ""},
	} {
		a := r.do(t, test.method, "/v1/volumes"+test.path, []byte(test.body), nil)
		if a.status != test.status || !strings.Contains(string(a.body), test.says) {
			t.Errorf("%s %s: %d %s, want %d %s", test.method, test.path, a.status, a.body, test.status, test.says)
		}
		if a.status == http.StatusCreated {
			hostile("out", "/etc")
			hostile("file", "/etc/passwd")
		}
	}
	a := r.do(t, http.MethodPut, "/v1/apps/demo?plan=true", []byte(strings.Replace(deployOf("x", "y"), `"secrets":["x"]`, `"volume":[{"name":"nothere","target":"/x"}]`, 1)), nil)
	if a.status != http.StatusBadRequest || !strings.Contains(string(a.body), "freshet volume create nothere") {
		t.Errorf("a deploy whose volume is not there: %d %s", a.status, a.body)
	}

	if err := store.Create("default", "ranges"); err != nil {
		t.Fatal(err)
	}
	r.do(t, http.MethodPut, "/v1/volumes/ranges/content?path=f", []byte("0123456789"), nil)
	part := r.do(t, http.MethodGet, "/v1/volumes/ranges/content?path=f", nil, http.Header{"Range": {"bytes=3-5"}})
	if part.status != http.StatusPartialContent || string(part.body) != "345" {
		t.Errorf("a range: %d %s", part.status, part.body)
	}
}
