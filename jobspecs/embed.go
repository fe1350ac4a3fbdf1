package jobspecs

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.nomad.hcl
var files embed.FS // immutable

const suffix = ".nomad.hcl"

// Names are the jobspecs to copy, without their suffix, in the order of the alphabet.
func Names() []string {
	entries, err := fs.Glob(files, "*"+suffix)
	if err != nil {
		return nil // the pattern is well formed
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = strings.TrimSuffix(entry, suffix)
	}
	slices.Sort(names)
	return names
}

// Template is the text of a jobspec to copy. The error names those that there are.
func Template(name string) ([]byte, error) {
	text, err := files.ReadFile(name + suffix)
	if err != nil {
		return nil, fmt.Errorf("jobspec %q: there is none: use one of %s", name, strings.Join(Names(), ", "))
	}
	return text, nil
}
