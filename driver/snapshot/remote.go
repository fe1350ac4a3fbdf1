package snapshot

import (
	"context"
	"errors"
	"fmt"

	"github.com/freshet-dev/freshet/internal/blobs"
)

// folder of the bucket that the snapshots are in.
const folder = "snapshots"

// Remote is the cluster's store of snapshots: sealed, in the bucket that the blobs are in. A snapshot is a folder of the bucket
// with an object for each chunk and, written last, the head with the sealed manifest.
type Remote struct {
	objects *blobs.Objects
	keys    *Keys
}

// NewRemote makes the cluster's store from its bucket and keys.
func NewRemote(store *blobs.Store, keys *Keys) *Remote {
	return &Remote{objects: store.Objects(folder), keys: keys}
}

// pushed is a snapshot found in the bucket.
type pushed struct {
	sealer   *sealer
	manifest manifest
}

// find reads the head of a snapshot: ErrNotFound when nobody pushed it under a key of ours, ErrDamaged when what is there was
// changed or belongs elsewhere.
func (r *Remote) find(ctx context.Context, key, cpu string) (*pushed, error) {
	for _, sealing := range r.keys.list {
		name, err := sealing.name(key)
		if err != nil {
			return nil, err
		}
		data, err := r.objects.Get(ctx, head(name), maxHead)
		if errors.Is(err, blobs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find snapshot: %w", err)
		}
		found, err := openHead(sealing, key, data)
		if err == nil {
			if err = found.manifest.checkNode(key, cpu); err == nil {
				return found, nil
			}
			found.sealer.close()
		}
		// Nobody can use it, and while it is there nobody pushes a good one.
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrDamaged, err), r.objects.Delete(ctx, head(name)))
	}
	return nil, ErrNotFound
}

func openHead(sealing clusterKey, key string, data []byte) (*pushed, error) {
	h, open, sealed, err := readHeader(data)
	if err != nil {
		return nil, err
	}
	s, err := openSealer(sealing, key, h)
	if err != nil {
		return nil, err
	}
	plain, err := s.open(head(s.name)+string(open), sealed)
	if err != nil {
		s.close()
		return nil, err
	}
	m, err := parseManifest(plain)
	if err != nil {
		s.close()
		return nil, err
	}
	return &pushed{sealer: s, manifest: m}, nil
}

// used is the name of the object whose age says when a snapshot was last fetched.
func used(name string) string { return name + "/used" }
