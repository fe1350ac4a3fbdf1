package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"
)

const (
	manifestFile = "manifest.json"
	// format is the layout of the store; snapshots of another are discarded.
	format = 2
	// chunkSize is how many bytes one sum covers, and one object in the cluster's store holds.
	chunkSize = 4 << 20
)

// manifest says what a snapshot consists of, so that a torn or damaged one is noticed before a guest wakes from it.
type manifest struct {
	Format int       `json:"format"`
	Inputs Inputs    `json:"inputs"`
	Made   time.Time `json:"made"`
	// LoadMS is how long the cold start took that this saves, in ms; 0 when nobody said.
	LoadMS int64           `json:"load_ms,omitempty"`
	Files  map[string]file `json:"files"`
	// Sum is the CRC-32C of this manifest's encoding with Sum 0.
	Sum uint32 `json:"sum"`
}

// file is one file of a snapshot: its size in bytes and the CRC-32C of each chunk.
type file struct {
	Size int64    `json:"size"`
	Sums []uint32 `json:"sums"`
}

// sum is what Sum must be.
func (m manifest) sum() (uint32, error) {
	m.Sum = 0
	data, err := json.Marshal(m)
	if err != nil {
		return 0, fmt.Errorf("encode snapshot manifest: %w", err)
	}
	return crc32.Checksum(data, castagnoli()), nil
}

// castagnoli is the polynomial that processors have an instruction for.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// parseManifest reads a manifest and checks that it is whole and of this release.
func parseManifest(data []byte) (manifest, error) {
	var m manifest
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields() // a name that was damaged, or a later release's
	if err := decoder.Decode(&m); err != nil {
		return m, fmt.Errorf("read snapshot manifest: %w", err)
	}
	if m.Format != format {
		return m, fmt.Errorf("read snapshot manifest: it has format %d, this release reads %d", m.Format, format)
	}
	want, err := m.sum()
	if err != nil {
		return m, err
	}
	if m.Sum != want {
		return m, errors.New("read snapshot manifest: it does not have its sum")
	}
	for name, file := range m.Files {
		if !filepath.IsLocal(name) || filepath.Base(name) != name || name == "." || file.Size < 0 || int64(len(file.Sums)) != chunks(file.Size) {
			return m, fmt.Errorf("read snapshot manifest: its file %q cannot be", name)
		}
	}
	return m, nil
}

// chunks is how many chunks so many bytes make.
func chunks(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

func readManifest(dir string) (manifest, error) {
	data, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return manifest{}, fmt.Errorf("read snapshot manifest: %w", err)
	}
	return parseManifest(data)
}

func (m manifest) encode() ([]byte, error) {
	var err error
	if m.Sum, err = m.sum(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot manifest: %w", err)
	}
	return data, nil
}

func (m manifest) write(dir string) error {
	data, err := m.encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, manifestFile), data, 0o600); err != nil {
		return fmt.Errorf("write snapshot manifest: %w", err)
	}
	return nil
}

// checkSizes compares the files' sizes with the manifest.
func (m manifest) checkSizes(dir string) error {
	for name, file := range m.Files {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("verify snapshot: %w", err)
		}
		if info.Size() != file.Size {
			return fmt.Errorf("verify snapshot: %s has %d bytes, its manifest says %d", name, info.Size(), file.Size)
		}
	}
	return nil
}

// checkNode says whether a snapshot may be thawed under this key on a node with this processor. A key is a digest of the
// inputs, so a snapshot copied from elsewhere, of another release or platform, has another one.
func (m manifest) checkNode(key, cpu string) error {
	if m.Inputs.CPU != cpu {
		return errors.New("verify snapshot: it was made on a processor with other features")
	}
	made, err := m.Inputs.Key()
	if err != nil {
		return err
	}
	if made != key {
		return fmt.Errorf("verify snapshot: it belongs to the key %s", made)
	}
	return nil
}
