package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/freshet-dev/freshet/internal/buildcontext"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// provideImages builds the images of functions that name a Dockerfile, and names those instead.
func provideImages(ctx context.Context, api apiClient, source string, manifest spec.Manifest, o deployOptions) error {
	dir := source
	if strings.HasSuffix(source, ".py") {
		dir = filepath.Dir(source)
	}
	references := make(map[string]string)
	for i := range manifest.Functions {
		f := &manifest.Functions[i]
		file, ok := strings.CutPrefix(f.Image, spec.DockerfilePrefix)
		if !ok {
			continue
		}
		if references[file] == "" {
			path := file
			if !filepath.IsAbs(path) {
				path = filepath.Join(dir, file)
			}
			image, err := provideImage(ctx, api, path, o)
			if err != nil {
				return fmt.Errorf("image of function %s: %w", f.Name, err)
			}
			references[file] = image.Reference
		}
		f.Image = references[file]
	}
	return nil
}

// provideImage builds the image of a Dockerfile, unless that was done. Its name is the digest of the Dockerfile and of the files that it
// copies: a change of anything else beside it, such as a function's code, is no other image.
func provideImage(ctx context.Context, api apiClient, file string, o deployOptions) (builtImage, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return builtImage{}, fmt.Errorf("read Dockerfile: %w", err)
	}
	from := buildSource{dir: filepath.Dir(file), file: file}
	if from.only, err = buildcontext.Sources(filepath.Base(file), text); err != nil {
		return builtImage{}, err
	}
	sum := sha256.New()
	_, _ = sum.Write(append(text, 0)) // never fails: hash.Hash
	if err := buildcontext.Pack(ctx, from.dir, from.only, sum); err != nil {
		return builtImage{}, err
	}
	want := wantedBuild{Build: spec.Build{Name: "deploys/" + hex.EncodeToString(sum.Sum(nil)[:16]), NoCache: o.rebuild}, NetworkMode: o.buildNetwork}
	if !o.rebuild {
		var found builtImage
		err := api.get(ctx, "/v1/images/"+url.PathEscape(want.Build.Name), nil, &found)
		if err == nil || !isNotFound(err) {
			return found, err
		}
	}
	return buildImage(ctx, api, from, o.namespace, want, newBuildOutput(os.Stderr, false))
}

// isNotFound tells of an error of the gateway's that says that something is not there.
func isNotFound(err error) bool {
	var refused *apiFailure
	return errors.As(err, &refused) && refused.status == 404
}
