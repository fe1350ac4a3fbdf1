package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/internal/blobs"
)

// orphanAge is how old a chunk must be that no head names: younger ones belong to a push under way.
const orphanAge = 24 * time.Hour

// Expired says what a collection removed.
type Expired struct {
	Snapshots int
	Bytes     int64
}

// remoteSnapshot is what the bucket's listing says of one.
type remoteSnapshot struct {
	name   string
	used   time.Time
	bytes  int64
	head   bool
	chunks []blobs.Object
}

// Collect removes pushed snapshots that nobody fetched or pushed for maxAge, then the least recently used ones until the rest
// has maxBytes; 0 for no limit of either. It also removes what abandoned pushes left. Any node may call it at any time; a
// fetch of what is removed meanwhile fails, and its worker starts cold.
func (r *Remote) Collect(ctx context.Context, maxBytes int64, maxAge time.Duration) (Expired, error) {
	list, err := r.list(ctx)
	if err != nil {
		return Expired{}, err
	}
	var gone Expired
	var total int64
	for _, snap := range list { // the most recently used first
		total += snap.bytes
		expired := maxAge > 0 && time.Since(snap.used) > maxAge || maxBytes > 0 && total > maxBytes
		if snap.head && !expired {
			n, err := r.removeOrphans(ctx, snap)
			gone.Bytes += n
			total -= n
			if err != nil {
				return gone, err
			}
			continue
		}
		if !snap.head && time.Since(snap.used) < orphanAge {
			continue
		}
		if err := r.removeAll(ctx, snap); err != nil {
			return gone, err
		}
		gone.Snapshots++
		gone.Bytes += snap.bytes
		total -= snap.bytes
	}
	return gone, nil
}

func (r *Remote) list(ctx context.Context) ([]remoteSnapshot, error) {
	byName := make(map[string]*remoteSnapshot)
	err := r.objects.List(ctx, func(object blobs.Object) error {
		name, rest, _ := strings.Cut(object.Name, "/")
		snap := byName[name]
		if snap == nil {
			snap = &remoteSnapshot{name: name}
			byName[name] = snap
		}
		snap.bytes += object.Bytes
		if object.Modified.After(snap.used) {
			snap.used = object.Modified
		}
		switch rest {
		case "head":
			snap.head = true
		case "used":
		default:
			snap.chunks = append(snap.chunks, object)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list pushed snapshots: %w", err)
	}
	list := make([]remoteSnapshot, 0, len(byName))
	for _, snap := range byName {
		list = append(list, *snap)
	}
	slices.SortFunc(list, func(a, b remoteSnapshot) int { return b.used.Compare(a.used) })
	return list, nil
}

// removeAll removes the head first: what is half removed is not found.
func (r *Remote) removeAll(ctx context.Context, snap remoteSnapshot) error {
	if err := errors.Join(r.objects.Delete(ctx, head(snap.name)), r.objects.Delete(ctx, used(snap.name))); err != nil {
		return fmt.Errorf("remove pushed snapshot: %w", err)
	}
	for _, chunk := range snap.chunks {
		if err := r.objects.Delete(ctx, chunk.Name); err != nil {
			return fmt.Errorf("remove pushed snapshot: %w", err)
		}
	}
	return nil
}

// removeOrphans removes old chunks that the head does not name: two nodes may push one snapshot at once, and the last head
// stands.
func (r *Remote) removeOrphans(ctx context.Context, snap remoteSnapshot) (bytes int64, err error) {
	data, err := r.objects.Get(ctx, head(snap.name), maxHead)
	if errors.Is(err, blobs.ErrNotFound) {
		return 0, nil // removed meanwhile
	}
	if err != nil {
		return 0, fmt.Errorf("collect pushed snapshots: %w", err)
	}
	h, _, _, err := readHeader(data)
	if err != nil {
		return 0, nil //nolint:nilerr // who fetches it will say so and remove it
	}
	for _, chunk := range snap.chunks {
		if strings.HasPrefix(chunk.Name, snap.name+"/"+h.Salt+"/") || time.Since(chunk.Modified) < orphanAge {
			continue
		}
		if err := r.objects.Delete(ctx, chunk.Name); err != nil {
			return bytes, fmt.Errorf("collect pushed snapshots: %w", err)
		}
		bytes += chunk.Bytes
	}
	return bytes, nil
}
