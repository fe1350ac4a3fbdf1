package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"

	"github.com/freshet-dev/freshet/internal/modproxy"
	freshet "github.com/freshet-dev/freshet/sdk"
)

// sdkModule is the Go SDK's module path.
const sdkModule = "github.com/freshet-dev/freshet/sdk"

// sdk is where programs find the Go SDK.
type sdk struct {
	// cache is this program's cache, which holds the versions of the SDK that it brings.
	cache string
}

func (s sdk) module() modproxy.Module {
	return modproxy.Module{Path: sdkModule, Source: freshet.Source}
}

// published tells whether the SDK of this program is one that module proxies have: that of a release.
func (s sdk) published() bool { return !strings.HasSuffix(version, "-dev") }

// version is that of the SDK which belongs to this program.
func (s sdk) version() (string, error) {
	if s.published() {
		return "v" + version, nil
	}
	return s.module().Version("v" + version)
}

// goVersion is the oldest Go that the SDK builds with.
func (s sdk) goVersion() (string, error) {
	data, err := fs.ReadFile(freshet.Source, "go.mod")
	if err != nil {
		return "", fmt.Errorf("read the SDK's go.mod: %w", err)
	}
	mod, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		return "", fmt.Errorf("read the SDK's go.mod: %w", err)
	}
	return mod.Go.Version, nil
}

// environment is that of a Go command which finds the SDK of this program even where no module proxy has it.
func (s sdk) environment(ctx context.Context) ([]string, error) {
	if s.published() {
		return os.Environ(), nil
	}
	version, err := s.version()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.cache, "modules")
	if err := s.module().Write(dir, version); err != nil {
		return nil, err
	}
	var set struct{ GOPROXY, GONOSUMDB string }
	out, err := exec.CommandContext(ctx, "go", "env", "-json", "GOPROXY", "GONOSUMDB").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("find the Go command: %w: install Go from https://go.dev/dl", err)
	}
	if err == nil {
		err = json.Unmarshal(out, &set)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the Go command for its settings: %w", err)
	}
	proxy := url.URL{Scheme: "file", Path: "/" + strings.TrimPrefix(filepath.ToSlash(dir), "/")}
	return append(os.Environ(), "GOPROXY="+join(proxy.String(), set.GOPROXY), "GONOSUMDB="+join(sdkModule, set.GONOSUMDB)), nil
}

// join makes a list of a first entry and those that there are.
func join(first, others string) string {
	if others == "" {
		return first
	}
	return first + "," + others
}
