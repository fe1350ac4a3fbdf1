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
	for range 2 { // the second time nothing is there, which is as good
		if err := errors.Join(images.RemoveName(t.Context(), "team/web"), images.Remove(t.Context(), first)); err != nil {
			t.Error(err)
		}
	}
	if got, want := list(), "@"+third[:4]+" team/web:1.2@"+second[:4]; got != want {
		t.Errorf("then listed %s, want %s", got, want)
	}
}
