package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/freshet-dev/freshet/sdk/python"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// bundlePython reads the functions of a Python file and writes the modules that they need to out, as a bundle. The same files make the
// same bundle, so that a deploy without changes uploads nothing.
func bundlePython(ctx context.Context, file, out string, o deployOptions) (spec.Manifest, error) {
	description, err := python.DescribeFile(ctx, o.python, file)
	if err != nil {
		return spec.Manifest{}, err
	}
	for i := range description.Manifest.Functions {
		f := &description.Manifest.Functions[i]
		f.Image = cmp.Or(f.Image, o.image)
		if f.Image == "" {
			return spec.Manifest{}, fmt.Errorf("function %s: %w", f.Name, spec.FieldError{
				Field: "image", Mend: "name an image with Python: @freshet.function(image=…), freshet.app(…, image=…), or --image",
			})
		}
	}
	bundle, err := os.Create(out)
	if err != nil {
		return spec.Manifest{}, fmt.Errorf("write bundle: %w", err)
	}
	if err := errors.Join(writeBundle(bundle, description.Files), bundle.Close()); err != nil {
		return spec.Manifest{}, fmt.Errorf("write bundle: %w", err)
	}
	return description.Manifest, nil
}

func writeBundle(to io.Writer, files []python.File) error {
	compressed := gzip.NewWriter(to)
	archive := tar.NewWriter(compressed)
	for _, file := range files {
		if err := addFile(archive, file); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), compressed.Close())
}

func addFile(to *tar.Writer, file python.File) error {
	data, err := os.ReadFile(file.Path)
	if err != nil {
		return err
	}
	if err := to.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file.Name, Mode: 0o644, Size: int64(len(data)), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = to.Write(data)
	return err
}
