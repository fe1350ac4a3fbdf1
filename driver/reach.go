package driver

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/driver/network"
	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// reach is what a task reaches, and how it is reached.
type reach struct {
	network handoff.Network
	// policy wants a namespace of the node's pool with it; nil where none is needed.
	policy *network.Policy
	// ports of the node lead to the task.
	ports []network.Port
	// dns and hosts are what the task's own files say; files are those that need not wait for a namespace.
	dns   drivers.DNSConfig
	hosts []string
	files []handoff.File
}

// own tells whether something of the allocation is in it.
func (r reach) own() bool { return r.network.Namespace != "" || len(r.ports) > 0 }

// reachOf works out the network: the group's where it has one, else the one that the task asks for, else none for handlers and one
// of its own for tasks, as docker gives them.
func reachOf(cfg *drivers.TaskConfig, config spec.Config, hostAllowed bool) (r reach, err error) {
	r.dns = dnsOf(cfg, config)
	if r.ports, err = portsOf(cfg, config); err != nil {
		return r, err
	}
	mode := modeOf(config)
	switch {
	case cfg.NetworkIsolation != nil && cfg.NetworkIsolation.Path != "":
		r.network = handoff.Network{Kind: string(sandbox.NetworkShared), Namespace: cfg.NetworkIsolation.Path}
		r.ports = nil // Nomad leads them to the group's namespace itself
		if hosts := cfg.NetworkIsolation.HostsConfig; hosts != nil {
			r.hosts = append(r.hosts, hosts.Address+" "+hosts.Hostname)
		}
	case mode == spec.NetworkHost && !hostAllowed:
		return r, spec.FieldError{Field: "network_mode", Value: mode, Mend: "this node keeps its own network from tasks: use \"bridge\", or set allow_host_network in the driver's plugin config"}
	case mode == spec.NetworkHost:
		r.network, r.ports = handoff.Network{Kind: string(sandbox.NetworkHost)}, nil
	case mode == spec.NetworkBridge:
		policy, err := network.PolicyFor(spec.Network{Egress: true, Allow: config.Network.Allow})
		if err != nil {
			return r, err
		}
		r.network, r.policy = handoff.Network{Kind: string(sandbox.NetworkOwn)}, &policy
	case len(r.ports) > 0:
		return r, spec.FieldError{Field: "ports", Value: strings.Join(config.Ports, ","), Mend: "a task without a network has no ports: remove them, or network_mode"}
	}
	for _, line := range config.ExtraHosts {
		name, address, _ := strings.Cut(line, ":")
		r.hosts = append(r.hosts, address+" "+name)
	}
	r.files = r.etc(hostname(cfg, config), nil)
	return r, nil
}

func modeOf(config spec.Config) string {
	switch {
	case config.NetworkMode != "":
		return config.NetworkMode
	case config.Network.Egress || config.Handler == nil:
		return spec.NetworkBridge
	}
	return spec.NetworkNone
}

func dnsOf(cfg *drivers.TaskConfig, config spec.Config) drivers.DNSConfig {
	dns := drivers.DNSConfig{Servers: config.DNSServers, Searches: config.DNSSearchDomains, Options: config.DNSOptions}
	if len(dns.Servers) == 0 && cfg.DNS != nil {
		return *cfg.DNS
	}
	return dns
}

// portsOf finds the group's ports by their labels.
func portsOf(cfg *drivers.TaskConfig, config spec.Config) ([]network.Port, error) {
	var all structs.AllocatedPorts
	if cfg.Resources != nil && cfg.Resources.Ports != nil {
		all = *cfg.Resources.Ports
	}
	var ports []network.Port
	for i, label := range config.Ports {
		at := slices.IndexFunc(all, func(m structs.AllocatedPortMapping) bool { return m.Label == label })
		if at < 0 {
			return nil, spec.FieldError{Field: fmt.Sprintf("ports[%d]", i), Value: label, Mend: "name a port of the group's network block"}
		}
		port := network.Port{HostPort: uint16(all[at].Value), Port: uint16(all[at].To)}
		if port.Port == 0 {
			port.Port = port.HostPort
		}
		if all[at].HostIP != "" {
			address, err := netip.ParseAddr(all[at].HostIP)
			if err != nil {
				return nil, fmt.Errorf("read address of port %s: %w", label, err)
			}
			port.HostIP = address
		}
		datagrams := port
		datagrams.UDP = true
		ports = append(ports, port, datagrams) // both, as the docker driver does
	}
	return ports, nil
}

// etc are the files by which the task finds others. resolvers are those of its namespace.
func (r reach) etc(hostname string, resolvers []netip.Addr) []handoff.File {
	if r.network.Kind == "" {
		return nil // the root's own say all that a loopback interface needs
	}
	hosts := []string{"127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"}
	if r.policy != nil && hostname != "" {
		hosts = append(hosts, network.Guest().String()+" "+hostname)
	}
	files := []handoff.File{{Target: "/etc/hosts", Content: strings.Join(append(hosts, r.hosts...), "\n") + "\n"}}
	if hostname != "" {
		files = append(files, handoff.File{Target: "/etc/hostname", Content: hostname + "\n"})
	}
	return append(files, handoff.File{Target: "/etc/resolv.conf", Content: r.resolvConf(resolvers)})
}

// resolvConf is written as resolv.conf(5) says. Where nothing names a server, the node's file is the task's too.
func (r reach) resolvConf(resolvers []netip.Addr) string {
	servers := r.dns.Servers
	if len(servers) == 0 && r.policy == nil {
		if own, err := os.ReadFile("/etc/resolv.conf"); err == nil && len(r.dns.Searches)+len(r.dns.Options) == 0 {
			return string(own)
		}
	}
	if len(servers) == 0 {
		for _, address := range resolvers {
			servers = append(servers, address.String())
		}
	}
	var text strings.Builder
	for _, server := range servers {
		fmt.Fprintf(&text, "nameserver %s\n", server)
	}
	if len(r.dns.Searches) > 0 {
		fmt.Fprintf(&text, "search %s\n", strings.Join(r.dns.Searches, " "))
	}
	if len(r.dns.Options) > 0 {
		fmt.Fprintf(&text, "options %s\n", strings.Join(r.dns.Options, " "))
	}
	return text.String()
}
