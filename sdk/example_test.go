package freshet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// Two functions of one app: one that people wait for, and one for work that may take its time.
func Example_scaling() {
	app := freshet.New("llm")
	freshet.Func(app, "generate", generate,
		freshet.GPU(1, "h100", "a100-80gb", freshet.AnyGPU),
		freshet.Priority(80),
		freshet.Scale(0, 50),
		freshet.Warm("30 8 * * 1-5", "Europe/Berlin", 10*time.Hour, 2),
		freshet.ZeroWindow(15*time.Minute),
		freshet.PredictPeriod(24*time.Hour),
	)
	freshet.Func(app, "embed", generate,
		freshet.Priority(20),
		freshet.BacklogTarget(10*time.Minute),
		freshet.StartsPerMinute(20),
	)
	manifest, err := app.Manifest()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range manifest.Functions {
		scaling, _ := json.Marshal(f.Scaling)
		fmt.Println(f.Name, f.Priority, f.Resources.GPUs, f.Resources.GPUKinds, string(scaling))
	}
	// Output:
	// generate 80 1 [h100 a100-80gb any] {"max":50,"zero_window":"15m0s","predict_period":"24h0m0s","schedule":[{"cron":"30 8 * * 1-5","timezone":"Europe/Berlin","for":"10h0m0s","min":2}]}
	// embed 20 0 [] {"backlog_target":"10m0s","starts_per_minute":20}
}

func generate(_ context.Context, prompt string) (string, error) { return prompt, nil }
