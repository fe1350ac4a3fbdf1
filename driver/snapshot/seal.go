package snapshot

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// Sizes of sealed things.
const (
	saltBytes   = 16
	maxHead     = 64 << 20
	sealedChunk = chunkSize + 64<<10 // what zstd and the seal may add
)

// header stands before a sealed manifest, in the open.
type header struct {
	Format int `json:"format"`
	// KeyID is the name of the key that sealed it, for people who take an old key out of use.
	KeyID string `json:"key_id"`
	// Salt makes the push's own key, and names the folder of its chunks.
	Salt string `json:"salt"`
}

// sealer compresses and seals the parts of one pushed snapshot, with a key of its own: parts of two snapshots, or of two pushes
// of one, cannot stand for each other. Each part is bound to its file and place, and how many there are is said by the manifest,
// which is sealed too; so none can be moved, left out or cut short unnoticed.
//
// One goroutine seals at a time; many may open.
type sealer struct {
	header header
	name   string // of the snapshot in the bucket
	aead   cipher.AEAD

	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// newSealer makes the sealer of a new push.
func newSealer(key clusterKey, snapshot string) (*sealer, error) {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails: crypto/rand
	s, err := openSealer(key, snapshot, header{Format: format, KeyID: key.id, Salt: hex.EncodeToString(salt)})
	if err != nil {
		return nil, err
	}
	// One worker and a small window: a supervisor has little memory, and pages repeat nearby or not at all.
	s.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	return s, nil
}

// openSealer makes the sealer of a push with this header.
func openSealer(key clusterKey, snapshot string, h header) (*sealer, error) {
	salt, err := hex.DecodeString(h.Salt)
	if err != nil || len(salt) != saltBytes {
		return nil, fmt.Errorf("read snapshot header: salt %q: want %d bytes in hex", h.Salt, saltBytes)
	}
	name, err := key.name(snapshot)
	if err != nil {
		return nil, err
	}
	secret, err := key.derive(salt, "data")
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxHead))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	return &sealer{header: h, name: name, aead: aead, decoder: decoder}, nil
}

func (s *sealer) close() {
	s.decoder.Close()
	if s.encoder != nil {
		_ = s.encoder.Close() // nothing is left in it: EncodeAll keeps nothing
	}
}

// part is the name of a chunk's object.
func (s *sealer) part(file string, index int) string {
	return s.name + "/" + s.header.Salt + "/" + file + "." + strconv.Itoa(index)
}

// head is the name of the object that makes a pushed snapshot visible.
func head(name string) string { return name + "/head" }

func (s *sealer) seal(place string, data []byte) []byte {
	packed := s.encoder.EncodeAll(data, nil)
	return s.aead.Seal(nil, nil, packed, []byte(place)) //nolint:gosec // it makes a random nonce for each, and takes none
}

func (s *sealer) open(place string, sealed []byte) ([]byte, error) {
	packed, err := s.aead.Open(nil, nil, sealed, []byte(place))
	if err != nil {
		return nil, fmt.Errorf("open %s: it was changed, or sealed with another key: %w", place, err)
	}
	data, err := s.decoder.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", place, err)
	}
	return data, nil
}

// sealHead writes the header and, bound to it, the manifest.
func (s *sealer) sealHead(m manifest) ([]byte, error) {
	open, err := json.Marshal(s.header)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot header: %w", err)
	}
	data, err := m.encode()
	if err != nil {
		return nil, err
	}
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(open)))
	out = append(out, open...)
	return append(out, s.seal(head(s.name)+string(open), data)...), nil
}

// readHeader splits a head into its header and the sealed manifest.
func readHeader(data []byte) (h header, open, sealed []byte, err error) {
	if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
		return h, nil, nil, errors.New("read snapshot header: it is cut short")
	}
	size := binary.LittleEndian.Uint32(data)
	open, sealed = data[4:4+size], data[4+size:]
	if err := json.Unmarshal(open, &h); err != nil {
		return h, nil, nil, fmt.Errorf("read snapshot header: %w", err)
	}
	if h.Format != format {
		return h, nil, nil, fmt.Errorf("read snapshot header: it has format %d, this release reads %d", h.Format, format)
	}
	return h, open, sealed, nil
}
