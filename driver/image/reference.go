package image

import (
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// Prefixes of references to files of the node.
const (
	dockerArchive = "docker-archive" // what `docker save` writes
	ociArchive    = "oci-archive"    // an OCI layout in a tar file
	ociLayout     = "oci"            // a directory in the OCI layout
)

const algorithm = "sha256:"

// dockerHub is what people call name.DefaultRegistry.
const dockerHub = "docker.io"

// reference is what names an image: one in a registry, or a file of the node.
type reference struct {
	// registry names it in a registry; nil for others.
	registry name.Reference
	// blob names an image of the blob store, by its digest in hex, or with a tag; empty for others.
	blob string
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
	if name, ok := strings.CutPrefix(ref, blobs.Reference); ok {
		if digest, ok := strings.CutPrefix(name, algorithm); ok && isHex(digest) {
			return reference{blob: digest}, nil
		}
		if !spec.ValidImageName(name) || strings.HasPrefix(name, algorithm) {
			return reference{}, wrong("use " + blobs.Reference + algorithm + " and 64 lower-case hex digits, as the build printed it, or the image's name")
		}
		return reference{blob: blobs.WithTag(name)}, nil
	}
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
	switch {
	case r.registry != nil:
		return r.registry.Name()
	case r.blob != "":
		return blobs.Reference + r.blob
	}
	return r.kind + ":" + r.path + ":" + r.tag
}

// digest is that of the only content that the reference can ever mean, in hex; empty for one that may change.
func (r reference) digest() string {
	if digest, ok := r.registry.(name.Digest); ok {
		return strings.TrimPrefix(digest.DigestStr(), algorithm)
	}
	if isHex(r.blob) {
		return r.blob
	}
	return ""
}

// asked tells whether it is cheap to ask what the reference means, so that it is asked each time.
func (r reference) asked() bool { return r.blob != "" && r.digest() == "" }

// onNode tells whether it is a file of the node.
func (r reference) onNode() bool { return r.registry == nil && r.blob == "" }

// registryName is the name of a registry as references have it: Docker Hub has two.
func registryName(host string) string {
	if host == dockerHub {
		return name.DefaultRegistry
	}
	return host
}
