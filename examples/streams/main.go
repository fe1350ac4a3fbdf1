// Command streams is a function that yields values while it runs, and one whose input and output are read as they come.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"

	freshet "github.com/freshet-dev/freshet/sdk"
)

func main() {
	app := freshet.New("streams")
	// `freshet call --stream` and client.StreamOf get each word as it comes; a plain call gets all as a JSON array.
	freshet.Generate(app, "words", words)
	// Gigabytes pass in little memory: nothing holds them as a whole.
	freshet.Func(app, "lines", lines)
	app.Main()
}

func words(ctx context.Context, text string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for word := range strings.FieldsSeq(text) {
			// yield is false when nobody wants more: the caller has gone.
			if ctx.Err() != nil || !yield(word, nil) {
				return
			}
		}
	}
}

func lines(_ context.Context, in io.Reader) (io.Reader, error) {
	out, write := io.Pipe()
	go func() { // ends when the output has been read to its end, or is given up
		scanner, number := bufio.NewScanner(in), 0
		for scanner.Scan() {
			number++
			if _, err := fmt.Fprintf(write, "%d %s\n", number, scanner.Text()); err != nil {
				return
			}
		}
		write.CloseWithError(scanner.Err())
	}()
	return out, nil
}
