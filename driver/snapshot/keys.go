package snapshot

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// keyBytes is the size of a cluster's key.
const keyBytes = 32

// Keys seal what is pushed. The first one seals; the others still open what was sealed before a rotation.
type Keys struct{ list []clusterKey }

type clusterKey struct {
	id     string
	secret []byte
}

// ParseKeys reads a key file: a line for each key, of its name (letters, digits, '_' and '-') and 32 random bytes in base64
// ("openssl rand -base64 32"); the first line's seals. Empty lines and those that begin with '#' say nothing. To rotate, put a
// new key before the old one on all nodes, and take the old one out when what it sealed is collected.
func ParseKeys(data []byte) (*Keys, error) {
	keys := &Keys{}
	seen := make(map[string]bool)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, mend := parseKey(line)
		if mend == "" && seen[key.id] {
			mend = "name each key once"
		}
		if mend != "" {
			return nil, spec.FieldError{Field: "snapshot key", Value: "line " + strconv.Itoa(number), Mend: mend} // never the key itself
		}
		seen[key.id] = true
		keys.list = append(keys.list, key)
	}
	if len(keys.list) == 0 {
		return nil, spec.FieldError{Field: "snapshot key", Value: "no line", Mend: "write a line of a name and 32 random bytes in base64"}
	}
	return keys, nil
}

// parseKey reads a line, or says how to mend it.
func parseKey(line string) (key clusterKey, mend string) {
	words := strings.Fields(line)
	if len(words) != 2 {
		return key, "write a name, a space and the key in base64"
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`).MatchString(words[0]) {
		return key, "name the key with letters, digits, '_' and '-'"
	}
	secret, err := base64.StdEncoding.DecodeString(words[1])
	if err != nil || len(secret) != keyBytes {
		return key, "write exactly 32 bytes in base64, as `openssl rand -base64 32` does"
	}
	return clusterKey{id: words[0], secret: secret}, ""
}

// derive makes a key for one purpose.
func (k clusterKey) derive(salt []byte, purpose string) ([]byte, error) {
	derived, err := hkdf.Key(sha256.New, k.secret, salt, "freshet snapshot "+purpose, keyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive snapshot key: %w", err)
	}
	return derived, nil
}

// name hides a snapshot's key: it is a digest of inputs that a reader of the bucket could guess and compare.
func (k clusterKey) name(key string) (string, error) {
	secret, err := k.derive(nil, "names")
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte(key)) // never fails: hash.Hash
	return hex.EncodeToString(mac.Sum(nil)), nil
}
