// Command queries writes queries.ndjson: a line for each public symbol of the Go standard library, alternately its name and
// the words of its name, as people search. It is run by go generate.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"unicode"

	"github.com/freshet-dev/freshet/examples/gosearch/index"
)

// most is how many queries are written.
const most = 10_000

func main() {
	if err := write(context.Background(), "queries.ndjson"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(ctx context.Context, path string) error {
	root, err := index.GOROOT(ctx)
	if err != nil {
		return err
	}
	built, err := index.Build(ctx, root)
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(file)
	encoder := json.NewEncoder(out)
	seen := make(map[string]bool)
	for i, name := range built.Names() {
		query := name
		if i%2 == 1 {
			query = spaced(name)
		}
		if seen[query] {
			continue
		}
		seen[query] = true
		if err := encoder.Encode(map[string]string{"q": query}); err != nil {
			return err
		}
		if len(seen) == most {
			break
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return file.Close()
}

// spaced turns strings.Builder.WriteString into "strings builder write string".
func spaced(name string) string {
	var words strings.Builder
	var last rune
	for _, r := range name {
		switch {
		case r == '.':
			words.WriteByte(' ')
		case unicode.IsUpper(r) && unicode.IsLower(last):
			words.WriteByte(' ')
			words.WriteRune(unicode.ToLower(r))
		default:
			words.WriteRune(unicode.ToLower(r))
		}
		last = r
	}
	return words.String()
}
