package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// record is what the store knows of an image: enough to mount it, and to fetch what is missing of it.
type record struct {
	// Digest is that of the manifest; of the config for archives of Docker, which have no manifest. In hex.
	Digest string `json:"digest"`
	// Layers are in the order in which they lie on each other, the lowest first.
	Layers   []layer  `json:"layers"`
	Defaults Defaults `json:"defaults"`
}

// layer is one layer of an image.
type layer struct {
	// DiffID is the digest of the layer's tar stream, in hex: the layer's name in the store.
	DiffID string `json:"diff_id"`
	// Digest is that of its bytes in the registry, in hex; empty in archives of Docker, where File names it.
	Digest string `json:"digest,omitempty"`
	File   string `json:"file,omitempty"`
	// Size is that of its bytes in the registry or archive.
	Size int64 `json:"size"`
}

// content is the name of what the layers make together: equal for images that differ in their config only.
func (r record) content() string {
	sum := sha256.New()
	for _, l := range r.Layers {
		_, _ = sum.Write([]byte(l.DiffID + "\n")) // never fails: hash.Hash
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// newRecord puts together what an image's config and its list of layers say, and refuses what cannot run here.
func newRecord(digest string, layers []layer, config *v1.ConfigFile) (record, error) {
	if config.OS != "" && config.OS != "linux" || config.Architecture != "" && config.Architecture != runtime.GOARCH {
		return record{}, fmt.Errorf("the image is for %s/%s, this node is linux/%s", config.OS, config.Architecture, runtime.GOARCH)
	}
	if len(layers) != len(config.RootFS.DiffIDs) {
		return record{}, fmt.Errorf("the image lists %d layers, its config %d", len(layers), len(config.RootFS.DiffIDs))
	}
	if len(layers) == 0 {
		return record{}, fmt.Errorf("the image has no layers")
	}
	if len(layers) > maxLayers {
		return record{}, fmt.Errorf("the image has %d layers, more than the %d that can be mounted: flatten it", len(layers), maxLayers)
	}
	for i, id := range config.RootFS.DiffIDs {
		if id.Algorithm != "sha256" || !isHex(id.Hex) {
			return record{}, fmt.Errorf("layer %d has the digest %s: only sha256 is known", i, id)
		}
		layers[i].DiffID = id.Hex
	}
	return record{Digest: digest, Layers: layers, Defaults: defaultsOf(config.Config)}, nil
}

func defaultsOf(config v1.Config) Defaults {
	return Defaults{
		Entrypoint: config.Entrypoint, Cmd: config.Cmd, Env: config.Env, User: config.User, WorkingDir: config.WorkingDir,
		Volumes: slices.Sorted(maps.Keys(config.Volumes)), ExposedPorts: slices.Sorted(maps.Keys(config.ExposedPorts)),
		StopSignal: config.StopSignal,
	}
}

func isHex(digest string) bool {
	return len(digest) == hex.EncodedLen(sha256.Size) && strings.Trim(digest, "0123456789abcdef") == ""
}

func hexDigest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// resolution is what a reference was found to mean.
type resolution struct {
	Reference string `json:"reference"`
	// State is that of the file on the node, for references to one: a changed file is another image.
	State  string    `json:"state,omitempty"`
	Digest string    `json:"digest"`
	At     time.Time `json:"at"`
}

// catalogue is what the store knows of images: a record each, and what references meant.
type catalogue struct {
	images, refs string
	// ttl is how long a tag means what it meant.
	ttl time.Duration
}

func (s *catalogue) recordPath(digest string) string { return filepath.Join(s.images, digest+".json") }

func (s *catalogue) resolutionPath(ref reference) string {
	return filepath.Join(s.refs, hexDigest([]byte(ref.String()))+".json")
}

// resolved finds what the reference meant when it was last asked for. fresh tells whether that still holds without asking.
func (s *catalogue) resolved(ref reference) (rec record, fresh, found bool) {
	if digest := ref.digest(); digest != "" && readJSON(s.recordPath(digest), &rec) {
		return rec, true, true // wherever it came from, it is what is named
	}
	var known resolution
	if !readJSON(s.resolutionPath(ref), &known) || known.Reference != ref.String() || !readJSON(s.recordPath(known.Digest), &rec) {
		return record{}, false, false
	}
	if ref.onNode() {
		state, err := stateOf(ref)
		return rec, err == nil && state == known.State, true
	}
	return rec, ref.digest() != "" || !ref.asked() && time.Since(known.At) < s.ttl, true
}

// remember writes down what the reference means.
func (s *catalogue) remember(ref reference, state string, rec record) error {
	if err := writeJSON(s.recordPath(rec.Digest), rec); err != nil {
		return err
	}
	return writeJSON(s.resolutionPath(ref), resolution{Reference: ref.String(), State: state, Digest: rec.Digest, At: time.Now()})
}

// touch marks the image used now.
func (s *catalogue) touch(digest string) error {
	now := time.Now()
	if err := os.Chtimes(s.recordPath(digest), now, now); err != nil {
		return fmt.Errorf("mark image used: %w", err)
	}
	return nil
}

// stateOf is the state of a file of the node: it changes when the file's content does.
func stateOf(ref reference) (string, error) {
	path := ref.path
	if ref.kind == ociLayout {
		path = filepath.Join(path, indexFile)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("find image: %w", err)
	}
	return fmt.Sprintf("%d bytes of %s", info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano)), nil
}

// readJSON reads a file of the store; one that is missing or torn counts as never written.
func readJSON(path string, into any) bool {
	data, err := os.ReadFile(path)
	return err == nil && json.Unmarshal(data, into) == nil
}

// writeJSON writes a file of the store, whole or not at all.
func writeJSON(path string, what any) error {
	data, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	part, err := os.CreateTemp(filepath.Dir(path), partPrefix+"*")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	_, err = part.Write(data)
	if closed := part.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(part.Name(), path)
	}
	if err != nil {
		_ = os.Remove(part.Name()) // the first error says more
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
