package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxAccounts is how much of a guest's /etc/passwd or /etc/group is read.
const maxAccounts = 1 << 20

// readAccounts reads a file of a guest; one that is not there is empty.
type readAccounts func(path string) ([]byte, error)

// resolveUser finds out who a user in one of docker's forms is by the guest's own files.
func resolveUser(name string, read readAccounts) (specs.User, error) {
	if name == "" {
		return specs.User{}, nil
	}
	passwd, err := read("/etc/passwd")
	if err != nil {
		return specs.User{}, fmt.Errorf("resolve user: %w", err)
	}
	group, err := read("/etc/group")
	if err != nil {
		return specs.User{}, fmt.Errorf("resolve user: %w", err)
	}
	found, err := user.GetExecUser(name, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return specs.User{}, fmt.Errorf("user: %q: %w; use a name of the image's /etc/passwd, or uid:gid", name, err)
	}
	resolved := specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	for _, gid := range found.Sgids {
		resolved.AdditionalGids = append(resolved.AdditionalGids, uint32(gid))
	}
	return resolved, nil
}

// accountsIn reads from a root on the host, as if it were the root: no link leads out of it.
func accountsIn(rootfs string) readAccounts {
	return func(path string) ([]byte, error) {
		root, err := os.Open(rootfs)
		if err != nil {
			return nil, fmt.Errorf("open root: %w", err)
		}
		defer closeAll(root)
		fd, err := unix.Openat2(int(root.Fd()), path, inRoot(unix.O_RDONLY|unix.O_NONBLOCK))
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("open %s of the root: %w", path, err)
		}
		file := os.NewFile(uintptr(fd), path)
		defer closeAll(file)
		if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
			return nil, fmt.Errorf("read %s of the root: it is no regular file", path)
		}
		data, err := io.ReadAll(io.LimitReader(file, maxAccounts))
		if err != nil {
			return nil, fmt.Errorf("read %s of the root: %w", path, err)
		}
		return data, nil
	}
}
