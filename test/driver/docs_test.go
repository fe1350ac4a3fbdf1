package driver

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver"
)

// TestThePageNamesEveryField: docs/driver.md and the schemas list the same.
func TestThePageNamesEveryField(t *testing.T) {
	page, err := os.ReadFile("../../docs/driver.md")
	if err != nil {
		t.Fatal(err)
	}
	d := driver.New(t.Context(), zerolog.Nop())
	for heading, schema := range map[string]func() (*hclspec.Spec, error){
		"Plugin configuration": d.ConfigSchema, "Task configuration": d.TaskConfigSchema,
	} {
		root, err := schema()
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[string]bool)
		leaves(root, "", want)
		_, section, _ := strings.Cut(string(page), "\n## "+heading+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		if d := cmp.Diff(want, named(section)); d != "" {
			t.Errorf("%s (- is not on the page, + is not in the schema):\n%s", heading, d)
		}
	}
}

// named are the fields in the first column of a section's tables.
func named(section string) map[string]bool {
	fields := make(map[string]bool)
	for _, line := range strings.Split(section, "\n") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, match := range regexp.MustCompile("`([a-z_.]+)`").FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			fields[match[1]] = true
		}
	}
	return fields
}

func leaves(s *hclspec.Spec, path string, fields map[string]bool) {
	switch {
	case s.GetObject() != nil:
		for name, inner := range s.GetObject().GetAttributes() {
			leaves(inner, strings.TrimPrefix(path+"."+name, "."), fields)
		}
	case s.GetBlockValue() != nil:
		leaves(s.GetBlockValue().GetNested(), path, fields)
	case s.GetBlockList() != nil:
		leaves(s.GetBlockList().GetNested(), path, fields)
	default:
		fields[path] = true
	}
}
