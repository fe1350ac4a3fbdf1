// Package snapshot is the node's store of frozen sandboxes: found by a key that says all that their memory depends on, made by
// one process at a time, never removed while one is being thawed, and forgotten by least recent use.
package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Inputs is everything that the memory of a guest after its load hooks can depend on. Two workers with equal inputs may thaw
// from the same snapshot; what is not in here must not change what a guest does.
type Inputs struct {
	// App and Function: the guest is told its name before its hooks run.
	Namespace string `json:"namespace"`
	App       string `json:"app"`
	Function  string `json:"function"`
	// Code is the digest of the program, Image the digest of the root file system.
	Code  string `json:"code"`
	Image string `json:"image,omitempty"`
	// Args and Env start the guest.
	Args []string          `json:"args"`
	Env  map[string]string `json:"env,omitempty"`
	// Handler, Concurrency and Mounts shape it.
	Handler     string       `json:"handler"`
	Entry       string       `json:"entry,omitempty"`
	Concurrency int          `json:"concurrency"`
	Mounts      []spec.Mount `json:"mounts,omitempty"`
	// MountTimes are the modification times of the mounts' sources in ns: content replaced by a new folder is noticed.
	MountTimes []int64 `json:"mount_times,omitempty"`
	// MemoryMB is what the guest may use: runtimes size themselves by it.
	MemoryMB int64 `json:"memory_mb"`
	// Runsc is the release of gVisor, Platform how it intercepts: its own state changes with both.
	Runsc    string `json:"runsc"`
	Platform string `json:"platform"`
	// CPU is the digest of the processor's features: programs choose their code by them.
	CPU string `json:"cpu"`
	// Protocol is the version of the wire protocol that host and guest agreed on.
	Protocol int `json:"protocol"`
}

// Key is the name of the snapshot with these inputs: 64 hex digits.
func (i Inputs) Key() (string, error) {
	data, err := json.Marshal(i) // maps are written in the order of their keys
	if err != nil {
		return "", fmt.Errorf("encode snapshot inputs: %w", err)
	}
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:]), nil
}

// CPUDigest is the digest of this processor's model and features, as /proc/cpuinfo lists them.
func CPUDigest() (string, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("read processor features: %w", err)
	}
	hash := sha256.New()
	for line := range bytes.Lines(info) {
		if len(bytes.TrimSpace(line)) == 0 {
			break // the first processor speaks for all
		}
		for _, name := range []string{"vendor_id", "cpu family", "model", "stepping", "flags"} {
			if bytes.HasPrefix(line, []byte(name)) {
				_, _ = hash.Write(line) // never fails: hash.Hash
			}
		}
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
