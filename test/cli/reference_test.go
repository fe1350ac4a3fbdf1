package cli

import (
	"os"
	"strings"
	"testing"
)

// TestReferenceIsThatOfTheCommands: the end of docs/cli.md is what `freshet reference` prints. UPDATE=1 writes it anew.
func TestReferenceIsThatOfTheCommands(t *testing.T) {
	const page, mark = "../../docs/cli.md", "## Reference\n"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, written, found := strings.Cut(string(data), mark)
	if !found {
		t.Fatalf("%s has no %s", page, mark)
	}
	made := newTerminal(t).run(t, "reference")
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(page, []byte(before+mark+made), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if written != made {
		t.Errorf("%s is not what the commands say: write it anew with UPDATE=1 go test -run Reference ./test/cli", page)
	}
}
