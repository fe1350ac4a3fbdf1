package buildcontext

import (
	"bytes"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Sources are the paths of the build context that a Dockerfile copies, which may be patterns; "." where that depends on values that are
// known only to the build. A context of just these builds the same image. Errors name the file, by its name, and the line.
func Sources(name string, dockerfile []byte) ([]string, error) {
	parsed, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	sources := []string{} // none is not all
	for _, stage := range stages {
		for _, command := range stage.Commands {
			sources = append(sources, sourcesOf(command)...)
		}
	}
	return sources, nil
}

func sourcesOf(command instructions.Command) []string {
	var paths []string
	switch c := command.(type) {
	case *instructions.CopyCommand:
		if c.From != "" {
			return nil
		}
		paths = c.SourcePaths
	case *instructions.AddCommand:
		paths = c.SourcePaths
	case *instructions.RunCommand:
		if bindsFiles(c.String()) {
			return []string{"."}
		}
	}
	var sources []string
	for _, source := range paths {
		if address, err := url.Parse(source); err == nil && address.Scheme != "" && address.Host != "" {
			continue
		}
		if strings.ContainsAny(source, "$\\") {
			return []string{"."}
		}
		source = path.Clean(strings.TrimPrefix(path.Clean("/"+source), "/"))
		if source == "" {
			source = "."
		}
		sources = append(sources, source)
	}
	return sources
}

// bindsFiles tells whether a RUN may mount files of the context: each --mount is of another type where it does not.
func bindsFiles(step string) bool {
	others := 0
	for _, kind := range []string{"cache", "secret", "tmpfs"} {
		others += strings.Count(step, "type="+kind)
	}
	return strings.Count(step, "--mount=") > others
}
