// Command gpu is a function that wants a GPU, the best there is, beside one that needs none.
package main

import (
	"context"
	"fmt"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

func main() {
	app := freshet.New("gpu")
	freshet.Func(app, "generate", generate,
		freshet.GPU(1, "h100", "a100-80gb", freshet.AnyGPU), // where no node has the first to spare, the next
		freshet.MemoryMB(8192), freshet.CPU(2000),
		freshet.Enter(load), freshet.SnapshotGPU(), // frozen with what is in the GPU's memory
		freshet.Scale(0, 50), freshet.ZeroWindow(15*time.Minute), // a GPU is kept for a while
		freshet.Priority(80),
	)
	freshet.Func(app, "fits", fits)
	app.Main()
}

// load is where weights go into the GPU's memory, by a library of yours.
func load(ctx context.Context) error {
	freshet.Logger(ctx).Info("loading the weights")
	return nil
}

func generate(_ context.Context, prompt string) (string, error) { return prompt + " and so on", nil }

// Model is what somebody wants to run.
type Model struct{ Billions, Bits int }

// fits says which of the GPUs above holds a model: it runs anywhere, so that nobody waits for a GPU to know.
func fits(_ context.Context, m Model) (string, error) {
	need := m.Billions*m.Bits/8 + 4 // GB, with room for what a request needs
	if need > 80 {
		return "", freshet.InputError("it needs %d GB: no single GPU has them", need)
	}
	return fmt.Sprintf("%d GB: an h100 or a100-80gb", need), nil
}
