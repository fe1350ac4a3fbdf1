package e2e

import (
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/wire"
)

func TestFromZeroAndBack(t *testing.T) {
	first, err := tell(t, "one", "say", "hello")
	if err != nil || first.Said != "hello" {
		t.Fatalf("got %+v, %v", first, err)
	}
	eventually.True(t, "no worker is left", func() bool {
		v := look(t, "misbehave", "one")
		return v.Count == 0 && v.Workers == 0 && v.Pending == 0
	})
	second, err := tell(t, "one", "say", "hello")
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case second.Loaded != first.Loaded:
		t.Error("the second worker did not thaw: it ran its enter hook again")
	case second.Worker == first.Worker:
		t.Error("the thawed worker has the identity of the frozen one")
	case second.Random == first.Random:
		t.Error("the thawed worker draws the frozen one's random numbers")
	}
	eventually.True(t, "the worker says that it thawed", func() bool { // the answer may come before its next heartbeat
		list := workers(t, "misbehave", "one")
		return len(list) == 1 && list[0].Thawed
	})
}

func TestErrorsSayWhoDidWhat(t *testing.T) {
	for do, test := range map[string]struct {
		kind wire.Kind
		says string
	}{
		"fail":    {wire.KindUser, "*fs.PathError"},
		"panic":   {wire.KindUser, "panic"},
		"nothing": {wire.KindInput, "use say, print"},
		"exit":    {wire.KindCrash, "exited with code 7"},
		"garbage": {wire.KindProtocol, "protocol"},
		"loop":    {wire.KindTimeout, "timeout of 3s"},
	} {
		t.Run(do, func(t *testing.T) {
			_, err := tell(t, "one", do, "with")
			if client.KindOf(err) != test.kind || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %s saying %q", err, test.kind, test.says)
			}
			eventually.True(t, "the call left the queue", func() bool { return look(t, "misbehave", "one").Pending == 0 })
			if answer, err := tell(t, "one", "say", "after"); err != nil || answer.Said != "after" {
				t.Errorf("the next call: %+v, %v", answer, err)
			}
		})
	}
}

// TestNeighboursOfABadCall: what one call does to its worker is not the others' fault. It happens while they run, each time
// that they run beside it, so they are answered only because it runs alone in the end.
func TestNeighboursOfABadCall(t *testing.T) {
	for _, bad := range []string{"exit", "garbage", "loop"} {
		t.Run(bad, func(t *testing.T) {
			var calls sync.WaitGroup
			for range 8 {
				calls.Go(func() {
					if answer, err := tell(t, "many", "sleep", "300ms"); err != nil {
						t.Errorf("a neighbour: %+v, %v", answer, err)
					}
				})
			}
			calls.Go(func() {
				if _, err := tell(t, "many", bad, "200ms"); client.KindOf(err) == "" || client.KindOf(err) == wire.KindUser {
					t.Errorf("the bad call: %v", err)
				}
			})
			calls.Wait()
			eventually.True(t, "the queue is empty", func() bool { return look(t, "misbehave", "many").Pending == 0 })
		})
	}
}

func TestRetriesFollowThePolicy(t *testing.T) {
	if answer, err := tell(t, "retried", "fail-once", "x"); err != nil || answer.Said != "x" {
		t.Errorf("a call that fails once: %+v, %v", answer, err)
	}
	_, err := tell(t, "retried", "fail", "x")
	if client.KindOf(err) != wire.KindUser {
		t.Errorf("a call that always fails: %v", err)
	}
}

func TestFunctionThatDoesNotStartSaysWhy(t *testing.T) {
	_, err := tell(t, "broken", "say", "x")
	if client.KindOf(err) != wire.KindStart || !strings.Contains(err.Error(), "the model file is missing") {
		t.Errorf("got %v", err)
	}
}

func TestLogsAreKeptWithTheirCall(t *testing.T) {
	if _, err := tell(t, "one", "print", "a line to find"); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the three lines are there", func() bool {
		out, err := shared.Freshet("logs", "misbehave.one", "--json")
		return err == nil && strings.Count(out, "a line to find") >= 3
	})
}

func TestShellsAreOfferedTheFunctions(t *testing.T) {
	if out, err := shared.Freshet("__complete", "call", ""); err != nil || !strings.Contains(out, "gosearch.search\n") {
		t.Errorf("got %v %s", err, out)
	}
}

func TestCommandLineSaysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"unknown command":  {[]string{"cal"}, 2, "did you mean call"},
		"no function":      {[]string{"call", "gosearch"}, 2, "APP.FUNCTION"},
		"near function":    {[]string{"call", "gosearch.serch", "{}"}, 3, "did you mean gosearch.search?"},
		"bad input":        {[]string{"call", "gosearch.search", `{"q":1}`}, 3, `"q" is a JSON number: write a string`},
		"no such folder":   {[]string{"deploy", "nowhere"}, 1, "nowhere"},
		"a second cluster": {[]string{"up", "--state", shared.Dir}, 1, "already running"},
		"unknown flag":     {[]string{"ps", "--jsn"}, 2, "--jsn"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := shared.Freshet(test.args...)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != test.code || !strings.Contains(out, test.says) {
				t.Errorf("got %v %q; want exit code %d saying %q", err, out, test.code, test.says)
			}
		})
	}
}
