package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/sdk/python"
	"github.com/freshet-dev/freshet/sdk/spec"
)

type deployOptions struct {
	addr, namespace string
	env             map[string]string
	python, image   string
	message, commit string
	strategy        string
	plan            bool
	warm, noWarm    bool
	asJSON          bool
	// rebuild builds images of Dockerfiles though they are there, whose steps reach buildNetwork.
	rebuild      bool
	buildNetwork string
	// arch is the architecture of the cluster's nodes, as Go calls it.
	arch string
	// sdk is where Go programs find the SDK.
	sdk sdk
	// trial renames the app: it is deployed to be tried out, and no list of deploys has it.
	trial func(app string) (string, error)
}

func newDeploy(env environment) *cobra.Command {
	o := deployOptions{sdk: sdk{env.cache}}
	cmd := &cobra.Command{
		Use:   "deploy DIR|FILE.py",
		Short: "Deploy the functions of the Go program in DIR, or those of a Python file",
		Long: `Builds the Go program in DIR as a static binary and asks it for its functions; or reads the functions of a Python file, which is
not run, and bundles the local modules that it imports. Uploads that and registers one Nomad job for each function. Functions that the
app had before and has no more are stopped.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			began := time.Now()
			answer, err := deploy(cmd.Context(), api, given[0], o)
			if err != nil {
				return err
			}
			if o.asJSON {
				return printJSON(cmd.OutOrStdout(), answer)
			}
			if o.plan {
				printPlan(cmd.OutOrStdout(), answer, env.painter(cmd.OutOrStdout()))
				return nil
			}
			answer.print(cmd.OutOrStdout(), time.Since(began))
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	o.addBuildFlags(cmd)
	cmd.Flags().BoolVar(&o.plan, "plan", false, "say what would change, field by field, and change nothing")
	cmd.Flags().BoolVar(&o.warm, "warm", false, "start and freeze one worker of each function first, and deploy nothing when one does not start (default: of those that replace another version)")
	cmd.Flags().BoolVar(&o.noWarm, "no-warm", false, "start none first, also of functions that replace another version")
	cmd.MarkFlagsMutuallyExclusive("warm", "no-warm")
	cmd.Flags().StringVarP(&o.message, "message", "m", "", "what the deploy is for, for the history")
	cmd.Flags().StringVar(&o.commit, "commit", "", "the commit of the source, for the history")
	addStrategyFlag(cmd, &o.strategy)
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	return cmd
}

// addStrategyFlag adds the choice that every command has which replaces versions.
func addStrategyFlag(cmd *cobra.Command, strategy *string) {
	cmd.Flags().StringVar(strategy, "strategy", "rolling", "what becomes of running calls: rolling lets them finish on the old version, recreate begins them anew on the new one")
}

// addBuildFlags adds the flags of every command that deploys a source.
func (o *deployOptions) addBuildFlags(cmd *cobra.Command) {
	cmd.Flags().StringToStringVarP(&o.env, "env", "e", nil, "set a variable of the functions' environment, NAME=VALUE")
	cmd.Flags().StringVar(&o.arch, "arch", "", "architecture of the cluster's nodes, amd64 or arm64 (default: this machine's)")
	cmd.Flags().StringVar(&o.python, "python", python.Interpreter, "the Python that reads a Python file's settings, 3.9 or newer")
	cmd.Flags().StringVar(&o.image, "image", "", "the image of Python functions that name none, or dockerfile:PATH")
	cmd.Flags().BoolVar(&o.rebuild, "rebuild", false, "build images of Dockerfiles again, each step")
	cmd.Flags().StringVar(&o.buildNetwork, "build-network", "", "what steps of Dockerfiles reach: bridge, none, or host where nodes allow it (default: bridge)")
}

// check refuses what no node can run.
func (o *deployOptions) check(cmd *cobra.Command) error {
	if o.arch != "" && o.arch != "amd64" && o.arch != "arm64" {
		return usagef(cmd, "--arch %s: use amd64 or arm64, as the cluster's nodes are", o.arch)
	}
	return nil
}

// deployed is the gateway's answer.
type deployed struct {
	App     string `json:"app"`
	Version string `json:"version"`
	Number  int    `json:"number"`
	// Unchanged says that all was so already.
	Unchanged bool `json:"unchanged,omitempty"`
	Changes   []struct {
		Function string `json:"function"`
		Action   string `json:"action"`
		Fields   []struct {
			Name string `json:"name"`
			Old  string `json:"old"`
			New  string `json:"new"`
		} `json:"fields"`
	} `json:"changes"`
	Functions []struct {
		Function string `json:"function"`
		Job      string `json:"job"`
		URL      string `json:"url"`
	} `json:"functions"`

	// built, uploaded and registered are where the time went.
	built, uploaded, registered time.Duration
}

func (d deployed) print(out io.Writer, took time.Duration) {
	if d.Unchanged {
		fmt.Fprintf(out, "%s is so already, version %s: nothing was changed since deploy %d.\n", d.App, d.Version, d.Number)
		return
	}
	fmt.Fprintf(out, "Deployed %s, version %s, in %s: deploy %d.\n", d.App, d.Version, short(took), d.Number)
	for _, f := range d.Functions {
		fmt.Fprintf(out, "  %s   POST %s\n", f.Job, f.URL)
	}
}

// provided is an app whose code and images the cluster has.
type provided struct {
	manifest spec.Manifest
	// built and uploaded are how long each took.
	built, uploaded time.Duration
}

// provide builds what source names and uploads it. The manifest says where it is.
func provide(ctx context.Context, client apiClient, source string, o deployOptions) (provided, error) {
	tmp, err := os.MkdirTemp("", "freshet-deploy-")
	if err != nil {
		return provided{}, fmt.Errorf("make a folder for the build: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }() // in the temporary directory
	code := filepath.Join(tmp, "code")
	began := time.Now()
	manifest, err := build(ctx, source, code, o)
	if err != nil {
		return provided{}, err
	}
	if err := provideImages(ctx, client, source, manifest, o); err != nil {
		return provided{}, err
	}
	built := time.Now()
	digest, err := upload(ctx, client, code)
	if err != nil {
		return provided{}, err
	}
	uploaded := time.Now()
	if o.trial != nil {
		if manifest.App, err = o.trial(manifest.App); err != nil {
			return provided{}, err
		}
	}
	complete(manifest, digest, o)
	return provided{manifest, built.Sub(began), uploaded.Sub(built)}, nil
}

// deploy builds what source names, uploads it and registers its functions.
func deploy(ctx context.Context, client apiClient, source string, o deployOptions) (deployed, error) {
	app, err := provide(ctx, client, source, o)
	if err != nil {
		return deployed{}, err
	}
	began, manifest := time.Now(), app.manifest
	query := url.Values{"namespace": {o.namespace}, "message": {o.message}, "commit": {o.commit}, "strategy": {o.strategy}}
	if o.trial != nil {
		query.Set("ephemeral", "true")
	}
	var answer deployed
	if o.warm || o.noWarm {
		query.Set("warm", strconv.FormatBool(o.warm))
	}
	if o.plan {
		query.Set("plan", "true")
	}
	if err := client.json(ctx, http.MethodPut, "/v1/apps/"+manifest.App, query, manifest, &answer); err != nil {
		return deployed{}, fmt.Errorf("deploy %s: %w", manifest.App, err)
	}
	answer.built, answer.uploaded, answer.registered = app.built, app.uploaded, time.Since(began)
	return answer, nil
}

// complete sets what only a deploy knows of the functions.
func complete(manifest spec.Manifest, digest string, o deployOptions) {
	for i := range manifest.Functions {
		f := &manifest.Functions[i]
		f.App, f.Namespace, f.Code, f.Version = manifest.App, o.namespace, "sha256:"+digest, digest[:12]
		if o.trial != nil {
			f.Drain = spec.Duration(trialDrain)
		}
		for name, value := range o.env {
			if f.Env == nil {
				f.Env = make(map[string]string)
			}
			f.Env[name] = value
		}
	}
}

// build makes the code of a source's functions, a Go program or a bundle of Python, and tells what functions they are.
func build(ctx context.Context, source, code string, o deployOptions) (spec.Manifest, error) {
	if strings.HasSuffix(source, ".py") {
		return bundlePython(ctx, source, code, o)
	}
	environment, err := o.sdk.environment(ctx)
	if err != nil {
		return spec.Manifest{}, fmt.Errorf("build %s: %w", source, err)
	}
	arch := or(o.arch, runtime.GOARCH)
	if err := buildProgram(ctx, source, code, append(environment, "GOOS=linux", "GOARCH="+arch)); err != nil {
		return spec.Manifest{}, err
	}
	if runtime.GOOS == "linux" && runtime.GOARCH == arch {
		return readManifest(ctx, code)
	}
	own := code + "-own.exe" // which Windows runs for its name, and others all the same
	if err := buildProgram(ctx, source, own, environment); err != nil {
		return spec.Manifest{}, err
	}
	return readManifest(ctx, own)
}

// buildProgram builds the folder's main package without cgo: the sandbox's root holds nothing but the program.
func buildProgram(ctx context.Context, dir, out string, environment []string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("find the program: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("find the program: %s is a file: name the folder of a Go main package, or a .py file", dir)
	}
	// Without what only debuggers read, and without the commit: the same source is the same version.
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, ".")
	build.Dir = dir
	build.Env = append(environment, "CGO_ENABLED=0")
	output, err := build.CombinedOutput()
	if err != nil {
		return fmt.Errorf("build %s: %w; the Go command says:\n%s", dir, err, bytes.TrimSpace(output))
	}
	return nil
}

// readManifest asks the program for its functions.
func readManifest(ctx context.Context, program string) (spec.Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	run := exec.CommandContext(ctx, program)
	run.Env = append(os.Environ(), spec.ManifestEnv+"=1")
	var stderr strings.Builder
	run.Stderr = &stderr
	output, err := run.Output()
	if err != nil {
		return spec.Manifest{}, fmt.Errorf("ask the program for its functions: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	manifest, err := spec.DecodeManifest(output)
	if err != nil {
		return spec.Manifest{}, fmt.Errorf("ask the program for its functions: %w: its main must call app.Main() and print nothing before", err)
	}
	return manifest, nil
}

// upload sends the code to the blob store unless it is there, and returns its digest.
func upload(ctx context.Context, client apiClient, program string) (string, error) {
	file, err := os.Open(program)
	if err != nil {
		return "", fmt.Errorf("open code: %w", err)
	}
	defer func() { _ = file.Close() }() // read only
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", fmt.Errorf("read code: %w", err)
	}
	digest := hex.EncodeToString(hash.Sum(nil))
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("read code: %w", err)
	}
	size, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("read code: %w", err)
	}
	bar := newUploadBar(os.Stderr, size.Size())
	response, err := client.do(ctx, http.MethodPut, "/v1/blobs/"+digest, nil, io.TeeReader(file, bar))
	_ = bar.Clear() // a bar that cannot be drawn is no reason to stop
	if err != nil {
		return "", fmt.Errorf("upload code: %w", err)
	}
	if err := response.Body.Close(); err != nil {
		return "", fmt.Errorf("upload code: %w", err)
	}
	return digest, nil
}
