package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/freshet-dev/freshet/internal/blobs"
)

// registryPath is where the cluster's images are, for docker, containerd, oras and the like: the reading half of the OCI distribution API.
const registryPath = "/v2/"

const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	// maxServedManifest bounds a manifest that is served.
	maxServedManifest = 4 << 20
	// dockerHub begins the names of images that stand for those of Docker Hub, whose clients leave it out.
	dockerHub = "docker.io/"
)

// registry serves the images of the blob store as a registry.
type registry struct {
	guard *guard
	blobs Blobs
}

// registryError is an error as the distribution API has it.
type registryError struct {
	status        int
	code, message string
}

func (f *registryError) Error() string { return f.message }

// ServeHTTP implements http.Handler.
func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	err := g.admit(w, r)
	if err == nil {
		err = g.serve(w, r)
	}
	if err == nil {
		return
	}
	var no *registryError
	if !errors.As(err, &no) {
		no = &registryError{http.StatusServiceUnavailable, "UNAVAILABLE", "the blob store failed; try again"}
	}
	w.Header().Set("Content-Type", plainJSON)
	w.WriteHeader(no.status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": no.code, "message": no.message}}}) // or the client has gone
}

// admit tells why a request may not read images. Registries' clients show a token as a password, after `docker login`.
func (g *registry) admit(w http.ResponseWriter, r *http.Request) error {
	if !g.guard.on {
		return nil
	}
	if _, password, ok := r.BasicAuth(); ok {
		r.Header.Set("Authorization", "Bearer "+password)
	}
	t, err := g.guard.recognise(r)
	if err != nil {
		w.Header().Set("WWW-Authenticate", `Basic realm="freshet"`)
		return &registryError{http.StatusUnauthorized, "UNAUTHORIZED", err.Error() + " (to a registry's client it is the password; any user will do)"}
	}
	if err := t.allow(verbRead); err != nil { // images are the cluster's, as GET /v1/images has them
		return &registryError{http.StatusForbidden, "DENIED", err.Error()}
	}
	if err := t.inRate(); err != nil {
		return &registryError{http.StatusTooManyRequests, "TOOMANYREQUESTS", err.Error()}
	}
	return nil
}

func (g *registry) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &registryError{http.StatusMethodNotAllowed, "UNSUPPORTED", "images are only read here: build them with `freshet image build`"}
	}
	path := strings.TrimPrefix(r.URL.Path, registryPath)
	if path == "" {
		w.Header().Set("Content-Type", plainJSON)
		_, err := io.WriteString(w, "{}")
		return err
	}
	words := strings.Split(path, "/")
	if len(words) < 3 {
		return &registryError{http.StatusNotFound, "NAME_UNKNOWN", "no such path: " + r.URL.Path}
	}
	name, kind, what := strings.Join(words[:len(words)-2], "/"), words[len(words)-2], words[len(words)-1]
	switch {
	case kind == "manifests":
		return g.manifest(w, r, name, what)
	case kind == "blobs":
		return g.blob(w, r, what)
	case kind == "tags" && what == "list":
		return g.tags(w, r, name)
	}
	return &registryError{http.StatusNotFound, "NAME_UNKNOWN", "no such path: " + r.URL.Path}
}

// manifest sends a manifest, by its digest or by the image's tag.
func (g *registry) manifest(w http.ResponseWriter, r *http.Request, name, tag string) error {
	digest, byDigest := strings.CutPrefix(tag, "sha256:")
	if !byDigest {
		image, err := g.find(r.Context(), name, tag)
		if errors.Is(err, blobs.ErrNotFound) {
			return &registryError{http.StatusNotFound, "MANIFEST_UNKNOWN", "no image " + name + ":" + tag + " here"}
		}
		if err != nil {
			return err
		}
		digest = image.Digest
	}
	in, err := g.blobs.Open(r.Context(), digest)
	if err != nil {
		return unknown("MANIFEST_UNKNOWN", digest, err)
	}
	defer func() { _ = in.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(in, maxServedManifest))
	if err != nil {
		return err
	}
	var manifest struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
	}
	if json.Unmarshal(data, &manifest) != nil || manifest.SchemaVersion != 2 {
		return &registryError{http.StatusNotFound, "MANIFEST_UNKNOWN", "sha256:" + digest + " is no manifest"}
	}
	header(w, digest, int64(len(data)))
	w.Header().Set("Content-Type", cmp.Or(manifest.MediaType, ociManifest))
	if r.Method == http.MethodGet {
		_, _ = w.Write(data) // or the client has gone
	}
	return nil
}

// find finds an image by its name here. One that stands for Docker Hub's has its name too as clients of a mirror ask for it.
func (g *registry) find(ctx context.Context, name, tag string) (blobs.Image, error) {
	image, err := g.blobs.Images().Find(ctx, name+":"+tag)
	if errors.Is(err, blobs.ErrNotFound) {
		image, err = g.blobs.Images().Find(ctx, dockerHub+name+":"+tag)
	}
	return image, err
}

// blob streams a layer or a config.
func (g *registry) blob(w http.ResponseWriter, r *http.Request, named string) error {
	digest := strings.TrimPrefix(named, "sha256:")
	in, err := g.blobs.Open(r.Context(), digest)
	if err != nil {
		return unknown("BLOB_UNKNOWN", digest, err)
	}
	defer func() { _ = in.Close() }() // read only
	header(w, digest, in.Size())
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.Method == http.MethodGet {
		_, _ = io.Copy(w, in) // the client sees a body that is too short
	}
	return nil
}

func header(w http.ResponseWriter, digest string, size int64) {
	w.Header().Set("Docker-Content-Digest", "sha256:"+digest)
	w.Header().Set("Etag", `"sha256:`+digest+`"`)
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
}

func unknown(code, digest string, err error) error {
	if errors.Is(err, blobs.ErrNotFound) || errors.Is(err, blobs.ErrDigest) {
		return &registryError{http.StatusNotFound, code, "nothing has the digest sha256:" + digest}
	}
	return err
}

// tags lists the tags of a name.
func (g *registry) tags(w http.ResponseWriter, r *http.Request, name string) error {
	all, err := g.blobs.Images().List(r.Context())
	if err != nil {
		return err
	}
	var tags []string
	for _, image := range all {
		repository, tag, _ := strings.Cut(image.Name, ":")
		if repository == name || repository == dockerHub+name {
			tags = append(tags, tag)
		}
	}
	if len(tags) == 0 {
		return &registryError{http.StatusNotFound, "NAME_UNKNOWN", "no image " + name + " here"}
	}
	slices.Sort(tags)
	w.Header().Set("Content-Type", plainJSON)
	return json.NewEncoder(w).Encode(map[string]any{"name": name, "tags": slices.Compact(tags)})
}
