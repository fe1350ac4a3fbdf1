package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// What a Config leaves out.
const (
	// DefaultMaxBytes is how much disk the layers of images may take.
	DefaultMaxBytes = 100 << 30
	// DefaultMaxAge is how long an image is kept that nobody uses.
	DefaultMaxAge = 14 * 24 * time.Hour
	// DefaultTagTTL is how long a tag is taken to mean what it meant.
	DefaultTagTTL = time.Hour
)

// partPrefix begins the names of what is not yet whole.
const partPrefix = ".part-"

// Config describes a store of images.
type Config struct {
	// Dir is the store's directory. It must be on a file system with extended attributes, which overlayfs can lie on.
	Dir string
	// MaxBytes bounds the disk that unpacked layers take: beyond it Collect removes images that nobody uses, and a layer that
	// is larger by itself is refused. Default DefaultMaxBytes.
	MaxBytes int64
	// MaxAge is how long an image is kept after its last use. Default DefaultMaxAge.
	MaxAge time.Duration
	// TagTTL is how long a tag is taken to mean what it meant before the registry is asked again. Default DefaultTagTTL.
	TagTTL time.Duration
	// Mirrors are asked before a registry, in turn, by the registry's host; each is a host or a host and a path, such as
	// mirror.example:5000/hub. They see neither the task's nor the registry's password, only their own of DockerConfig.
	Mirrors map[string][]string
	// Insecure are the registries, as host or host:port, that are spoken to by plain HTTP where they have no HTTPS.
	Insecure []string
	// Blobs is the cluster's store, where images of builds are; it stays the caller's. Nil: there are none.
	Blobs *blobs.Store `json:"-"`
	// DockerConfig is the path of a config.json as `docker login` writes it; its helpers are asked too. Default none.
	DockerConfig string
}

// Store keeps the images of a node: each layer unpacked once, named by its content, and shared by all images and workers. All
// processes of the node may use one directory at the same time.
type Store struct {
	config    Config
	log       zerolog.Logger
	transport *http.Transport
	// work bounds the layers that are fetched and unpacked at once, over all images.
	work *semaphore.Weighted

	locks  locks
	layers layerStore
	known  catalogue
	roots  roots
	// holds is the directory of the tasks' holds, trash that of what is on its way out.
	holds, trash string
}

