//go:build linux

package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// notRunning is what is said of parts of a cluster that does not run.
const notRunning = "no cluster runs here"

// patience bounds the wait for an answer.
const patience = 5 * time.Second

func natsServer(ctx context.Context, s Setup) (string, error) {
	if s.NATS == "" {
		return notRunning, nil
	}
	address, err := url.Parse(s.NATS)
	if err != nil {
		return "", fmt.Errorf("read the address of NATS: %w", err)
	}
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address.Host)
	if err != nil {
		return "", wrongf("read nats.log in the state directory's logs, then `freshet down` and `freshet up`", "NATS cannot be reached: %v", err)
	}
	defer func() { _ = conn.Close() }() // nothing was sent
	hello := make([]byte, 5)
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", fmt.Errorf("wait for NATS: %w", err)
	}
	if _, err := io.ReadFull(conn, hello); err != nil || string(hello) != "INFO " {
		return "", wrongf("end what listens there, then `freshet down` and `freshet up`", "what answers at %s is no NATS", address.Host)
	}
	return s.NATS, nil
}

// get reads JSON.
func get(ctx context.Context, address, token string, into any) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }() // read as far as wanted
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, fmt.Errorf("%s answered %s", address, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return response.StatusCode, fmt.Errorf("read the answer of %s: %w", address, err)
	}
	return response.StatusCode, nil
}

// driver tells whether Nomad has a node on which the driver is healthy.
func driver(ctx context.Context, s Setup) (string, error) {
	if s.NomadAPI == "" {
		return notRunning, nil
	}
	var nodes []struct {
		Name    string
		Drivers map[string]struct {
			Detected, Healthy bool
			HealthDescription string
		}
	}
	if _, err := get(ctx, s.NomadAPI+"/v1/nodes", "", &nodes); err != nil {
		return "", wrongf("read nomad.log in the state directory's logs; NOMAD_TOKEN must be set where Nomad asks for one", "Nomad does not answer: %v", err)
	}
	ready, why := 0, "none has the driver: is freshet-driver in its plugin_dir, with a plugin block?"
	for _, node := range nodes {
		d, there := node.Drivers["freshet"]
		switch {
		case there && d.Detected && d.Healthy:
			ready++
		case there:
			why = node.Name + ": " + d.HealthDescription
		}
	}
	if ready == 0 {
		return "", wrongf("`nomad node status -self -verbose` and docs/driver.md say more", "of %d nodes none runs functions: %s", len(nodes), why)
	}
	return fmt.Sprintf("healthy on %d of %d nodes", ready, len(nodes)), nil
}

func gateway(ctx context.Context, s Setup) (string, error) {
	if s.Gateway == "" {
		return notRunning, nil
	}
	var functions []json.RawMessage
	status, err := get(ctx, s.Gateway+"/v1/functions", s.Token, &functions)
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return "", wrongf("set FRESHET_TOKEN; `freshet token create` makes one", "it does not take the token")
	case err != nil:
		return "", wrongf("read gateway.log in the state directory's logs; --addr or FRESHET_ADDR names another", "it does not answer: %v", err)
	}
	return fmt.Sprintf("%s, %d functions", s.Gateway, len(functions)), nil
}
