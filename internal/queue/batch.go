package queue

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// A batch is one function call that holds many inputs, each a call of its own with its attempts and its result. Ids say how they
// belong together, so that nothing has to be looked up: a batch's id is a ULID that ends in zeros, and the call of its first
// input has the same id but for a 1 at the end, that of the second a 2. A call that was spawned alone is the only input of its
// own batch.
const (
	idLength = 26
	// batchPart is how many characters of an id the calls of a batch share; 45 random bits are among them.
	batchPart = 19
	// MaxInputs is how many inputs a batch may have.
	MaxInputs = int64(1)<<(5*(idLength-batchPart)) - 1
)

// crockford is the alphabet of ULIDs.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// noInput is what the id of a batch ends in.
const noInput = "0000000"

// NewBatch makes the id of a batch.
func NewBatch(now time.Time) string {
	return BatchOf(ulid.MustNew(ulid.Timestamp(now), rand.Reader).String())
}

// BatchOf is the batch that a call belongs to. It names a batch that does not exist for a call that was not spawned.
func BatchOf(call string) string { return call[:batchPart] + noInput }

// CallOfInput is the call of a batch's input, from 0.
func CallOfInput(batch string, index int64) string {
	id := []byte(batch)
	index++
	for at := idLength - 1; at >= batchPart; at-- {
		id[at] = crockford[index&31]
		index >>= 5
	}
	return string(id)
}

// InputOf is which input of its batch a call is, from 0; -1 for the batch itself.
func InputOf(call string) int64 {
	var index int64
	for _, c := range []byte(call[batchPart:]) {
		index = index<<5 | int64(strings.IndexByte(crockford, c))
	}
	return index - 1
}

// CheckID refuses what is no id of a call or a batch.
func CheckID(id string) error {
	if _, err := ulid.ParseStrict(id); err != nil || strings.ToUpper(id) != id {
		return fmt.Errorf("%w: call %q: use a ULID", ErrEnvelope, id)
	}
	return nil
}

// idSubject is an id as two tokens: the wildcard over the second one is a batch.
func idSubject(prefix, id string) string { return prefix + id[:batchPart] + "." + id[batchPart:] }

// BatchResults is where the results of all calls of a batch are stored.
func BatchResults(batch string) string { return resultsPrefix + batch[:batchPart] + ".*" }

// CallOfResult reads the call out of the subject that its result is stored at.
func CallOfResult(subject string) string {
	return strings.Replace(strings.TrimPrefix(subject, resultsPrefix), ".", "", 1)
}
