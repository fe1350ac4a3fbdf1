package jobspecs

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.nomad.hcl system/*.nomad.hcl
var files embed.FS // immutable

const suffix = ".nomad.hcl"

// Names are the jobspecs to copy, without their suffix, in the order of the alphabet. Those of system/ are the
// parts of a cluster, the others functions and tasks.
func Names() []string {
	var names []string
	for _, pattern := range []string{"*" + suffix, "system/*" + suffix} {
		entries, err := fs.Glob(files, pattern)
		if err != nil {
			return nil // the patterns are well formed
		}
		for _, entry := range entries {
			names = append(names, strings.TrimSuffix(entry, suffix))
		}
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
