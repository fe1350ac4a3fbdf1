package image

import (
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Prefixes of references to files of the node.
const (
	dockerArchive = "docker-archive" // what `docker save` writes
	ociArchive    = "oci-archive"    // an OCI layout in a tar file
	ociLayout     = "oci"            // a directory in the OCI layout
)

// reference is what names an image: one in a registry, or a file of the node.
type reference struct {
	// registry names it in a registry; nil for a file of the node.
	registry name.Reference
	// kind, path and tag name it on the node; tag chooses one of several images in there and may be empty.
	kind, path, tag string
}

// HostPath tells whether a reference names a file of the node, and which. Whoever may start tasks may then read that file
// as an image: ask the operator's settings before Image.
func HostPath(ref string) (path string, ok bool) {
	kind, rest, found := strings.Cut(ref, ":")
	switch {
	case !found:
		return "", false
	case kind != dockerArchive && kind != ociArchive && (kind != ociLayout || !strings.HasPrefix(rest, "/")):
		return "", false // "oci:1.2" is the image oci of Docker Hub
	}
	path, _, _ = strings.Cut(rest, ":")
	return path, true
}

// CheckReference tells what is wrong with a reference, as a spec.FieldError.
func CheckReference(ref string) error {
	_, err := parseReference(ref)
	return err
}

func parseReference(ref string) (reference, error) {
	wrong := func(mend string) error { return spec.FieldError{Field: "image", Value: ref, Mend: mend} }
	if path, ok := HostPath(ref); ok {
		if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
			return reference{}, wrong("use an absolute path on the node, such as oci-archive:/srv/images/app.tar")
		}
		kind, rest, _ := strings.Cut(ref, ":")
		_, tag, _ := strings.Cut(rest, ":")
		return reference{kind: kind, path: filepath.Clean(path), tag: tag}, nil
	}
	parsed, err := name.ParseReference(strings.TrimPrefix(ref, "docker://"))
	if err != nil {
		return reference{}, wrong("name an image such as registry.example/app:1.2 or registry.example/app@sha256:…; " +
			"for a file of the node write docker-archive:, oci-archive: or oci: and an absolute path")
	}
	return reference{registry: parsed}, nil
}

// String is the reference in full: two that mean the same image in the same place have the same one.
func (r reference) String() string {
	if r.registry != nil {
		return r.registry.Name()
	}
	return r.kind + ":" + r.path + ":" + r.tag
}

// fixed tells whether the reference can only ever mean one content.
func (r reference) fixed() bool {
	_, ok := r.registry.(name.Digest)
	return ok
}

// registryName is the name of a registry as references have it: Docker Hub has two.
func registryName(host string) string {
	if host == "docker.io" {
		return name.DefaultRegistry
	}
	return host
}
