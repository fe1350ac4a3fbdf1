package gateway_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-dev/freshet/gateway"
	"github.com/freshet-dev/freshet/internal/nomadtest"
	"github.com/freshet-dev/freshet/internal/secrets"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// TestSecrets goes through the API of secrets: what it takes and refuses, and that it never shows a value.
func TestSecrets(t *testing.T) {
	const value = "correct horse"
	nomad := nomadtest.Start(t)
	user := echo()
	user.Secrets = []string{"db:USER"}

	r := newRig(t, startNATS(t, t.TempDir(), 0).ClientURL(), functions(user), func(c *gateway.Config) {
		c.Secrets, c.Auth, c.RootToken = secrets.New(nomad), true, "root"
	}).up(t)
	as := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	token := func(body string) string {
		var made struct{ Token string }
		if err := json.Unmarshal(r.do(t, http.MethodPost, "/v1/tokens", []byte(body), as("root")).body, &made); err != nil {
			t.Fatal(err)
		}
		return made.Token
	}
	keeper := token(`{"name":"keeper","verbs":["secret"]}`)
	deployer := token(`{"name":"deployer","verbs":["deploy","read","call"]}`)
	one := token(`{"name":"one","verbs":["secret"],"functions":["demo.echo"]}`)
	elsewhere := token(`{"name":"elsewhere","verbs":["secret"],"namespaces":["prod"]}`)
	const made = `{"values":{"USER":"` + value + `"}}`
	for _, test := range []struct {
		token, method, path, body string
		status                    int
		says                      string
	}{
		{deployer, "PUT", "/v1/secrets/db", made, 403, "lacks the verb secret"},
		{deployer, "GET", "/v1/secrets", "", 403, ""},
		{one, "GET", "/v1/secrets", "", 403, ""},
		{elsewhere, "PUT", "/v1/secrets/db", made, 403, ""},
		{keeper, "GET", "/v1/secrets", "", 200, "[]"},
		{keeper, "GET", "/v1/secrets/db", "", 404, "make it with `freshet secret create db KEY=VALUE`"},
		{keeper, "DELETE", "/v1/secrets/other", "", 404, ""},
		{keeper, "PUT", "/v1/secrets/d.b", made, 400, `name: \"d.b\"`},
		{keeper, "PUT", "/v1/secrets/db?namespace=*", made, 400, "name one namespace"},
		{keeper, "PUT", "/v1/secrets/db?create=maybe", made, 400, "use true or false"},
		{keeper, "PUT", "/v1/secrets/db", `{"values":{"USER":"` + value, 400, "send"},
		{keeper, "PUT", "/v1/secrets/db", `{"values":{"USER":["` + value + `"]}}`, 400, "send"},
		{keeper, "PUT", "/v1/secrets/db", `{"values":{"BAD.KEY":"` + value + `"}}`, 400, "BAD.KEY"},
		{keeper, "PUT", "/v1/secrets/db", `{"values":{}}`, 400, "at least one key"},
		{keeper, "PUT", "/v1/secrets/db", `{"values":{"A":"` + strings.Repeat("x", 6*secrets.MaxBytes) + `"}}`, 413, ""},
		{keeper, "PUT", "/v1/secrets/db?create=true", made, 200, `"version":1`},
		{keeper, "PUT", "/v1/secrets/db?create=true", made, 409, "freshet secret set db"},
		{keeper, "PUT", "/v1/secrets/db", `{"values":{"PASSWORD":"` + value + `"}}`, 200, `"keys":["PASSWORD","USER"]`},
		{keeper, "GET", "/v1/secrets", "", 200, `"functions":["demo.echo"]`},
		{keeper, "GET", "/v1/secrets/db", "", 200, `"versions":[{"version":2`},
		{keeper, "GET", "/v1/secrets/dc", "", 404, `"near":["db"]`},
		{deployer, "PUT", "/v1/apps/demo?plan=true", deployOf("db@2:USER", "db@3"), 400, `functions.second.secrets[0]: \"db@3\"`},
		{deployer, "PUT", "/v1/apps/demo", deployOf("db", "nodb"), 400, "freshet secret create nodb KEY=VALUE"},
		{deployer, "PUT", "/v1/apps/demo", deployOf("db", "db:USER,PIN"), 400, "no key PIN"},
		{deployer, "PUT", "/v1/apps/demo", deployOf("db@1", "db:USER"), 200, ""},
		{keeper, "DELETE", "/v1/secrets/db", "", 409, "used by demo.echo"},
		{keeper, "DELETE", "/v1/secrets/db?force=true", "", 204, ""},
		{keeper, "GET", "/v1/secrets", "", 200, "[]"},
	} {
		a := r.do(t, test.method, test.path, []byte(test.body), as(test.token))
		if a.status != test.status || !strings.Contains(string(a.body), test.says) || strings.Contains(string(a.body), value) {
			t.Errorf("%s %s %.80s: %d %s, want %d %s", test.method, test.path, test.body, a.status, a.body, test.status, test.says)
		}
	}
	if left, _, err := nomad.Variables().PrefixList("", nil); err != nil || len(left) > 0 {
		t.Error(cmp.Diff(nil, left), err)
	}
}

// deployOf is a manifest whose functions have a secret each.
func deployOf(first, second string) string {
	manifest := spec.Manifest{Format: spec.ManifestVersion, App: "demo"}
	for name, secret := range map[string]string{"first": first, "second": second} {
		f := spec.Function{App: "demo", Name: name, Config: spec.Config{Code: "/srv/app", Handler: &spec.Handler{Type: spec.HandlerGo}, Secrets: []string{secret}}}
		manifest.Functions = append(manifest.Functions, f)
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return err.Error()
	}
	return string(data)
}
