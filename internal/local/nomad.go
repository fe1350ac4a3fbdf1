package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"text/template"
)

// nomadConfig is the agent's configuration: a server and a client in one, found on loopback only. The fingerprinters that
// ask a cloud's metadata service would each wait for a timeout, so they are off.
const nomadConfig = `# Written by freshet up; changes are lost at its next start.
name                 = "freshet"
data_dir             = {{printf "%q" .DataDir}}
plugin_dir           = {{printf "%q" .PluginDir}}
bind_addr            = "127.0.0.1"
disable_update_check = true
log_level            = "INFO"

advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}

ports {
  http = {{.Ports.NomadHTTP}}
  rpc  = {{.Ports.NomadRPC}}
  serf = {{.Ports.NomadSerf}}
}

server {
  enabled          = true
  bootstrap_expect = 1
  raft_multiplier  = 1
  # Old evaluations and allocations of functions that scale all day.
  eval_gc_threshold = "10m"
}

client {
  enabled           = true
  network_interface = "lo"
  max_kill_timeout  = "24h"
  gc_max_allocs     = 200
  options {
    "driver.allowlist"     = "freshet,mock_driver"
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault,bridge,cni"
  }
}

consul {
  auto_advertise   = false
  server_auto_join = false
  client_auto_join = false
}

telemetry {
  prometheus_metrics = true
  disable_hostname   = true
}

plugin "freshet-driver" {
  config {
    data_dir         = {{printf "%q" .DriverDir}}
    runsc            = {{printf "%q" .Runsc}}
    worker           = {{printf "%q" .Worker}}
    blobs            = {{printf "%q" .Blobs}}
    volumes          = {{printf "%q" .Volumes}}
    allow_host_paths = true
    cgroup_parent    = {{printf "%q" .CgroupParent}}
    ahead {
      memory_mb = {{.AheadMB}}
    }
    nomad {
      address = "http://127.0.0.1:{{.Ports.NomadHTTP}}"
    }
    gateway {
      url   = {{printf "%q" .Gateway}}
      token = {{printf "%q" .Token}}
    }
    nats {
      url      = {{printf "%q" .NATS}}
      user     = "worker"
      password = {{printf "%q" .Password}}
    }
  }
}
`

type nomadValues struct {
	Ports                                                                                        Ports
	DataDir, PluginDir, DriverDir, Runsc, Worker, Blobs, Volumes, NATS, Password, Gateway, Token string
	// CgroupParent keeps the tasks of this state directory apart from those of others on the machine.
	CgroupParent string
	AheadMB      int
}

// aheadMB is what sandboxes made ahead may take of one's own machine.
const aheadMB = 1024

func renderNomad(values nomadValues) ([]byte, error) {
	parsed, err := template.New("nomad").Parse(nomadConfig)
	if err != nil {
		return nil, fmt.Errorf("parse nomad config: %w", err)
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, values); err != nil {
		return nil, fmt.Errorf("render nomad config: %w", err)
	}
	return out.Bytes(), nil
}

// writeNomadConfig writes the agent's configuration, with the driver alone in the plugin directory: Nomad starts whatever
// is executable there.
func (s *State) writeNomadConfig(programs Programs, role string) (string, error) {
	pluginDir := s.path("plugins")
	if err := os.MkdirAll(pluginDir, 0o700); err != nil {
		return "", fmt.Errorf("make plugin directory: %w", err)
	}
	if err := replaceLink(programs.Driver, s.path("plugins", "freshet-driver")); err != nil {
		return "", err
	}
	config, err := renderNomad(nomadValues{
		Ports: s.Ports, DataDir: s.path("nomad"), PluginDir: pluginDir, DriverDir: s.DriverDir(),
		Runsc: programs.Runsc, Worker: programs.Worker, Blobs: s.Blobs(), Volumes: s.Volumes(), NATS: s.NATS(), Password: role, Gateway: s.Gateway(), Token: s.Token,
		CgroupParent: s.cgroupParent(), AheadMB: aheadMB,
	})
	if err != nil {
		return "", err
	}
	path := s.path("nomad.hcl")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return "", fmt.Errorf("write nomad config: %w", err)
	}
	return path, nil
}

// cgroupParent is named after the state directory, so that several clusters on a machine do not clear up after each other.
func (s *State) cgroupParent() string {
	sum := sha256.Sum256([]byte(s.dir))
	return "freshet-" + hex.EncodeToString(sum[:4])
}

func replaceLink(target, link string) error {
	if err := os.RemoveAll(link); err != nil {
		return fmt.Errorf("replace link: %w", err)
	}
	if err := os.Symlink(target, link); err != nil {
		return fmt.Errorf("replace link: %w", err)
	}
	return nil
}
