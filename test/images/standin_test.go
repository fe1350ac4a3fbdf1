package images

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestStandIns: an image that stands for a registry's is what FROM means, and what a registry's client pulls from the gateway, until it
// is removed; no build gives itself such a name.
func TestStandIns(t *testing.T) {
	if out := freshet(t, "image", "bootstrap", "alpine"); !strings.Contains(out, "there is no apk") || !strings.Contains(out, "alpine:3") {
		t.Errorf("it said %s", out)
	}
	host := strings.TrimPrefix(cluster.State.Gateway(), "http://")
	repository, err := name.NewRepository(host+"/library/alpine", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(repository.Tag("3"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(pulled); err != nil {
		t.Error(err)
	}
	tags, err := remote.List(repository)
	if err != nil || !slices.Equal(tags, []string{"3", "latest"}) {
		t.Errorf("the tags are %q, %v", tags, err)
	}
	if _, err := remote.Image(repository.Tag("2")); err == nil {
		t.Error("a tag that is not there was pulled")
	}
	build := func(text string, more ...string) (string, error) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return cluster.Freshet(append([]string{"image", "build", "--network", "none", dir}, more...)...)
	}
	const above = "FROM alpine\nRUN test \"$(cat /etc/os-release | head -n 1)\" = ID=alpine && echo made in $(pwd) >/made\n"
	if out, err := build(above, "--tag", "above:1"); err != nil {
		t.Errorf("build from it: %v: %s", err, out)
	}
	if out, err := build(above, "--tag", "docker.io/library/alpine:3"); err == nil || !strings.Contains(out, "leave out the registry's host") {
		t.Errorf("a build called itself alpine: %v: %s", err, out)
	}
	freshet(t, "image", "rm", "docker.io/library/alpine:3", "docker.io/library/alpine", "above:1")
	if _, err := remote.Image(repository.Tag("3")); err == nil {
		t.Error("it can be pulled after it was removed")
	}
}
