package spec_test

import (
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/sdk/spec"
)

func FuzzParseSecret(f *testing.F) {
	for _, text := range []string{"db", "db@3", "db:USER,PASSWORD", "db@12:A", "", "@", ":", "db@0", "db@01", "db:", "db:A,A", "a/b", "db:FRESHET_X"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		secret, err := spec.ParseSecret(text)
		if err != nil {
			return
		}
		if secret.String() != text {
			t.Fatalf("%q is read as %q", text, secret.String())
		}
		if !spec.ValidName(secret.Name) || strings.ContainsAny(secret.Name, "/.") {
			t.Fatalf("%q has the name %q", text, secret.Name)
		}
	})
}

func TestSecretsOfASpec(t *testing.T) {
	for _, test := range []struct{ secrets, field string }{
		{"db", ""},
		{"db@3:USER,PASSWORD hf", ""},
		{"db d/b", "secrets[1]"},
		{"db@0", "secrets[0]"},
		{"db@-1", "secrets[0]"},
		{"db:1A", "secrets[0]"},
		{"db db@2", "secrets[1]"},
		{strings.Repeat("x ", spec.MaxSecrets+1), "secrets"},
	} {
		config := spec.Config{Code: "/srv/app", Handler: &spec.Handler{Type: spec.HandlerGo}, Secrets: strings.Fields(test.secrets)}
		err := config.Validate()
		if (err == nil) != (test.field == "") || err != nil && !strings.Contains(err.Error(), test.field+": ") {
			t.Errorf("%s: %v", test.secrets, err)
		}
	}
	build := spec.Config{Build: &spec.Build{Dockerfile: "FROM scratch"}, Secrets: []string{"db"}}
	if err := build.Validate(); err == nil || !strings.Contains(err.Error(), "secrets: ") {
		t.Errorf("of a build: %v", err)
	}
}
