package hostile

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/sdk/wire"
	"github.com/freshet-dev/freshet/test/hostile/world"
)

// streams is how many hostile streams there are: as many as fit into a minute, or what FRESHET_STREAMS says.
func streams(t *testing.T) int {
	text := os.Getenv("FRESHET_STREAMS")
	if text == "" {
		return 100
	}
	count, err := strconv.Atoi(text)
	must(t, err)
	return count
}

// answered is how a call ended whose result came out of the noise: one changed bit makes it of a value.
const answered wire.Kind = "answered"

// badWelcome is the seed of a guest whose greeting is no greeting, which once left its callers waiting.
const badWelcome = 340

// TestHostileStreams: whatever a guest says, its call ends, with an error that says so unless what it said is a result, and its
// worker ends cleanly.
func TestHostileStreams(t *testing.T) {
	n := newNode(t)
	program := world.Build(t, "frames")
	var mu sync.Mutex
	kinds := make(map[wire.Kind]int)
	t.Run("all", func(t *testing.T) {
		for seed := range max(streams(t), badWelcome+1) {
			if seed >= streams(t) && seed != badWelcome {
				continue
			}
			t.Run(strconv.Itoa(seed), func(t *testing.T) {
				t.Parallel()
				kind := hostile(t, n, program, seed)
				mu.Lock()
				defer mu.Unlock()
				kinds[kind]++
			})
		}
	})
	t.Log(kinds)
	if kinds[wire.KindProtocol] < streams(t)/2 {
		t.Errorf("of %d streams only %d were found to break the protocol: %v", streams(t), kinds[wire.KindProtocol], kinds)
	}
}

// hostile runs one worker for one call.
func hostile(t *testing.T, n *node, program string, seed int) wire.Kind {
	t.Helper()
	job := fmt.Sprintf("hostile.s%d", seed)
	call := n.spawn(t, job, "", "x")
	config := fmt.Sprintf("code = %q\nhandler { type = \"go\" }\ntimeout = \"2s\"\nstartup_timeout = \"5s\"", program)
	task := n.start(t, job, config, func(cfg *drivers.TaskConfig) { cfg.Env["SEED"] = strconv.Itoa(seed) })
	result := n.result(t, call)
	kind := answered
	if result.Error != nil {
		kind = result.Error.Kind
	}
	switch kind {
	case answered, wire.KindProtocol, wire.KindCrash, wire.KindTimeout, wire.KindStart:
	default:
		t.Errorf("seed %d: %v", seed, result.Error)
	}
	end := task.wait(t)
	if end.Err != nil || end.Successful() || end.Signal != 0 {
		t.Errorf("seed %d: the worker ended with %+v", seed, end)
	}
	task.destroy(t)
	return kind
}
