package python

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Description is what a file of functions is.
type Description struct {
	Manifest spec.Manifest
	// Files are the modules and data that the functions need, in the order of their names.
	Files []File
}

// File is one that is shipped.
type File struct {
	// Name is where it is below the folder from which modules are imported, Path where it is now.
	Name string `json:"name"`
	Path string `json:"path"`
}

// describeTimeout bounds the reading of source files.
const describeTimeout = time.Minute

// DescribeFile reads what a file of functions is, with an interpreter of this machine. The file is not run, so nothing of what it imports
// need be here. What is wrong with it is said with file and line.
func DescribeFile(ctx context.Context, interpreter, file string) (d Description, err error) {
	dir, err := os.MkdirTemp("", "freshet-python-")
	if err != nil {
		return Description{}, fmt.Errorf("make a folder for the python runtime: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	runtime, err := Install(dir)
	if err != nil {
		return Description{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	describe := exec.CommandContext(ctx, interpreter, "-B", filepath.Join(runtime, Describe), file)
	var said bytes.Buffer
	describe.Stderr = &said
	out, err := describe.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return Description{}, fmt.Errorf("read %s: %w: install Python 3.9 or newer: it reads the file's settings", file, err)
	}
	if err != nil {
		return Description{}, fmt.Errorf("read %s: %s", file, strings.TrimSpace(said.String()))
	}
	var raw struct {
		Manifest json.RawMessage `json:"manifest"`
		Where    []string        `json:"where"` // each function's file and line
		Files    []File          `json:"files"`
	}
	if err := json.Unmarshal(out, &raw); err != nil {
		return Description{}, fmt.Errorf("read %s: %w", file, err)
	}
	manifest, err := spec.DecodeManifest(raw.Manifest)
	if err != nil {
		return Description{}, fmt.Errorf("read %s: %w", file, err)
	}
	if err := check(manifest, raw.Where); err != nil {
		return Description{}, err
	}
	return Description{Manifest: manifest, Files: raw.Files}, nil
}

// check tells what is wrong with the functions' settings, while it is known where in the file they stand.
func check(manifest spec.Manifest, where []string) error {
	var wrong []error
	for i, f := range manifest.Functions {
		f.Image = "the deploy may name or build it"
		if err := f.Validate(); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", where[i], err))
		}
	}
	return errors.Join(wrong...)
}