// OpenStore opens the store and makes its directories. Close it.
func OpenStore(config Config, log zerolog.Logger) (*Store, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second, ResponseHeaderTimeout: time.Minute,
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s := &Store{config: config, log: log, transport: transport, work: semaphore.NewWeighted(int64(parallel()))}
	s.locks, s.holds, s.trash = locks(filepath.Join(config.Dir, "locks")), filepath.Join(config.Dir, "holds"), filepath.Join(config.Dir, "trash")
	s.layers = layerStore{
		dir: filepath.Join(config.Dir, "layers"), trash: s.trash, locks: s.locks, boot: strings.TrimSpace(string(boot)), most: config.MaxBytes,
	}
	s.known = catalogue{images: filepath.Join(config.Dir, "images"), refs: filepath.Join(config.Dir, "refs"), ttl: config.TagTTL}
	s.roots = roots{dir: filepath.Join(config.Dir, "mounts"), locks: s.locks}
	for _, dir := range []string{string(s.locks), s.holds, s.trash, s.layers.dir, s.known.images, s.known.refs, s.roots.dir} {
		// Layers hold set-user-ID programs: none of the node's users may reach them.
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	return s, nil
}

// parallel is how many layers are fetched and unpacked at once: enough to keep a slow registry busy on a small machine.
func parallel() int { return max(4, runtime.NumCPU()) }

// complete sets what was left out and checks the rest.
func (c *Config) complete() error {
	if !filepath.IsAbs(c.Dir) {
		return spec.FieldError{Field: "images.dir", Value: c.Dir, Mend: "use an absolute path"}
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.MaxAge <= 0 {
		c.MaxAge = DefaultMaxAge
	}
	if c.TagTTL <= 0 {
		c.TagTTL = DefaultTagTTL
	}
	for _, host := range c.Insecure {
		if _, err := name.NewRegistry(host, name.StrictValidation); err != nil {
			return spec.FieldError{Field: "images.insecure", Value: host, Mend: "use host or host:port"}
		}
	}
	mirrors := make(map[string][]string, len(c.Mirrors))
	for host, list := range c.Mirrors {
		if _, err := name.NewRegistry(registryName(host), name.StrictValidation); err != nil {
			return spec.FieldError{Field: "images.mirrors", Value: host, Mend: "use the registry's host or host:port"}
		}
		for _, mirror := range list {
			if _, err := mirrored(mirror, "library/image"); err != nil {
				return spec.FieldError{Field: fmt.Sprintf("images.mirrors[%q]", host), Value: mirror, Mend: "use host[:port][/path]"}
			}
		}
		mirrors[registryName(host)] = list
	}
	c.Mirrors = mirrors
	if c.DockerConfig == "" {
		return nil
	}
	if _, err := loadDockerConfig(c.DockerConfig); err != nil {
		return fmt.Errorf("images.docker_config: %w", err)
	}
	return nil
}

// Close lets go of the connections to registries. Mounts and holds stay: workers outlive the process.
func (s *Store) Close() { s.transport.CloseIdleConnections() }

// Request asks for an image.
type Request struct {
	// Task will use the image, which is kept until Release. Needed.
	Task string
	// Reference names the image: registry.example/app:1.2, …@sha256:…, freshet-image://sha256:…, or, on this node,
	// docker-archive:/path.tar[:tag], oci-archive:/path.tar[:tag] or oci:/path[:tag]. Whether the node's files may be named is for the caller to check (HostPath).
	Reference string
	// Auth is the task's own; it is used for the registry of the reference, or the one it names. Default: DockerConfig's.
	Auth Auth
	// Force asks the registry what the tag means now, and fails when it does not answer.
	Force bool
	// Progress is told how far the pull is, from one goroutine at a time; not at all when everything is there.
	Progress func(Progress)
}

// Image is an image that is ready to start from.
type Image struct {
	// Digest is "sha256:…" of the manifest for this platform; of the config for archives of Docker.
	Digest string
	// Content is the digest of all that the root holds, in hex: images that differ in their config only have the same.
	Content string
	// Root is the root on the host, mounted read-only and shared by all workers.
	Root string
	// Defaults are the image's word on how to run it.
	Defaults Defaults

	layers []layer
}

// Defaults are what an image's config says about running it, as in the OCI image specification.
type Defaults struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	// Env is NAME=value each.
	Env        []string `json:"env,omitempty"`
	User       string   `json:"user,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
	// Volumes are directories to be written to, ExposedPorts such as "80/tcp"; both sorted.
	Volumes      []string `json:"volumes,omitempty"`
	ExposedPorts []string `json:"exposed_ports,omitempty"`
	StopSignal   string   `json:"stop_signal,omitempty"`
}

// Image makes the image ready and holds it for the task. Where everything is there it takes well under a millisecond and asks
// nobody. Otherwise it pulls what is missing, for as long as the context lasts; what is whole by then stays. An error about a
// reference is a spec.FieldError; after any error the task holds what it held before.
func (s *Store) Image(ctx context.Context, req Request) (*Image, error) {
	if req.Task == "" {
		return nil, errors.New("get image: no task to hold it for")
	}
	ref, err := parseReference(req.Reference)
	if err != nil {
		return nil, err
	}
	img, err := s.image(ctx, ref, req)
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("the disk of %s is full, free some of it or lower images.max_bytes: %w", s.config.Dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("get image %s: %w", req.Reference, err)
	}
	return img, nil
}

func (s *Store) image(ctx context.Context, ref reference, req Request) (_ *Image, err error) {
	sources := s.sources(ref, req.Auth)
	rec, err := s.meaning(ctx, ref, req.Force, sources)
	if err != nil {
		return nil, err
	}
	held, err := s.hold(ctx, req.Task, rec)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			held.undo()
		}
	}()
	if err := s.pull(ctx, rec, sources, req.Progress); err != nil {
		return nil, err
	}
	root, err := s.roots.mount(ctx, rec, &s.layers)
	if err != nil {
		return nil, err
	}
	return newImage(rec, root), nil
}

// meaning finds what the reference means: from what is known, or by asking where it leads.
func (s *Store) meaning(ctx context.Context, ref reference, force bool, sources []source) (record, error) {
	known, fresh, found := s.known.resolved(ref)
	if found && fresh && !force {
		return known, nil
	}
	rec, err := s.ask(ctx, ref, force, sources)
	switch {
	case err == nil:
		return rec, nil
	case found && !force && !ref.onNode() && ctx.Err() == nil:
		s.log.Warn().Err(err).Stringer("image", ref).Msg("registry does not say what the tag means now: using what it meant")
		return known, nil
	}
	return record{}, err
}

func refLock(name string) string { return "ref-" + name }

// ask asks the sources in turn. Those who ask for the same reference at the same time ask once.
func (s *Store) ask(ctx context.Context, ref reference, force bool, sources []source) (record, error) {
	lock, err := s.locks.lock(ctx, refLock(hexDigest([]byte(ref.String()))), unix.LOCK_EX)
	if err != nil {
		return record{}, err
	}
	defer func() { _ = lock.Close() }() // a lock file holds no data
	if known, fresh, _ := s.known.resolved(ref); fresh && !force {
		return known, nil
	}
	var state string
	if ref.onNode() {
		if state, err = stateOf(ref); err != nil {
			return record{}, err
		}
	}
	var failed []error
	for _, src := range sources {
		rec, err := src.resolve(ctx)
		if err == nil {
			return rec, s.known.remember(ref, state, rec)
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return record{}, errors.Join(failed...)
}
