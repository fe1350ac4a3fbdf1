package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// standIn is an image of the blob store that stands for a registry's: who runs the cluster said that the tag means it.
type standIn struct{ blobImage }

// standIns are the images that the cluster has for a registry's tag, to be asked before the registry. A digest is never another image's.
func (s *Store) standIns(ref name.Reference) []source {
	tag, ok := ref.(name.Tag)
	if !ok || s.config.Blobs == nil {
		return nil
	}
	called := standInName(tag)
	if !spec.ValidImageName(called) { // such as one at a port
		return nil
	}
	return []source{standIn{blobImage{store: s.config.Blobs, name: called}}}
}

// standInName is what an image in the cluster is called that stands for a registry's tag: all of that, and Docker Hub is docker.io.
func standInName(tag name.Tag) string {
	host := tag.RegistryStr()
	if host == name.DefaultRegistry {
		host = dockerHub
	}
	return host + "/" + tag.RepositoryStr() + ":" + tag.TagStr()
}

func (i standIn) resolve(ctx context.Context) (record, error) {
	rec, err := i.read(ctx)
	if errors.Is(err, blobs.ErrNotFound) {
		return rec, fmt.Errorf("the cluster has no image that stands for %s", i.name)
	}
	return rec, err
}
