package freshet

import (
	"maps"
	"slices"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Egress opens the way out of the sandbox, to all addresses or to the given CIDRs, each with an optional port, such as
// "10.0.0.0/8:443"; never to the node and the cluster's own services. Default: no network.
func Egress(allow ...string) Option {
	return func(f *function) {
		f.spec.Network.Egress = true
		f.spec.Network.Allow = append(f.spec.Network.Allow, allow...)
	}
}

// DNS names the servers that resolve names in the sandbox. Default: the node's.
func DNS(servers ...string) Option {
	return func(f *function) { f.spec.DNSServers = servers }
}

// DNSSearch are the domains in which short names are looked up, and options of the resolver such as "ndots:2".
func DNSSearch(domains, options []string) Option {
	return func(f *function) { f.spec.DNSSearchDomains, f.spec.DNSOptions = domains, options }
}

// Host adds a name of an address to the sandbox's /etc/hosts.
func Host(name, address string) Option {
	return func(f *function) { f.spec.ExtraHosts = append(f.spec.ExtraHosts, name+":"+address) }
}

// Hostname is the sandbox's. Default "freshet".
func Hostname(name string) Option {
	return func(f *function) { f.spec.Hostname = name }
}

// NetworkMode is "none", "bridge" or, where the node's operator allows it, "host". Default: what [Egress] says.
func NetworkMode(mode string) Option {
	return func(f *function) { f.spec.NetworkMode = mode }
}

// Image is the root file system that the function runs in, an OCI reference such as "debian:12", for programs and libraries that it
// needs beside its own. Default: nothing but the function's program.
func Image(reference string) Option {
	return func(f *function) { f.spec.Image = reference }
}

// ImageAuth logs in to the image's registry; server is "" for the one that the reference names. The job holds the password: better
// have the node's operator configure it.
func ImageAuth(server, username, password string) Option {
	return func(f *function) {
		f.spec.Auth = &spec.Auth{Username: username, Password: password, ServerAddress: server}
	}
}

// ImagePull bounds the pull of the image, and says whether a tag is looked up again when the node has an image of that name.
// Default 5 minutes, and not.
func ImagePull(timeout time.Duration, again bool) Option {
	return func(f *function) { f.spec.ImagePullTimeout, f.spec.ForcePull = spec.Duration(timeout), again }
}

// WorkDir is where the program starts. Default: the image's, or "/".
func WorkDir(path string) Option {
	return func(f *function) { f.spec.WorkDir = path }
}

// User runs the program: a name or number of the image, with an optional ":group", and further groups. Default: the image's.
func User(user string, groups ...string) Option {
	return func(f *function) { f.spec.User, f.spec.GroupAdd = user, groups }
}

// Capabilities are those of the program beside none, such as "net_bind_service".
func Capabilities(names ...string) Option {
	return func(f *function) { f.spec.CapAdd = names }
}

// ReadonlyRoot refuses writes to the root file system; mounts are not concerned.
func ReadonlyRoot() Option {
	return func(f *function) { f.spec.ReadonlyRootfs = true }
}

// Writable says where writes to the root go, [spec.MediumMemory] or [spec.MediumDisk], and bounds them in MB. Default: the worker's
// memory, as much as it has.
func Writable(medium string, mb int) Option {
	return func(f *function) { f.spec.Writable = &spec.Writable{Medium: medium, SizeMB: mb} }
}

// Scratch is a file system in memory at a path, of so many bytes at most; 0 for as much as the worker has.
func Scratch(path string, size int64) Option {
	return func(f *function) {
		mount := spec.Mount{Type: spec.MountTmpfs, Target: path}
		if size > 0 {
			mount.TmpfsOptions = []spec.TmpfsOptions{{Size: size}}
		}
		f.spec.Mounts = append(f.spec.Mounts, mount)
	}
}

// SharedMemory bounds /dev/shm in bytes. Default: the worker's memory.
func SharedMemory(size int64) Option {
	return func(f *function) { f.spec.ShmSize = size }
}

// Processes bounds the processes and threads in the sandbox. Default: the node's bound.
func Processes(most int) Option {
	return func(f *function) { f.spec.PidsLimit = most }
}

// Ulimit sets a resource limit, such as Ulimit("nofile", "1024:2048").
func Ulimit(name, value string) Option {
	return func(f *function) {
		limits := map[string]string{}
		if len(f.spec.Ulimit) > 0 {
			limits = maps.Clone(f.spec.Ulimit[0])
		}
		limits[name] = value
		f.spec.Ulimit = []map[string]string{limits}
	}
}

// CPUHardLimit bounds the processor time to what [CPU] reserves, also when the node has more to give.
func CPUHardLimit() Option {
	return func(f *function) { f.spec.CPUHardLimit = true }
}

// MemoryHardLimit in MB lets a worker use more memory than it reserves, while the node has it.
func MemoryHardLimit(mb int64) Option {
	return func(f *function) { f.spec.MemoryHardLimit = mb }
}

// Ports are labels of ports on the node by which the sandbox is reached.
func Ports(labels ...string) Option {
	return func(f *function) { f.spec.Ports = slices.Clone(labels) }
}
