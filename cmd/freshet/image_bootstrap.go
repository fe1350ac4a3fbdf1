package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Dockerfiles of the images that stand for others.
var (
	//go:embed bootstrap/debian.Dockerfile
	debianDockerfile string
	//go:embed bootstrap/python.Dockerfile
	pythonDockerfile string
	//go:embed bootstrap/alpine.Dockerfile
	alpineDockerfile string
)

// standIn is an image of Debian's packages that stands for one of a registry.
type standIn struct {
	// kind is what to make on the command line.
	kind     string
	packages []string
	// rooted says that the packages are laid into a root first, so that there is something to run steps with.
	rooted     bool
	dockerfile string
	// tags are what it stands for; VERSION, CODENAME and PYTHON are those of the packages.
	tags    []string
	differs string
}

// debianPackages are those of a minimal Debian: what is essential, what is required, and apt-get.
const debianPackages = `apt base-files base-passwd bash bsdutils ca-certificates coreutils dash debconf debian-archive-keyring debianutils diffutils
	dpkg e2fsprogs findutils gpgv grep gzip hostname init-system-helpers libc-bin login logsave mawk mount ncurses-base ncurses-bin passwd perl-base
	sed sysvinit-utils tar tzdata util-linux`

// standIns are those that can be made, in the order in which they are.
func standIns() []standIn {
	debian := strings.Fields(debianPackages)
	return []standIn{
		{
			kind: "debian", packages: debian, rooted: true, dockerfile: debianDockerfile,
			tags:    []string{"debian:VERSION-slim", "debian:CODENAME-slim"},
			differs: "it has no addresses of package sources (builds get those of the cluster's operator), and ca-certificates",
		},
		{
			kind: "python", packages: append(slices.Clip(debian), "python3", "python3-pip", "python3-venv"), rooted: true, dockerfile: pythonDockerfile,
			tags:    []string{"python:PYTHON-slim-CODENAME", "python:PYTHON-slim"},
			differs: "Python is Debian's, with the links of the original in /usr/local/bin; the rest as in debian's",
		},
		{
			kind: "alpine", packages: []string{"busybox-static"}, dockerfile: alpineDockerfile,
			tags:    []string{"alpine:latest", "alpine:3"},
			differs: "its commands are Debian's busybox: there is no apk, and no C library",
		},
	}
}

type bootstrapOptions struct{ addr, namespace string }

