// Package image makes the root file systems that sandboxes start from, once for each content, and shared by all of a node's
// workers.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// Program is where the function's program is in the guest's root.
const Program = "/app/main"

// Cache keeps root file systems under a directory of the node.
type Cache struct {
	dir   string
	blobs *blobs.Store

	mu      sync.Mutex
	digests map[file]string // of programs on the node
	making  map[string]*sync.Mutex
}

// file is a file's identity: a changed file is another one.
type file struct {
	path     string
	size     int64
	modified time.Time
}

// Open opens the cache; store is where programs named by digest come from.
func Open(dir string, store *blobs.Store) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("open image cache: %w", err)
	}
	return &Cache{dir: dir, blobs: store, digests: make(map[file]string), making: make(map[string]*sync.Mutex)}, nil
}

// Root is a root file system.
type Root struct {
	// Dir is the root on the host; it is not to be written.
	Dir string
	// Digest is the program's, in hex.
	Digest string
}

// ForProgram makes the root for a program alone: code is "sha256:<hex>" of a blob, or an absolute path on the node.
func (c *Cache) ForProgram(ctx context.Context, code string) (Root, error) {
	return c.root(ctx, code, content{write: writeRoot, executable: true})
}

// content is a kind of code.
type content struct {
	// prefix tells directories of this kind from others.
	prefix string
	write  func(dir string, in io.Reader) error
	// executable says that a file on the node must be one.
	executable bool
}

func (c *Cache) root(ctx context.Context, code string, kind content) (Root, error) {
	digest, isBlob := strings.CutPrefix(code, "sha256:")
	if !isBlob {
		var err error
		if digest, err = c.digest(code, kind.executable); err != nil {
			return Root{}, err
		}
	}
	root := Root{Dir: filepath.Join(c.dir, kind.prefix+digest), Digest: digest}
	lock := c.lock(root.Dir)
	lock.Lock()
	defer lock.Unlock()
	if _, err := os.Stat(root.Dir); err == nil {
		return root, nil
	}
	return root, c.build(ctx, code, isBlob, root, kind)
}

// lock makes two starts of one program wait for each other, and for no other's.
func (c *Cache) lock(dir string) *sync.Mutex {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.making[dir] == nil {
		c.making[dir] = &sync.Mutex{}
	}
	return c.making[dir]
}

// digest hashes a program of the node, once for each state of the file.
func (c *Cache) digest(path string, executable bool) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("find code: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("find code: %s is no file", path)
	}
	if executable && info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("find code: %s is no executable file", path)
	}
	id := file{path: path, size: info.Size(), modified: info.ModTime()}
	c.mu.Lock()
	digest := c.digests[id]
	c.mu.Unlock()
	if digest != "" {
		return digest, nil
	}
	in, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read code: %w", err)
	}
	defer func() { _ = in.Close() }() // read only
	sum := sha256.New()
	if _, err := io.Copy(sum, in); err != nil {
		return "", fmt.Errorf("read code: %w", err)
	}
	digest = hex.EncodeToString(sum.Sum(nil))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.digests[id] = digest
	return digest, nil
}

// build makes the root beside its place and moves it there when it is whole.
func (c *Cache) build(ctx context.Context, code string, isBlob bool, root Root, kind content) (err error) {
	part := root.Dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return fmt.Errorf("make root file system: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(part))
		}
	}()
	in, err := c.open(ctx, code, isBlob, root.Digest)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	if err := kind.write(part, in); err != nil {
		return err
	}
	if err := os.Rename(part, root.Dir); err != nil {
		return fmt.Errorf("make root file system: %w", err)
	}
	return nil
}

func (c *Cache) open(ctx context.Context, code string, isBlob bool, digest string) (io.ReadCloser, error) {
	if isBlob {
		if c.blobs == nil {
			return nil, spec.FieldError{Field: "code", Value: code, Mend: "this node has no blob store: set blobs in the driver's plugin config, or name a path on the node"}
		}
		return c.blobs.Open(ctx, digest)
	}
	in, err := os.Open(code)
	if err != nil {
		return nil, fmt.Errorf("read code: %w", err)
	}
	return in, nil
}

// writeRoot makes a root of a static program.
func writeRoot(dir string, in io.Reader) error {
	if err := skeleton(dir); err != nil {
		return err
	}
	return writeProgram(filepath.Join(dir, Program), in)
}

// skeleton makes what a static program may expect of a root.
func skeleton(dir string) error {
	for _, name := range []string{"app", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return fmt.Errorf("make root file system: %w", err)
		}
	}
	for name, content := range map[string]string{
		"etc/passwd":   "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
		"etc/group":    "root:x:0:\nnogroup:x:65534:\n",
		"etc/hosts":    "127.0.0.1 localhost\n::1 localhost\n",
		"etc/hostname": "freshet\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("make root file system: %w", err)
		}
	}
	return nil
}

func writeProgram(path string, in io.Reader) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return fmt.Errorf("write program: %w", err)
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(fmt.Errorf("write program: %w", err), out.Close())
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write program: %w", err)
	}
	return nil
}
