package spec

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Limits and defaults of a build.
const (
	// DefaultBuildTimeout bounds a build.
	DefaultBuildTimeout = Duration(time.Hour)
	// DefaultBuildDiskMB is how much one step of a build may write to its root.
	DefaultBuildDiskMB = 20 << 10
	// MaxDockerfileBytes bounds the text of a Dockerfile.
	MaxDockerfileBytes = 1 << 20
	// DockerfilePrefix begins the image of a function that `freshet deploy` builds first: a Dockerfile's path follows, from the source's
	// folder on.
	DockerfilePrefix = "dockerfile:"
	// SecretFromEnv begins the source of a build's secret that is a variable of the task's environment.
	SecretFromEnv = "env:"
)

// Build makes a task one that builds an image from a Dockerfile and ends. The image is put into the cluster's blob store.
type Build struct {
	// Context is what COPY and ADD take: "sha256:<hex>" names a tar of the cluster's blob store, a path is a folder in the task's
	// directory, such as "local/src", or one on the node (where the node's operator allows host paths). Default: none.
	Context string `json:"context,omitempty"`
	// Dockerfile is its text. Default: that of File.
	Dockerfile string `json:"dockerfile,omitempty"`
	// File is the Dockerfile's path in the context, and its name in errors. Default "Dockerfile".
	File string `json:"file,omitempty"`
	// Target is the stage to build, by name or number. Default: the last one.
	Target string `json:"target,omitempty"`
	// Args are the values of ARG.
	Args []map[string]string `json:"args,omitempty"`
	// Secrets are what RUN --mount=type=secret takes, by id: each is a file in the task's directory, such as "secrets/token", or
	// "env:NAME", a variable of the task's environment. They get into no layer and no log of freshet's.
	Secrets []map[string]string `json:"secrets,omitempty"`
	// Name is what the image is called in the cluster, such as "web" or "web:1.2". Default: it has only its digest.
	Name string `json:"name,omitempty"`
	// Push also writes the image to a registry under this reference, with the task's auth block or the node's passwords.
	Push string `json:"push,omitempty"`
	// NoCache runs each step again.
	NoCache bool `json:"no_cache,omitempty"`
	// DiskMB is how much one step may write to its root, in MB. Default 20480.
	DiskMB int `json:"disk,omitempty"`
	// Timeout bounds the build, 1s to 24h. Default 1h.
	Timeout Duration `json:"timeout,omitempty"`
}

// WithDefaults returns the build with every unset field at its default.
func (b Build) WithDefaults() Build {
	setDefault(&b.File, "Dockerfile")
	setDefault(&b.DiskMB, DefaultBuildDiskMB)
	setDefault(&b.Timeout, DefaultBuildTimeout)
	return b
}

// ImageNamePattern is what the name of an image in the cluster matches, without its tag.
const ImageNamePattern = `[a-z0-9]+(?:[._-][a-z0-9]+)*(?:/[a-z0-9]+(?:[._-][a-z0-9]+)*)*`

// compiledImageName is immutable.
var compiledImageName = regexp.MustCompile(`^` + ImageNamePattern + `(?::[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*)?$`)

// ValidImageName tells whether an image in the cluster may be called so, with a tag or without.
func ValidImageName(name string) bool { return len(name) <= 128 && compiledImageName.MatchString(name) }

// NamesRegistry tells whether an image's name begins with a registry's host, such as "docker.io/library/debian:12-slim": an image in the
// cluster that is called so stands for the registry's.
func NamesRegistry(name string) bool {
	host, _, found := strings.Cut(name, "/")
	return found && strings.Contains(host, ".")
}

// checkBuild checks a build, and what else stands in its config.
func checkBuild(c *checker, cfg Config) {
	if cfg.Build == nil {
		return
	}
	b := cfg.Build.WithDefaults()
	for _, other := range []struct{ field, value string }{{"image", cfg.Image}, {"code", cfg.Code}, {"command", cfg.Command}} {
		if other.value != "" {
			c.fail(other.field, other.value, "remove it: a task with a build block runs nothing else")
		}
	}
	if cfg.Handler != nil {
		c.fail("handler", cfg.Handler.Type, "remove it: a task with a build block takes no calls")
	}
	if digest, ok := strings.CutPrefix(b.Context, "sha256:"); ok && !validDigest(digest) {
		c.fail("build.context", b.Context, "use \"sha256:\" and 64 lower-case hex digits")
	}
	if b.Context == "" && b.Dockerfile == "" {
		c.fail("build.dockerfile", "", "write the Dockerfile's text, or name a context that holds it")
	}
	if len(b.Dockerfile) > MaxDockerfileBytes {
		c.fail("build.dockerfile", b.Dockerfile[:32]+"…", "use at most %d bytes", MaxDockerfileBytes)
	}
	if !localPath(b.File) {
		c.fail("build.file", b.File, "use a path in the context, such as \"docker/Dockerfile\"")
	}
	if NamesRegistry(b.Name) {
		c.fail("build.name", b.Name, "leave out the registry's host: images that stand for a registry's are named by who runs the cluster (PUT /v1/images)")
	}
	if b.Name != "" && !ValidImageName(b.Name) {
		c.fail("build.name", b.Name, "use lower-case words with '.', '_', '-' or '/' between, and a tag after ':' if there is one, such as \"team/web:1.2\"")
	}
	for _, secrets := range b.Secrets {
		for _, id := range slices.Sorted(maps.Keys(secrets)) {
			source := secrets[id]
			if name, ok := strings.CutPrefix(source, SecretFromEnv); ok && name != "" || !ok && localPath(source) {
				continue
			}
			c.fail("build.secrets."+id, source, "use a file in the task's directory, such as \"secrets/token\", or \"env:NAME\"")
		}
	}
	if b.DiskMB < 1 {
		c.fail("build.disk", b.DiskMB, "use 1 MB or more")
	}
	c.duration("build.timeout", b.Timeout, Duration(time.Second), MaxTimeout)
}

// localPath tells whether a path stays in the directory that it is relative to.
func localPath(name string) bool {
	clean := path.Clean(name)
	return name != "" && !path.IsAbs(name) && clean != ".." && !strings.HasPrefix(clean, "../")
}
