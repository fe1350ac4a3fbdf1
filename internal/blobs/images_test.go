package blobs_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/blobs"
)

// TestImages: a name means the last image that got it; one that has lost its name is still known by its digest, until it is removed.
func TestImages(t *testing.T) {
	store, _ := open(t)
	images := store.Images()
	first, second, third := digestOf("1"), digestOf("2"), digestOf("3")
	for _, image := range []blobs.Image{{Name: "team/web", Digest: first}, {Name: "team/web:1.2", Digest: second}, {Digest: third}, {Name: "team/web:latest", Digest: third}} {
		image.Built = time.Unix(1, 0)
		if err := images.Put(t.Context(), image); err != nil {
			t.Fatal(err)
		}
	}
	for name, digest := range map[string]string{"team/web": third, "team/web:latest": third, "team/web:1.2": second} {
		if found, err := images.Find(t.Context(), name); err != nil || found.Digest != digest {
			t.Errorf("%s is %+v, %v", name, found, err)
		}
	}
	for _, name := range []string{"team", "web", "", "../all/" + first, "a b"} {
		if _, err := images.Find(t.Context(), name); !errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
	list := func() string {
		t.Helper()
		all, err := images.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var words []string
		for _, image := range all {
			words = append(words, image.Name+"@"+image.Digest[:4])
		}
		slices.Sort(words)
		return strings.Join(words, " ")
	}
	if got, want := list(), "@"+first[:4]+" team/web:1.2@"+second[:4]+" team/web:latest@"+third[:4]; got != want {
		t.Errorf("listed %s, want %s", got, want)
	}
	put := func(text string) string {
		t.Helper()
		if err := store.Put(t.Context(), digestOf(text), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		return digestOf(text)
	}
	image := func(name string, layers ...string) string {
		t.Helper()
		text := `{"config":{"digest":"sha256:` + put("config of "+name) + `"},"layers":[{"digest":"sha256:` + strings.Join(layers, `"},{"digest":"sha256:`) + `"}]}`
		if err := images.Put(t.Context(), blobs.Image{Name: name, Digest: put(text)}); err != nil {
			t.Fatal(err)
		}
		return digestOf(text)
	}
	shared, own, others := put("shared"), put("own"), put("other's")
	one, two := image("one", shared, own), image("two", shared, others)
	for _, name := range []string{"sha256:" + first, "team/web", "one"} {
		if err := images.Remove(t.Context(), name); err != nil {
			t.Error(err)
		}
		if err := images.Remove(t.Context(), name); !errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("removed again: %v", err)
		}
	}
	if got, want := list(), "team/web:1.2@"+second[:4]+" two:latest@"+two[:4]; got != want {
		t.Errorf("then listed %s, want %s", got, want)
	}
	for digest, want := range map[string]bool{shared: true, others: true, two: true, own: false, one: false, digestOf("config of one"): false} {
		if there, err := store.Has(t.Context(), digest); there != want || err != nil {
			t.Errorf("blob %s is there: %v, %v", digest[:4], there, err)
		}
	}
}
