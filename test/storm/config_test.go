package storm

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/freshet-dev/freshet/internal/queue"
)

const (
	// password is that of all NATS users, of which there is one for each role and the watcher, who may do everything.
	password = "storm"
	watcher  = "watcher"
)

// natsConfig is a NATS server's, as an operator would write it.
func natsConfig(i int, dir string) string {
	var routes, users []string
	for other := range replicas {
		routes = append(routes, fmt.Sprintf("nats-route://%s:6222", natsAddress(other)))
	}
	for _, role := range []queue.Role{queue.RoleGateway, queue.RoleAutoscaler, queue.RoleWorker} {
		allowed := role.Permissions()
		users = append(users, fmt.Sprintf("{user: %s, password: %s, permissions: {publish: [%s], subscribe: [%s]}}",
			role, password, quoted(allowed.Publish), quoted(allowed.Subscribe)))
	}
	users = append(users, fmt.Sprintf("{user: %s, password: %s}", watcher, password))
	return fmt.Sprintf(`
server_name: nats%d
listen: %[2]s:4222
http: %[2]s:8222
jetstream { store_dir: %[3]q }
max_payload: %[4]d
max_pending: 256MB
write_deadline: 30s
cluster { name: storm, listen: %[2]s:6222, routes: [%[5]s] }
authorization { users: [
%[6]s
] }
`, i, natsAddress(i), dir, queue.MaxMessage, strings.Join(routes, ", "), strings.Join(users, "\n"))
}

func quoted(subjects []string) string {
	all := make([]string, len(subjects))
	for i, s := range subjects {
		all[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(all, ", ")
}

// serverConfig is that of Nomad's server. It notices soon that a node is gone.
func serverConfig(dir string) string {
	return fmt.Sprintf(`
name                 = "server"
data_dir             = %q
bind_addr            = %q
disable_update_check = true
server {
  enabled           = true
  bootstrap_expect  = 1
  raft_multiplier   = 1
  min_heartbeat_ttl = "2s"
  heartbeat_grace   = "1s"
}
`, dir, bridgeAddress)
}

// nodeConfig is that of a node's agent.
func nodeConfig(n *node, bin, runsc, blobs string) string {
	return fmt.Sprintf(`
name                 = %q
data_dir             = %q
plugin_dir           = %q
bind_addr            = %q
disable_update_check = true
client {
  enabled           = true
  network_interface = "uplink"
  servers           = ["%s:4647"]
  max_kill_timeout  = "1h"
  cgroup_parent     = %q
  options {
    "driver.allowlist"     = "freshet"
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault,bridge,cni"
  }
}
plugin "freshet-driver" {
  config {
    data_dir         = %q
    runsc            = %q
    worker           = %q
    blobs            = %q
    allow_host_paths = true
    cgroup_parent    = %q
    orphan_grace     = "5s"
    ahead { memory_mb = 512 }
    nats {
      url      = %q
      user     = "worker"
      password = %q
    }
  }
}
`, n.name, filepath.Join(n.dir, "nomad"), filepath.Join(n.dir, "plugins"), n.address, bridgeAddress, "/"+n.groups+"-nomad",
		filepath.Join(n.dir, "driver"), runsc, filepath.Join(bin, "freshet-worker"), "file://"+blobs, n.groups, natsURL(), password)
}
