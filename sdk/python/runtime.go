// Package python holds the python handler's runtime: what runs in a sandbox beside the user's modules. It is Python without
// dependencies, for 3.9 and newer; the same files are the wheel that people install to write and call functions.
package python

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

//go:embed worker.py describe.py freshet/*.py freshet/*/*.py
var files embed.FS // immutable

// The places in a sandbox, and the programs of the runtime's folder.
const (
	// Dir is where the runtime is mounted.
	Dir = "/.freshet/python"
	// Code is where the function's own modules are mounted. The runtime's session.py knows it too.
	Code = "/.freshet/code"
	// Worker serves calls: what an interpreter is started with.
	Worker = Dir + "/worker.py"
	// Describe is the name of the program that tells what a file of functions is: Description is what it prints.
	Describe = "describe.py"
	// Interpreter is the name of the interpreter that is looked for where a job names none.
	Interpreter = "python3"
)

// Install writes the runtime below a folder, once for each content, and returns where. Its files are the same on every machine, their
// times too.
func Install(below string) (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := files.ReadFile(path)
		fmt.Fprintf(sum, "%q %d\n%s", path, len(data), data)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the python runtime: %w", err)
	}
	dir := filepath.Join(below, hex.EncodeToString(sum.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(below, 0o755); err != nil {
		return "", fmt.Errorf("install the python runtime: %w", err)
	}
	part, err := os.MkdirTemp(below, "part-")
	if err != nil {
		return "", fmt.Errorf("install the python runtime: %w", err)
	}
	if err := write(part); err != nil {
		return "", errors.Join(fmt.Errorf("install the python runtime: %w", err), os.RemoveAll(part))
	}
	if err := os.Rename(part, dir); err != nil {
		if _, there := os.Stat(dir); there == nil { // another process was as fast
			return dir, os.RemoveAll(part)
		}
		return "", errors.Join(fmt.Errorf("install the python runtime: %w", err), os.RemoveAll(part))
	}
	return dir, nil
}

func write(to string) error {
	if err := os.CopyFS(to, files); err != nil {
		return err
	}
	return Settle(to)
}

// Settle gives all that a folder holds one time and modes to read: what is mounted into sandboxes must be the same on every node, because
// a snapshot's key says what it was.
func Settle(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	walked := fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if entry.IsDir() {
			mode = 0o755
		}
		return errors.Join(root.Chmod(path, mode), root.Chtimes(path, time.Time{}, time.Unix(0, 0)))
	})
	return errors.Join(walked, root.Close())
}
