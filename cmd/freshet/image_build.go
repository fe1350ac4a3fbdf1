package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/freshet-dev/freshet/internal/buildcontext"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// buildFailed is a build that failed by itself.
type buildFailed struct{ message string }

func (e *buildFailed) Error() string { return "build image: " + e.message }

type imageBuildOptions struct {
	addr, namespace          string
	file, target, name, push string
	args                     map[string]string
	secrets                  []string
	network                  string
	cpu, memory, disk        int
	timeout                  time.Duration
	noCache, plain, asJSON   bool
}

func newImageBuild(env environment) *cobra.Command {
	var o imageBuildOptions
	cmd := &cobra.Command{
		Use:   "build CONTEXT",
		Short: "Build an image from a Dockerfile on a node of the cluster",
		Long: `Uploads the folder CONTEXT, but for what its .dockerignore leaves out, and builds the image on a node, by a job that runs its steps in
sandboxes. Says on standard error what the build does, and prints the image's reference, for a function's image field or for FROM. Ctrl-C
stops the build. An error of the build itself has the exit code 3.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			request, err := o.request(cmd)
			if err != nil {
				return err
			}
			file := or(o.file, filepath.Join(given[0], "Dockerfile"))
			image, err := buildImage(cmd.Context(), api, buildSource{dir: given[0], file: file}, o.namespace, request, newBuildOutput(cmd.ErrOrStderr(), o.plain))
			if err != nil {
				return err
			}
			if o.asJSON {
				return printJSON(cmd.OutOrStdout(), image)
			}
			fmt.Fprintln(cmd.OutOrStdout(), image.Reference)
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "the Dockerfile (default: CONTEXT/Dockerfile)")
	cmd.Flags().StringVar(&o.target, "target", "", "the stage to build (default: the last one)")
	cmd.Flags().StringVarP(&o.name, "tag", "t", "", "what to call the image in the cluster, such as web:1.2")
	cmd.Flags().StringVar(&o.push, "push", "", "also push it to a registry under this reference, with the node's password")
	cmd.Flags().StringToStringVar(&o.args, "build-arg", nil, "set an ARG, NAME=VALUE")
	cmd.Flags().StringArrayVar(&o.secrets, "secret", nil, "a secret for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=VARIABLE")
	cmd.Flags().StringVar(&o.network, "network", "", "what steps reach: bridge, none, or host where nodes allow it (default: bridge)")
	cmd.Flags().IntVar(&o.cpu, "cpu", 0, "MHz that the build reserves (default: 1000)")
	cmd.Flags().IntVar(&o.memory, "memory", 0, "MB that the build may use (default: 2048)")
	cmd.Flags().IntVar(&o.disk, "disk", 0, "MB that one step may write (default: 20480)")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "how long the build may take (default: 1h)")
	cmd.Flags().BoolVar(&o.noCache, "no-cache", false, "run each step again")
	cmd.Flags().BoolVar(&o.plain, "plain", false, "say each line, also on a terminal")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	return cmd
}

// wantedBuild is the body of a request for a build.
type wantedBuild struct {
	Build       spec.Build        `json:"build"`
	Secrets     map[string][]byte `json:"secrets,omitempty"`
	Resources   spec.Resources    `json:"resources"`
	NetworkMode string            `json:"network_mode,omitempty"`
}

func (o imageBuildOptions) request(cmd *cobra.Command) (wantedBuild, error) {
	w := wantedBuild{
		Build: spec.Build{
			Target: o.target, Name: o.name, Push: o.push, NoCache: o.noCache, DiskMB: o.disk, Timeout: spec.Duration(o.timeout),
		},
		Secrets: make(map[string][]byte), Resources: spec.Resources{CPU: o.cpu, MemoryMB: o.memory}, NetworkMode: o.network,
	}
	if len(o.args) > 0 {
		w.Build.Args = []map[string]string{maps.Clone(o.args)}
	}
	for _, text := range o.secrets {
		id, value, err := readSecret(text)
		if err != nil {
			return w, usagef(cmd, "--secret %s: %w", text, err)
		}
		w.Secrets[id] = value
	}
	return w, nil
}

// readSecret reads what --secret names, in the words of docker's flag.
func readSecret(text string) (id string, value []byte, err error) {
	var file, variable string
	for part := range strings.SplitSeq(text, ",") {
		key, word, _ := strings.Cut(part, "=")
		switch key {
		case "id":
			id = word
		case "src", "source":
			file = word
		case "env":
			variable = word
		default:
			return "", nil, fmt.Errorf("%q is neither id, src nor env", key)
		}
	}
	switch {
	case id == "":
		return "", nil, errors.New("name it: id=ID,src=FILE or id=ID,env=VARIABLE")
	case file != "":
		value, err = os.ReadFile(file)
		return id, value, err
	}
	found := os.Getenv(or(variable, id))
	if found == "" {
		return "", nil, fmt.Errorf("the variable %s is not set", or(variable, id))
	}
	return id, []byte(found), nil
}

// buildSource is what an image is built from.
type buildSource struct {
	// dir is the context's folder, file the Dockerfile.
	dir, file string
	// only are the paths of the context that are needed; none for all of them.
	only []string
}

// buildImage uploads the context, builds, and passes on what the build says.
func buildImage(ctx context.Context, api apiClient, from buildSource, namespace string, want wantedBuild, out *buildOutput) (builtImage, error) {
	text, err := os.ReadFile(from.file)
	if err != nil {
		return builtImage{}, fmt.Errorf("read Dockerfile: %w", err)
	}
	want.Build.Dockerfile, want.Build.File = string(text), filepath.Base(from.file)
	digest, err := uploadContext(ctx, api, from)
	if err != nil {
		return builtImage{}, err
	}
	want.Build.Context = "sha256:" + digest
	body, err := json.Marshal(want)
	if err != nil {
		return builtImage{}, fmt.Errorf("encode request: %w", err)
	}
	response, err := api.do(ctx, http.MethodPost, "/v1/images/builds", url.Values{"namespace": {namespace}}, bytes.NewReader(body))
	if err != nil {
		return builtImage{}, fmt.Errorf("build image: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // which ends a build that goes on
	defer out.end()
	image, err := followBuild(response.Body, out)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return image, err
}

// uploadContext packs the context and uploads it unless it is there.
func uploadContext(ctx context.Context, api apiClient, from buildSource) (digest string, err error) {
	if info, err := os.Stat(from.dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("find the build's context: %s is no folder", from.dir)
	}
	file, err := os.CreateTemp("", "freshet-context-")
	if err != nil {
		return "", fmt.Errorf("pack the build's context: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(file.Name())) }()
	if err := errors.Join(buildcontext.Pack(ctx, from.dir, from.only, file), file.Close()); err != nil {
		return "", err
	}
	return upload(ctx, api, file.Name())
}

// followBuild reads the gateway's answer to its end.
func followBuild(body io.Reader, out *buildOutput) (builtImage, error) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var line struct {
			Line  string      `json:"line"`
			Image *builtImage `json:"image"`
			Error *struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return builtImage{}, fmt.Errorf("read the gateway's answer: %w", err)
		}
		switch {
		case line.Image != nil:
			return *line.Image, nil
		case line.Error != nil:
			return builtImage{}, &buildFailed{line.Error.Message}
		case line.Line != "":
			out.line(line.Line)
		}
	}
	return builtImage{}, fmt.Errorf("the build's answer was cut off, which stops it: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}

// buildOutput shows what a build says: each line, or on a terminal the steps, and below them the last line that they printed.
type buildOutput struct {
	to    io.Writer
	width int // of the terminal; 0 for plain lines
	shown bool
}

func newBuildOutput(to io.Writer, plain bool) *buildOutput {
	out := &buildOutput{to: to}
	if file, ok := to.(*os.File); ok && !plain && term.IsTerminal(int(file.Fd())) {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil {
			out.width = width
		}
	}
	return out
}

func (o *buildOutput) line(text string) {
	if o.width == 0 {
		fmt.Fprintln(o.to, text)
		return
	}
	o.end()
	if _, printed, ok := strings.Cut(text, "] | "); ok && strings.HasPrefix(text, "[") {
		shown := []rune(strings.ReplaceAll("  "+printed, "\t", " "))
		fmt.Fprint(o.to, "\x1b[2m", string(shown[:min(len(shown), o.width-1)]), "\x1b[0m")
		o.shown = true
		return
	}
	fmt.Fprintln(o.to, text)
}

// end removes the line that steps printed last.
func (o *buildOutput) end() {
	if o.shown {
		fmt.Fprint(o.to, "\r\x1b[K")
		o.shown = false
	}
}
