package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/freshet-dev/freshet/internal/local"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/client"
)

// input is what every call carries.
var input = []byte(`{"n":1}`)

// patience bounds every wait.
const patience = time.Minute

// system is a cluster of `freshet up` with the benchmarks' app.
type system struct {
	work, state, bin string
	local            *local.State
	calls            *client.Client
	nomad            *api.Client
}

func startSystem(ctx context.Context, work string) (*system, error) {
	bin, err := filepath.Abs("bin/freshet")
	if err != nil {
		return nil, err
	}
	s := &system{work: work, state: filepath.Join(work, "state"), bin: bin}
	if err := s.freshet(ctx, "up", "--detach", "--state", s.state); err != nil {
		return nil, err
	}
	if s.local, err = local.LoadState(s.state); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	config := api.DefaultConfig()
	config.Address = s.local.Nomad()
	if s.nomad, err = api.NewClient(config); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	s.calls = client.New(s.local.Gateway())
	if err := s.freshet(ctx, "deploy", "bench/guest"); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *system) stop() error {
	return s.freshet(context.Background(), "down", "--state", s.state)
}

func (s *system) freshet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Env = append(os.Environ(), "FRESHET_STATE="+s.state)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("freshet %s: %w: %s", args[0], err, out)
	}
	return nil
}

// post makes a plain HTTP call, as curl does: no SDK, no idempotency key.
func (s *system) post(ctx context.Context, web *http.Client, function string) error {
	return s.postTo(ctx, web, "bench", function)
}

// postTo calls a function of an app.
func (s *system) postTo(ctx context.Context, web *http.Client, app, function string) error {
	address := s.local.Gateway() + "/v1/functions/" + app + "/" + function + "/call"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(input))
	if err != nil {
		return err
	}
	response, err := web.Do(request)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || !bytes.Equal(body, input) {
		return fmt.Errorf("call %s.%s: %s: %s", app, function, response.Status, body)
	}
	return nil
}

// call makes a call through the SDK, with its idempotency key.
func (s *system) call(ctx context.Context, function string, body []byte) (client.Response, time.Duration, error) {
	began := time.Now()
	response, err := s.calls.Do(ctx, client.Request{Function: function, Body: body, ContentType: "application/json"})
	return response, time.Since(began), err
}

func (s *system) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.local.Gateway()+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read only
	return json.NewDecoder(response.Body).Decode(into)
}

// awaitZero waits until a function has no worker and Nomad has no allocation of it that runs.
func (s *system) awaitZero(ctx context.Context, app, function string) error {
	return until(ctx, app+"."+function+" is at zero", func() (bool, error) {
		var view struct{ Count, Workers int }
		if err := s.get(ctx, "/v1/functions/"+app+"/"+function, &view); err != nil {
			return false, err
		}
		if view.Count > 0 || view.Workers > 0 {
			return false, nil
		}
		summary, _, err := s.nomad.Jobs().Summary(app+"."+function, nil)
		if err != nil {
			return false, err
		}
		group := summary.Summary["worker"]
		return group.Running+group.Starting == 0, nil
	})
}

func (s *system) worker(ctx context.Context, alloc string) (queue.Heartbeat, error) {
	var list []queue.Heartbeat
	if err := s.get(ctx, "/v1/workers", &list); err != nil {
		return queue.Heartbeat{}, err
	}
	for _, worker := range list {
		if worker.Alloc == alloc {
			return worker, nil
		}
	}
	return queue.Heartbeat{}, fmt.Errorf("worker %s is not listed", alloc)
}

// until waits for a condition.
func until(ctx context.Context, what string, condition func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		met, err := condition()
		if err != nil || met {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("never: %s", what)
		}
	}
}
