// Package snapshot is the node's store of frozen sandboxes: found by a key that says all that their memory depends on, made by
// one process at a time, checked by sums before a guest wakes from one, never removed while one is being thawed, and forgotten
// by least recent use. A Remote shares them, sealed, with the other nodes of the cluster.
package snapshot

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Inputs is everything that the memory of a guest after its load hooks can depend on. Two workers with equal inputs may thaw
// from the same snapshot; what is not in here must not change what a guest does.
//
// The host's kernel is not among them: gVisor shows the guest its own kernel, and what the host's hides of the processor is in
// CPU already.
type Inputs struct {
	// App and Function: the guest is told its name before its hooks run.
	Namespace string `json:"namespace"`
	App       string `json:"app"`
	Function  string `json:"function"`
	// Code is the digest of the program, Image the digest of the root file system (of an image: its manifest's digest, never a
	// tag).
	Code  string `json:"code"`
	Image string `json:"image,omitempty"`
	// Args and Env start the guest.
	Args []string          `json:"args"`
	Env  map[string]string `json:"env,omitempty"`
	// User is who the guest runs as ("uid:gid"), Cwd where, Hostname what it is called; empty for the sandbox's defaults.
	User     string `json:"user,omitempty"`
	Cwd      string `json:"cwd,omitempty"`
	Hostname string `json:"hostname,omitempty"`
	// Capabilities are those that the guest has, sorted; Privileges says that it may gain more.
	Capabilities []string `json:"capabilities,omitempty"`
	Privileges   bool     `json:"privileges,omitempty"`
	// Network is the policy that the guest's network follows, in any form that is the same for the same policy; empty for none.
	Network string `json:"network,omitempty"`
	// Secrets are the versions of the secrets by name, and the digests of files that hold some, so that a rotated secret makes another
	// key.
	Secrets map[string]string `json:"secrets,omitempty"`
	// Handler, Concurrency and Mounts shape it.
	Handler     string       `json:"handler"`
	Entry       string       `json:"entry,omitempty"`
	Concurrency int          `json:"concurrency"`
	Mounts      []spec.Mount `json:"mounts,omitempty"`
	// MountTimes are the modification times of the mounts' sources in ns: content replaced by a new folder is noticed.
	MountTimes []int64 `json:"mount_times,omitempty"`
	// MemoryMB is what the guest may use, CPUs how many processors it sees, PIDs and DiskMB its other limits: runtimes size
	// themselves by them. 0 for no limit.
	MemoryMB int64 `json:"memory_mb"`
	CPUs     int   `json:"cpus,omitempty"`
	PIDs     int64 `json:"pids,omitempty"`
	DiskMB   int64 `json:"disk_mb,omitempty"`
	// GPUs are the models of the devices that the guest sees, in their order, GPUDriver the release of their driver: a frozen
	// context fits only the same.
	GPUs      []string `json:"gpus,omitempty"`
	GPUDriver string   `json:"gpu_driver,omitempty"`
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
	info, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("read processor features: %w", err)
	}
	defer func() { _ = info.Close() }() // read only
	hash := sha256.New()
	lines := bufio.NewScanner(info)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			break // the first processor speaks for all, and the kernel need not write the others
		}
		for _, name := range []string{"vendor_id", "cpu family", "model", "stepping", "flags"} {
			if strings.HasPrefix(lines.Text(), name) {
				_, _ = fmt.Fprintln(hash, lines.Text()) // never fails: hash.Hash
			}
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read processor features: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
