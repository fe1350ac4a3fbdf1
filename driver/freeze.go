package driver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver/image"
	"github.com/freshet-dev/freshet/driver/snapshot"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// snapshotOf names the snapshot that the task's guest may be thawed from.
func (s *starter) snapshotOf(p plan, cfg *drivers.TaskConfig, code image.Root) (*handoff.Snapshots, error) {
	inputs, err := s.inputs(p, cfg, code)
	if err != nil {
		return nil, err
	}
	key, err := inputs.Key()
	if err != nil {
		return nil, err
	}
	kept, err := json.Marshal(inputs)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot inputs: %w", err)
	}
	return &handoff.Snapshots{
		Dir: filepath.Join(s.config.DataDir, "snapshots"), MaxBytes: s.config.Snapshots.MaxBytes, Key: key, Inputs: kept, Share: s.share,
	}, nil
}

// inputs are all that the memory of the loaded guest can depend on.
func (s *starter) inputs(p plan, cfg *drivers.TaskConfig, code image.Root) (snapshot.Inputs, error) {
	program := p.task.Program
	inputs := snapshot.Inputs{
		Namespace: p.task.Identity.Namespace, App: p.task.Identity.App, Function: p.task.Identity.Function,
		Code: code.Digest, Args: program.Args, Env: withoutSecrets(program.Env, p.revealed), User: program.User, Cwd: program.Dir, Hostname: program.Hostname,
		Capabilities: program.Capabilities, Privileges: program.NewPrivileges,
		Handler: p.config.Handler.Type, Entry: p.config.Handler.Entry, Concurrency: p.config.Concurrency,
		MemoryMB: p.task.MemoryMB, CPUs: runtime.NumCPU(), PIDs: p.limits.PIDs, DiskMB: p.task.Root.WritesBytes >> 20,
		Runsc: s.runsc, Platform: s.config.Platform, CPU: s.cpu, Protocol: wire.Version,
	}
	if len(p.secrets) > 0 {
		inputs.Secrets = secretMarks(p.secrets)
	}
	if p.image != nil {
		inputs.Image = p.image.Digest
	}
	if p.reach.policy != nil {
		policy, err := json.Marshal(p.reach.policy)
		if err != nil {
			return inputs, fmt.Errorf("encode network policy: %w", err)
		}
		inputs.Network = string(policy)
	}
	return inputs, addMounts(&inputs, p, cfg)
}

// addMounts says what the mounts hold: of Nomad's directories, whose paths name the allocation, the content itself, so that a secret
// that was rotated is never thawed; of others the path, and when it was changed.
func addMounts(inputs *snapshot.Inputs, p plan, cfg *drivers.TaskConfig) error {
	for _, m := range p.task.Mounts {
		inputs.Mounts = append(inputs.Mounts, spec.Mount{Target: m.Target, Readonly: m.Readonly})
		added := &inputs.Mounts[len(inputs.Mounts)-1]
		switch {
		case p.volumes[m.Target] != "":
			added.Source = p.volumes[m.Target] // by its name: what is in it is read when it is needed
		case m.Source == "":
			added.Type, added.TmpfsOptions = spec.MountTmpfs, []spec.TmpfsOptions{{Size: m.Bytes}}
		case below(cfg.AllocDir, m.Source):
			sum, err := contentDigest(m.Source)
			if err != nil {
				return err
			}
			if inputs.Secrets == nil {
				inputs.Secrets = make(map[string]string)
			}
			inputs.Secrets[m.Target] = sum
		default:
			added.Source = m.Source
			info, err := os.Stat(m.Source)
			if err != nil {
				return fmt.Errorf("look at mount %s: %w", m.Target, err)
			}
			inputs.MountTimes = append(inputs.MountTimes, info.ModTime().UnixNano())
		}
	}
	return nil
}

// contentDigest is the digest of all that a directory holds but Nomad's own files: names, modes and bytes.
func contentDigest(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || nomads(entry.Name()) {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		detail := ""
		switch {
		case info.Mode().IsRegular():
			detail, err = fileDigest(path)
		case info.Mode()&fs.ModeSymlink != 0:
			detail, err = os.Readlink(path)
		}
		fmt.Fprintf(sum, "%q %o %q\n", name, info.Mode(), detail)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("digest the task's files: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
