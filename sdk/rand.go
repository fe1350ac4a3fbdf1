package freshet

import (
	cryptorand "crypto/rand"
	"math/rand/v2"
	"sync"
)

// source is a generator that each thaw seeds anew.
type source struct {
	mu     sync.Mutex
	chacha *rand.ChaCha8
}

func (s *source) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chacha == nil {
		s.seedLocked(nil)
	}
	return s.chacha.Uint64()
}

func (s *source) seedLocked(entropy []byte) {
	var seed [32]byte
	_, _ = cryptorand.Read(seed[:]) // never fails: crypto/rand
	for i, b := range entropy {
		seed[i%len(seed)] ^= b
	}
	s.chacha = rand.NewChaCha8(seed)
}

// shared is the process's: a guest is one process, and its copies must differ wherever the user draws from.
var shared source

// Rand is a fast generator for everything but secrets that never repeats in the copies of a snapshot, unlike the top-level
// functions of math/rand, whose state is frozen with the process. It is safe for concurrent use.
func Rand() *rand.Rand { return rand.New(&shared) }

func reseed(entropy []byte) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.seedLocked(entropy)
}
