// Command batching takes calls together, as models on GPUs like it: each caller sends one text, the code gets up to 32.
package main

import (
	"context"
	"fmt"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// Answer is a caller's own.
type Answer struct {
	Length int
	Batch  int // how many were in it
}

func main() {
	app := freshet.New("batching")
	// The first call of a batch waits 50 ms for others. Every call keeps its own result, retries and cancellation.
	freshet.Batched(app, "measure", 32, 50*time.Millisecond, measure)
	app.Main()
}

func measure(_ context.Context, texts []string) ([]Answer, error) {
	answers := make([]Answer, len(texts))
	errs := make(freshet.ItemErrors, len(texts))
	for i, text := range texts {
		if text == "" {
			errs[i] = fmt.Errorf("nothing to measure") // of this call alone; an error in place of ItemErrors is every call's
			continue
		}
		answers[i] = Answer{Length: len(text), Batch: len(texts)}
	}
	return answers, errs
}
