package image

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// source is a place that an image can come from.
type source interface {
	// resolve finds the image for this platform.
	resolve(ctx context.Context) (record, error)
	// open opens a layer's bytes as they lie there.
	open(ctx context.Context, l layer) (io.ReadCloser, error)
}

// sources are the places to try, in order.
func (s *Store) sources(ref reference, auth Auth) []source {
	switch {
	case ref.blob != "":
		return []source{blobImage{store: s.config.Blobs, name: ref.blob}}
	case ref.kind == dockerArchive:
		return []source{dockerFile{path: ref.path, tag: ref.tag}}
	case ref.onNode():
		return []source{layoutFile{path: ref.path, tag: ref.tag, isTar: ref.kind == ociArchive}}
	}
	keys := s.keychain(ref.registry, auth)
	origin := ref.registry.Context()
	list := s.standIns(ref.registry)
	for _, mirror := range s.config.Mirrors[origin.RegistryStr()] {
		if repo, err := mirrored(mirror, origin.RepositoryStr()); err == nil { // checked when the store was opened
			list = append(list, s.registry(repo, ref.registry, keys))
		}
	}
	return append(list, s.registry(origin, ref.registry, keys))
}

// mirrored is the repository of a mirror that stands for the registry's.
func mirrored(mirror, repository string) (name.Repository, error) {
	host, path, _ := strings.Cut(mirror, "/")
	if strings.HasSuffix(host, ":") || strings.HasPrefix(path, "/") {
		return name.Repository{}, fmt.Errorf("read mirror: %q is an address, not a host", mirror)
	}
	registry, err := name.NewRegistry(host, name.StrictValidation)
	if err != nil {
		return name.Repository{}, fmt.Errorf("read mirror: %w", err)
	}
	repo, err := name.NewRepository(registry.Repo(path, repository).Name(), name.StrictValidation)
	if err != nil {
		return name.Repository{}, fmt.Errorf("read mirror: %w", err)
	}
	return repo, nil
}

// registrySource is one repository of a registry.
type registrySource struct {
	repo   name.Repository
	ref    name.Reference
	puller *remote.Puller
	err    error
}

// registry makes the source; wanted says which tag or digest of the repository.
func (s *Store) registry(repo name.Repository, wanted name.Reference, keys keychain) source {
	src := registrySource{repo: repo}
	if slices.Contains(s.config.Insecure, repo.RegistryStr()) {
		if src.repo, src.err = name.NewRepository(repo.Name(), name.Insecure); src.err != nil {
			return src
		}
	}
	if _, ok := wanted.(name.Digest); ok {
		src.ref = src.repo.Digest(wanted.Identifier())
	} else {
		src.ref = src.repo.Tag(wanted.Identifier())
	}
	src.puller, src.err = remote.NewPuller(
		remote.WithAuthFromKeychain(keys),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}),
		remote.WithTransport(s.transport),
		remote.WithUserAgent("freshet"),
		remote.WithJobs(parallel()),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}),
	)
	return src
}

func (r registrySource) resolve(ctx context.Context) (record, error) {
	if r.err != nil {
		return record{}, r.err
	}
	found, err := r.puller.Get(ctx, r.ref)
	if err != nil {
		return record{}, fmt.Errorf("find %s: %w", r.ref, err)
	}
	img, err := found.Image()
	if err != nil {
		return record{}, fmt.Errorf("find %s for this platform: %w", r.ref, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return record{}, fmt.Errorf("read manifest of %s: %w", r.ref, err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return record{}, fmt.Errorf("read manifest of %s: %w", r.ref, err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return record{}, fmt.Errorf("read config of %s: %w", r.ref, err)
	}
	layers, err := layersOf(manifest)
	if err != nil {
		return record{}, err
	}
	return newRecord(digest.Hex, layers, config)
}

// layersOf is the manifest's list of layers.
func layersOf(manifest *v1.Manifest) ([]layer, error) {
	layers := make([]layer, len(manifest.Layers))
	for i, l := range manifest.Layers {
		if l.Digest.Algorithm != "sha256" || !isHex(l.Digest.Hex) {
			return nil, fmt.Errorf("layer %d has the digest %s: only sha256 is known", i, l.Digest)
		}
		layers[i] = layer{Digest: l.Digest.Hex, Size: l.Size}
	}
	return layers, nil
}

func (r registrySource) open(ctx context.Context, l layer) (io.ReadCloser, error) {
	if r.err != nil {
		return nil, r.err
	}
	remote, err := r.puller.Layer(ctx, r.repo.Digest("sha256:"+l.Digest))
	if err != nil {
		return nil, fmt.Errorf("find layer in %s: %w", r.repo, err)
	}
	in, err := remote.Compressed()
	if err != nil {
		return nil, fmt.Errorf("fetch layer from %s: %w", r.repo, err)
	}
	return in, nil
}
