package image_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/sdk/spec"
)

func TestReferences(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0a", 32)
	for reference, host := range map[string]string{
		"alpine": "", "alpine:3": "", "registry.example:5000/team/app:1": "", "registry.example/app" + digest: "", "app:1" + digest: "",
		"docker://registry.example/app": "", "oci:1.2": "", "[::1]:5000/app": "",
		"docker-archive:/srv/app.tar": "/srv/app.tar", "docker-archive:/srv/app.tar:app:1": "/srv/app.tar",
		"oci-archive:/srv/app.tar:1": "/srv/app.tar", "oci:/srv/layout": "/srv/layout", "oci:/srv/layout:1": "/srv/layout",
	} {
		if path, is := image.HostPath(reference); path != host || is != (host != "") {
			t.Errorf("%s names %q, %v", reference, path, is)
		}
		if err := image.CheckReference(reference); err != nil {
			t.Error(err)
		}
	}
	for _, reference := range []string{
		"", ":1", "App:1", "https://registry.example/app", "app:", "app@sha256:12", "docker-archive:app.tar", "oci-archive:", "docker-archive:../x", "a b",
	} {
		var wrong spec.FieldError
		if err := image.CheckReference(reference); !errors.As(err, &wrong) || wrong.Field != "image" || wrong.Value != reference || wrong.Mend == "" {
			t.Errorf("%q: %v", reference, err)
		}
	}
}

// FuzzReferences: a reference that is taken names a file exactly when HostPath says so, and that by an absolute path.
func FuzzReferences(f *testing.F) {
	for _, seed := range []string{"alpine:3", "a.b:5000/c/d@sha256:" + strings.Repeat("00", 32), "oci:/a:b", "docker-archive:/a/../b.tar:c:d", "oci-archive:a", "docker://x", "oci:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, reference string) {
		path, is := image.HostPath(reference)
		if err := image.CheckReference(reference); err == nil && is && !filepath.IsAbs(path) {
			t.Errorf("%q names the file %q", reference, path)
		}
	})
}
