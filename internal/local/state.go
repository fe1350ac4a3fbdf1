// Package local runs a whole freshet on one machine: NATS, a Nomad agent, gateway and autoscaler, each its own process as
// in production, under one state directory.
package local

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/freshet-dev/freshet/internal/queue"
)

// Ports are where the components listen, all on 127.0.0.1.
type Ports struct {
	Gateway    int `json:"gateway"`
	Autoscaler int `json:"autoscaler"`
	NATS       int `json:"nats"`
	NomadHTTP  int `json:"nomad_http"`
	NomadRPC   int `json:"nomad_rpc"`
	NomadSerf  int `json:"nomad_serf"`
}

// DefaultPorts are the usual ones of each component; Choose moves on where one is taken.
func DefaultPorts() Ports {
	return Ports{Gateway: 8600, Autoscaler: 8601, NATS: 4222, NomadHTTP: 4646, NomadRPC: 4647, NomadSerf: 4648}
}

func (p *Ports) all() []*int {
	return []*int{&p.Gateway, &p.Autoscaler, &p.NATS, &p.NomadHTTP, &p.NomadRPC, &p.NomadSerf}
}

// State is what a second start must find again. It is kept in the state directory, readable by its owner only.
type State struct {
	dir string

	Ports Ports `json:"ports"`
	// Passwords of the NATS users, by role.
	Passwords map[queue.Role]string `json:"passwords"`
	// Token is the gateway's first one, which may do everything.
	Token string `json:"token"`
	// CallbackSecret signs what the gateway tells callers.
	CallbackSecret string `json:"callback_secret"`
	// Auth has the gateway ask for tokens, as long as this cluster runs.
	Auth bool `json:"-"`
	// Domain is what host names of functions end in, and TLS the address that they are served at with it, if any; as long as this
	// cluster runs.
	Domain string `json:"-"`
	TLS    string `json:"-"`
}

const stateFile = "up.json"

// LoadState reads the state directory's state; os.ErrNotExist when there was no start yet.
func LoadState(dir string) (*State, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	state := &State{dir: dir}
	if err := json.Unmarshal(data, state); err != nil {
		return nil, fmt.Errorf("read state %s: %w: remove the directory to start anew", filepath.Join(dir, stateFile), err)
	}
	return state, nil
}

// OpenState reads the state or makes a new one with passwords and free ports.
func OpenState(dir string) (*State, error) {
	state, err := LoadState(dir)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return state, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	state = &State{dir: dir, Ports: DefaultPorts(), Passwords: make(map[queue.Role]string)}
	for _, role := range []queue.Role{queue.RoleGateway, queue.RoleAutoscaler, queue.RoleWorker} {
		state.Passwords[role] = rand.Text()
	}
	state.Token, state.CallbackSecret = "frt_root_"+rand.Text(), rand.Text()
	if err := state.choosePorts(); err != nil {
		return nil, err
	}
	return state, state.save()
}

// choosePorts keeps each default that is free and takes any free port for the others.
func (s *State) choosePorts() error {
	for _, port := range s.Ports.all() {
		if free(*port) {
			continue
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
		*port = listener.Addr().(*net.TCPAddr).Port
		if err := listener.Close(); err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
	}
	return nil
}

// checkPorts says which of the ports, chosen at the first start, somebody else uses by now.
func (s *State) checkPorts() error {
	for _, port := range s.Ports.all() {
		if !free(*port) {
			return fmt.Errorf("port %d is in use by another process: stop it, or change the port in %s", *port, s.path(stateFile))
		}
	}
	return nil
}

func free(port int) bool {
	listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

func (s *State) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	path := filepath.Join(s.dir, stateFile)
	if err := os.WriteFile(path+".part", data, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func (s *State) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func url(scheme string, port int) string { return scheme + "://127.0.0.1:" + strconv.Itoa(port) }

// Gateway is the gateway's address.
func (s *State) Gateway() string { return url("http", s.Ports.Gateway) }

// Autoscaler is the address of the autoscaler's health and metrics.
func (s *State) Autoscaler() string { return url("http", s.Ports.Autoscaler) }

// Nomad is the agent's address.
func (s *State) Nomad() string { return url("http", s.Ports.NomadHTTP) }

// NATS is the server's address.
func (s *State) NATS() string { return url("nats", s.Ports.NATS) }

// Blobs is the blob store's URL.
func (s *State) Blobs() string { return "file://" + s.path("blobs") }

// Volumes is the directory of the volumes.
func (s *State) Volumes() string { return s.path("volumes") }

// DriverDir is the driver's data directory.
func (s *State) DriverDir() string { return s.path("driver") }
