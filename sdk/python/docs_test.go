package python_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// TestSnippetsOfTheDocumentWork runs the document's functions: each says of which input it gives what.
func TestSnippetsOfTheDocumentWork(t *testing.T) {
	text, err := os.ReadFile("../../docs/python.md")
	if err != nil {
		t.Fatal(err)
	}
	says := regexp.MustCompile(`^# (app:\w+)(?:\.(\w+))? of (.+) gives (.+)\n`)
	ran := 0
	for _, block := range regexp.MustCompile("(?s)```python\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		example := says.FindStringSubmatch(block[1])
		if example == nil {
			if !strings.HasPrefix(block[1], "# client\n") {
				t.Errorf("a block says not what it gives: %s", block[1])
			}
			continue
		}
		ran++
		h := start(t, pythons(t)[0], map[string]string{"app.py": block[1]}).ready(example[1], 1)
		h.begin(wire.Call{Method: example[2], ContentType: "application/json"}, example[3])
		got := h.ended()
		if got.fault.Kind != "" {
			data, err := json.Marshal(got.fault)
			if err != nil {
				t.Fatal(err)
			}
			got.body = string(data)
		}
		if got.body != example[4] {
			t.Errorf("%s of %s gave %s, not %s", example[1], example[3], got.body, example[4])
		}
		h.drain()
	}
	if ran < 3 {
		t.Errorf("only %d blocks were found", ran)
	}
}