func newImageBootstrap(env environment) *cobra.Command {
	var o bootstrapOptions
	cmd := &cobra.Command{
		Use:   "bootstrap [debian|python|alpine]...",
		Short: "Make images that stand for those of Docker Hub, where that cannot be reached",
		Long: `Makes images of Debian packages, from where this machine's apt-get gets its own, that stand for debian:12-slim,
python:3.11-slim-bookworm and alpine (in the versions of those packages): all of them, or those that are named. From then on these tags
mean them in this cluster, in FROM and as a function's image; a reference by digest never does. 'freshet image rm' undoes it.

It needs Debian's apt-get and dpkg-deb on this machine, and a token that may administrate; the images are built on a node.`,
		Args:      args(cobra.OnlyValidArgs),
		ValidArgs: []string{"debian", "python", "alpine"},
		RunE: func(cmd *cobra.Command, kinds []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			for _, s := range standIns() {
				if len(kinds) > 0 && !slices.Contains(kinds, s.kind) {
					continue
				}
				if err := s.bootstrap(cmd.Context(), api, o.namespace, cmd.OutOrStdout(), cmd.ErrOrStderr()); err != nil {
					return fmt.Errorf("make an image that stands for %s: %w", s.kind, err)
				}
			}
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	return cmd
}

// bootstrap makes one, and has the tags mean it.
func (s standIn) bootstrap(ctx context.Context, api apiClient, namespace string, out, progress io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "freshet-bootstrap-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	versions, err := s.fill(ctx, dir, progress)
	if err != nil {
		return err
	}
	want := wantedBuild{
		Build:       spec.Build{Args: []map[string]string{versions}},
		Resources:   spec.Resources{MemoryMB: 1024},
		NetworkMode: "none",
	}
	from := buildSource{dir: dir, file: filepath.Join(dir, "Dockerfile")}
	made, err := buildImage(ctx, api, from, namespace, want, newBuildOutput(progress, false))
	if err != nil {
		return err
	}
	for _, tag := range s.tags {
		for word, value := range versions {
			tag = strings.ReplaceAll(tag, word, value)
		}
		if err := nameStandIn(ctx, api, tag, made.Reference); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s\tmeans %s now, %d MB\n", tag, made.Reference, made.Bytes>>20)
	}
	fmt.Fprintf(out, "  which differs: %s\n", s.differs)
	return nil
}

func nameStandIn(ctx context.Context, api apiClient, tag, reference string) error {
	_, digest, _ := strings.Cut(reference, "://")
	path := "/v1/images/" + url.PathEscape("docker.io/library/"+tag)
	return api.json(ctx, http.MethodPut, path, nil, map[string]string{"digest": digest}, nil)
}

// fill writes the build's context, and finds the versions of what is in it.
func (s standIn) fill(ctx context.Context, dir string, progress io.Writer) (map[string]string, error) {
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(s.dockerfile), 0o600); err != nil {
		return nil, err
	}
	debs := filepath.Join(dir, "debs")
	if err := download(ctx, debs, s.packages, progress); err != nil {
		return nil, err
	}
	tree := filepath.Join(dir, "tree")
	lay := layFiles
	if s.rooted {
		lay = layRoot
	}
	if err := command(ctx, "lay the packages out", nil, "/bin/sh", "-ec", lay, debs, dir); err != nil {
		return nil, err
	}
	versions := versionsOf(tree)
	return versions, os.RemoveAll(tree)
}

// layRoot lays packages into a root, unconfigured, and packs that: something must run the steps that configure them.
const layRoot = `mkdir -p "$1/tree/usr/bin" "$1/tree/usr/sbin" "$1/tree/usr/lib" "$1/tree/usr/lib64"
for dir in bin sbin lib lib64; do ln -s usr/$dir "$1/tree/$dir"; done
for deb in "$0"/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -C "$1/tree" --keep-directory-symlink -xf -; done
tar -C "$1/tree" --numeric-owner -cf "$1/root.tar" .`

// layFiles takes busybox out of its package.
const layFiles = `mkdir "$1/tree"
for deb in "$0"/*.deb; do dpkg-deb -x "$deb" "$1/tree"; done
cp "$1/tree/bin/busybox" "$1/" 2>/dev/null || cp "$1/tree/usr/bin/busybox" "$1/"
rm -r "$0"`

// download gets packages and all that they need, as if nothing were installed.
func download(ctx context.Context, dir string, packages []string, progress io.Writer) error {
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
		return err
	}
	status := dir + ".status"
	if err := os.WriteFile(status, nil, 0o600); err != nil {
		return err
	}
	get := append([]string{
		"install", "-qq", "-y", "--download-only", "--no-install-recommends", "-o", "Dir::State::status=" + status, "-o", "Dir::Cache::archives=" + dir,
		"-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1",
	}, packages...)
	fmt.Fprintln(progress, "downloading packages")
	err := command(ctx, "download packages", progress, "apt-get", get...)
	if err != nil { // its lists may be old
		if err = command(ctx, "update the lists of packages", progress, "apt-get", "update", "-qq"); err == nil {
			err = command(ctx, "download packages", progress, "apt-get", get...)
		}
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(dir, "partial")), os.RemoveAll(filepath.Join(dir, "lock")), os.Remove(status))
}

// command runs a program; what it says on its error output is part of the error.
func command(ctx context.Context, doing string, out io.Writer, program string, words ...string) error {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, words...)
	cmd.Stdout, cmd.Stderr = out, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %s: %w: %s", doing, program, err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// versionsOf reads what a root says of itself.
func versionsOf(tree string) map[string]string {
	versions := make(map[string]string)
	release, err := os.ReadFile(filepath.Join(tree, "usr/lib/os-release"))
	if err != nil {
		return versions // busybox alone says nothing
	}
	for line := range strings.Lines(string(release)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "VERSION_ID":
			versions["VERSION"] = strings.Trim(value, `"`)
		case "VERSION_CODENAME":
			versions["CODENAME"] = value
		}
	}
	if target, err := os.Readlink(filepath.Join(tree, "usr/bin/python3")); err == nil {
		versions["PYTHON"] = strings.TrimPrefix(target, "python")
	}
	return versions
}
