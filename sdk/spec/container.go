package spec

// Container describes the process, root and limits of any task, with a handler or without. The names are those of Nomad's docker
// driver, so that a job written for it runs with another driver name alone; docs/driver.md lists what differs.
type Container struct {
	// Image is an OCI reference for the root file system: a registry's ("redis:7", "host/name@sha256:…"), an image that was built in
	// the cluster ("freshet-image://sha256:…", "freshet-image://web:1.2"), or, where the node's
	// operator allows host paths, "docker-archive:/file.tar", "oci-archive:/file.tar" or "oci:/directory". Empty means an empty
	// root with the code alone.
	Image string `json:"image,omitempty"`
	// Auth is how to log in to the image's registry. Default: what the node's operator configured.
	Auth *Auth `json:"auth,omitempty"`
	// ForcePull looks a tag up again although the node has an image of that name.
	ForcePull bool `json:"force_pull,omitempty"`
	// ImagePullTimeout bounds a pull. Default 5m.
	ImagePullTimeout Duration `json:"image_pull_timeout,omitempty"`
	// Entrypoint replaces the image's entry point. Command and Args replace the image's arguments.
	Entrypoint []string `json:"entrypoint,omitempty"`
	Command    string   `json:"command,omitempty"`
	Args       []string `json:"args,omitempty"`
	// WorkDir is where the process starts. Default: the image's.
	WorkDir string `json:"work_dir,omitempty"`
	// Hostname in the sandbox. Default: a part of the allocation's id for tasks, "freshet" for handlers.
	Hostname string `json:"hostname,omitempty"`
	// TTY gives the process a terminal.
	TTY bool `json:"tty,omitempty"`
	// ReadonlyRootfs refuses writes to the root; mounts are not concerned.
	ReadonlyRootfs bool `json:"readonly_rootfs,omitempty"`
	// Writable bounds what the process may write to its root.
	Writable *Writable `json:"writable,omitempty"`
	// CapAdd and CapDrop change the process's capabilities: docker's usual ones for tasks, none for handlers. "all" is understood.
	CapAdd  []string `json:"cap_add,omitempty"`
	CapDrop []string `json:"cap_drop,omitempty"`
	// GroupAdd are further groups of the process, by name or number.
	GroupAdd []string `json:"group_add,omitempty"`
	// PidsLimit bounds the processes and threads in the sandbox. Default: the node's.
	PidsLimit int `json:"pids_limit,omitempty"`
	// ShmSize is the size of /dev/shm in bytes. Default: no bound but the sandbox's memory.
	ShmSize int64 `json:"shm_size,omitempty"`
	// Ulimit are resource limits, "nofile = 1024" or "nofile = 1024:2048" (soft:hard).
	Ulimit []map[string]string `json:"ulimit,omitempty"`
	// CPUHardLimit bounds the processor time to what is reserved, also when the node has more to give.
	CPUHardLimit bool `json:"cpu_hard_limit,omitempty"`
	// MemoryHardLimit in MB lets the task use more memory than it reserves. Default: memory_max, else what it reserves.
	MemoryHardLimit int64 `json:"memory_hard_limit,omitempty"`
	// Ports are labels of the group's ports: each is reachable from the node's port of that label.
	Ports []string `json:"ports,omitempty"`
	// NetworkMode is "none", "bridge" (egress in a network of its own) or "host" (where the node's operator allows it). Default:
	// the group's network, else "none" for handlers and "bridge" for tasks.
	NetworkMode string `json:"network_mode,omitempty"`
	// DNSServers, DNSSearchDomains and DNSOptions fill /etc/resolv.conf. Default: the group's dns block, else the node's.
	DNSServers       []string `json:"dns_servers,omitempty"`
	DNSSearchDomains []string `json:"dns_search_domains,omitempty"`
	DNSOptions       []string `json:"dns_options,omitempty"`
	// ExtraHosts are lines of /etc/hosts, "name:address".
	ExtraHosts []string `json:"extra_hosts,omitempty"`
	// Mounts are directories and files that the process sees beside its root.
	Mounts []Mount `json:"mount,omitempty"`
	// Volumes are mounts in docker's short form, "source:/target" or "source:/target:ro".
	Volumes []string `json:"volumes,omitempty"`

	// What follows is accepted, so that a job need not be edited, and means nothing here: the sandbox has its own init, logs are
	// Nomad's, and nobody reads labels.
	Interactive bool                `json:"interactive,omitempty"`
	Init        bool                `json:"init,omitempty"`
	Labels      []map[string]string `json:"labels,omitempty"`
	Logging     []map[string]any    `json:"logging,omitempty"`
}

// Auth logs in to a registry.
type Auth struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// ServerAddress is the registry that these are for. Default: the image's.
	ServerAddress string `json:"server_address,omitempty"`
}

// The places where writes to a root may go.
const (
	// MediumMemory keeps them in the sandbox's memory, which counts against its limit: the fastest, and the default.
	MediumMemory = "memory"
	// MediumDisk keeps them in a file on the node.
	MediumDisk = "disk"
)

// Writable bounds what a process may write to its root.
type Writable struct {
	// Medium is MediumMemory or MediumDisk. Default: memory for handlers, disk for tasks.
	Medium string `json:"medium,omitempty"`
	// SizeMB bounds it, in MB. Default: 1024 on disk; the task's memory in memory.
	SizeMB int `json:"size,omitempty"`
}

// The kinds of mount.
const (
	MountBind  = "bind"
	MountTmpfs = "tmpfs"
)

// Mount is a directory or file that the process sees.
type Mount struct {
	// Type is MountBind (default) or MountTmpfs.
	Type string `json:"type,omitempty"`
	// Source is a path in the task's directory, such as "local/conf", or an absolute path on the node (where the node's operator
	// allows host paths). A tmpfs has none.
	Source string `json:"source,omitempty"`
	// Target is an absolute path in the sandbox.
	Target string `json:"target"`
	// Readonly refuses writes. A function that is frozen needs it: a snapshot cannot depend on what others may write.
	Readonly bool `json:"readonly,omitempty"`
	// TmpfsOptions bound a tmpfs; at most one.
	TmpfsOptions []TmpfsOptions `json:"tmpfs_options,omitempty"`
}

// TmpfsOptions bound a tmpfs.
type TmpfsOptions struct {
	// Size in bytes. Default: the task's memory.
	Size int64 `json:"size,omitempty"`
	// Mode of its root, such as 0o1777.
	Mode int64 `json:"mode,omitempty"`
}
