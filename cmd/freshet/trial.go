package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/queue"
)

const (
	// takeDown bounds the deletion of an app that was tried out. tornAgain is the pause between tries while the gateway does not see yet
	// what a deploy that was cut off left, for at most tornLimit.
	takeDown  = 15 * time.Second
	tornAgain = 200 * time.Millisecond
	tornLimit = 2 * time.Second
	// trialDrain is what calls get to end in when their app is deployed again or removed.
	trialDrain = 5 * time.Second
	// maxName is the longest name of an app.
	maxName = 63
	// quiet is how long a log says nothing before all that a call wrote has come.
	quiet = 150 * time.Millisecond
)

// trial is an app that is deployed under a name of its own, tried out, and deleted.
type trial struct {
	api       apiClient
	namespace string
	// name is the app's own; empty until a deploy has been tried.
	name string
	// torn says that the last deploy failed half-way.
	torn bool

	logs     sync.WaitGroup
	stopLogs context.CancelFunc
	mu       sync.Mutex // guards out and last
	out      io.Writer
	last     time.Time
}

func newTrial(api apiClient, namespace string, out io.Writer) *trial {
	return &trial{api: api, namespace: namespace, out: out, stopLogs: func() {}}
}

// deploy deploys the source under the name that rename makes of the app's, which must be free the first time.
func (t *trial) deploy(ctx context.Context, source string, o deployOptions, rename func(app string) string) (deployed, error) {
	o.trial = func(app string) (string, error) {
		name := rename(app)
		if t.name == "" {
			if err := t.free(ctx, name); err != nil {
				return "", err
			}
		}
		t.name, t.torn = name, true // from here on there may be something to delete
		return name, nil
	}
	answer, err := deploy(ctx, t.api, source, o)
	t.torn = t.torn && err != nil
	return answer, err
}

// free refuses the name of an app that there is.
func (t *trial) free(ctx context.Context, name string) error {
	var functions []functionRow
	if err := t.api.get(ctx, "/v1/functions", url.Values{"namespace": {t.namespace}}, &functions); err != nil {
		return err
	}
	for _, f := range functions {
		if f.App == name {
			return fmt.Errorf("app %s: the name is taken: use another with --as, or remove that app with `freshet delete %[1]s`", name)
		}
	}
	return nil
}

// randomName is a name for one run of an app.
func randomName(app string) string {
	suffix := "-run-" + strings.ToLower(rand.Text()[:8])
	return app[:min(len(app), maxName-len(suffix))] + suffix
}

// follow prints what functions and their workers write, until the trial ends.
func (t *trial) follow(ctx context.Context, functions []string, since time.Duration) error {
	ctx, t.stopLogs = context.WithCancel(ctx)
	for _, function := range functions {
		query := url.Values{"namespace": {t.namespace}, "since": {since.String()}, "follow": {"true"}}
		response, err := t.api.do(ctx, http.MethodGet, logsPath(t.name, function), query, nil)
		if err != nil {
			return fmt.Errorf("follow the logs of %s: %w", function, err)
		}
		prefix := ""
		if len(functions) > 1 {
			prefix = function + " "
		}
		t.logs.Go(func() {
			defer func() { _ = response.Body.Close() }() // read only
			if err := readRecords(ctx, response.Body, func(record queue.LogRecord) error { return t.print(prefix, record) }); err != nil {
				t.say("%v", err)
			}
		})
	}
	return nil
}

func (t *trial) print(prefix string, record queue.LogRecord) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = time.Now()
	_, err := fmt.Fprintf(t.out, "%s %s%s\n", record.Time.Local().Format("15:04:05.000"), prefix, record.Text)
	return err
}

// say prints a line of this program's own, between those of the logs.
func (t *trial) say(format string, values ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, format+"\n", values...)
}

// drain waits until the logs say nothing more.
func (t *trial) drain(ctx context.Context) {
	began := time.Now()
	for {
		t.mu.Lock()
		left := quiet - time.Since(later(began, t.last))
		t.mu.Unlock()
		if left <= 0 {
			return
		}
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// end stops the logs and deletes the app, also after the context has ended.
func (t *trial) end(ctx context.Context) error {
	t.stopLogs()
	t.logs.Wait()
	if t.name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), takeDown, errors.New("it took too long"))
	defer cancel()
	_, err := deleteApp(ctx, t.api, t.namespace, t.name)
	for began := time.Now(); t.torn && notFound(err) && time.Since(began) < tornLimit; {
		<-time.After(tornAgain)
		_, err = deleteApp(ctx, t.api, t.namespace, t.name)
	}
	if err != nil && !notFound(err) {
		return fmt.Errorf("remove %s: %w: remove it with `freshet delete %[1]s`", t.name, err)
	}
	return nil
}

// functionsOf are the names of what was deployed.
func functionsOf(answer deployed) []string {
	var names []string
	for _, f := range answer.Functions {
		names = append(names, f.Function)
	}
	return names
}

// pick finds the function that is meant: the one named, else the only one.
func pick(cmd *cobra.Command, names []string, named string) (string, error) {
	switch {
	case named == "" && len(names) == 1:
		return names[0], nil
	case named == "":
		return "", usagef(cmd, "the app has %d functions: name one of them: %s", len(names), strings.Join(names, ", "))
	}
	for _, name := range names {
		if name == named {
			return name, nil
		}
	}
	return "", usagef(cmd, "the app has no function %q: it has %s", named, strings.Join(names, ", "))
}
