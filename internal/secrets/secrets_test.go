package secrets_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/nomadtest"
	"github.com/freshet-dev/freshet/internal/secrets"
)

func TestVersions(t *testing.T) {
	nomad := nomadtest.Start(t)
	store := secrets.New(nomad)
	ctx := t.Context()
	put := func(name string, change secrets.Change) secrets.Secret {
		t.Helper()
		s, err := store.Put(ctx, "default", name, change)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	values := func(pairs ...string) map[string]string {
		m := make(map[string]string)
		for _, pair := range pairs {
			key, value, _ := strings.Cut(pair, "=")
			m[key] = value
		}
		return m
	}
	marks := make(map[string]bool)
	for i := range secrets.Kept + 3 {
		put("db", secrets.Change{Values: values(fmt.Sprintf("K%d=v", i), fmt.Sprintf("N=%d", i))})
		now, err := store.Get(ctx, "default", "db", 0)
		if err != nil || now.Version != i+1 || now.Values["N"] != fmt.Sprint(i) || len(now.Values) != i+2 {
			t.Fatalf("after change %d: %+v, %v", i, now, err)
		}
		marks[now.Mark] = true
	}
	all, err := store.Versions(ctx, "default", "db")
	if err != nil || len(all) != secrets.Kept {
		t.Fatalf("%d versions, %v", len(all), err)
	}
	for i, old := range all {
		read, err := store.Get(ctx, "default", "db", old.Version)
		if err != nil || old.Version != secrets.Kept+3-i || !maps.Equal(read.Values, old.Values) || read.Values["N"] != fmt.Sprint(old.Version-1) {
			t.Errorf("version %d: %+v, %v", old.Version, read, err)
		}
	}
	var none *secrets.NotFoundError
	if _, err := store.Get(ctx, "default", "db", 2); !errors.As(err, &none) || none.Version != 2 {
		t.Errorf("a version that rolled off: %v", err)
	}
	if s := put("db", secrets.Change{Values: values("ONLY=x"), Replace: true}); !slices.Equal(s.Keys(), []string{"ONLY"}) {
		t.Errorf("replaced, it has %q", s.Keys())
	}
	if _, err := store.Put(ctx, "default", "db", secrets.Change{Values: values("A=b"), New: true}); !errors.Is(err, secrets.ErrExists) {
		t.Errorf("made again: %v", err)
	}
	if err := store.Remove(ctx, "default", "db"); err != nil {
		t.Fatal(err)
	}
	left, _, err := nomad.Variables().PrefixList(secrets.Prefix, nil)
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	put("db", secrets.Change{Values: values("K0=v", "N=0")})
	if again, err := store.Get(ctx, "default", "db", 0); err != nil || again.Version != 1 || marks[again.Mark] {
		t.Errorf("one of the same name and version is taken for the old one: %+v, %v", again, err)
	}
	if err := store.Remove(ctx, "default", "none"); !errors.As(err, &none) {
		t.Errorf("removed what is not there: %v", err)
	}

	// Changes by hand, and of many at once.
	byHand := &api.Variable{Path: secrets.Prefix + "db", Items: api.VariableItems{"PIN": "1"}}
	before, err := store.Get(ctx, "default", "db", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := nomad.Variables().Update(byHand, nil); err != nil {
		t.Fatal(err)
	}
	if now, err := store.Get(ctx, "default", "db", 0); err != nil || now.Mark == before.Mark || now.Values["PIN"] != "1" {
		t.Errorf("changed by hand: %+v, %v", now, err)
	}
	var group sync.WaitGroup
	for i := range 5 {
		group.Go(func() { put("db", secrets.Change{Values: values(fmt.Sprintf("C%d=x", i))}) })
	}
	group.Wait()
	if now, err := store.Get(ctx, "default", "db", 0); err != nil || len(now.Values) != 6 {
		t.Errorf("changes were lost: %q, %v", now.Keys(), err)
	}
	if names, err := store.Names(ctx, "default"); err != nil || !slices.Equal(names, []string{"db"}) {
		t.Errorf("names %q, %v", names, err)
	}
}

func TestCheckSaysNoValue(t *testing.T) {
	const value = "hunter2"
	for _, test := range []map[string]string{
		nil, {"a.b": value}, {"": value}, {"1A": value}, {"FRESHET_GUEST": value}, {"A": value + "\x00"}, {"A": value + strings.Repeat("x", secrets.MaxBytes)},
	} {
		if err := secrets.Check(test); err == nil || strings.Contains(err.Error(), value) {
			t.Errorf("%q: %v", test, err)
		}
	}
	if err := secrets.Check(map[string]string{"A": strings.Repeat("x", secrets.MaxBytes-1), "b_2": ""}); err == nil {
		t.Error("too large a secret is taken")
	}
}
