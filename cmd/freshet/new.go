package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/sdk/spec"
)

//go:embed templates
var templates embed.FS // immutable

// defaultPythonImage holds a Python for functions whose author names no image.
const defaultPythonImage = "python:3.13-slim"

// newApp is what the templates are filled in with.
type newApp struct {
	Name, Image               string
	Go, SDK, Version, Replace string
}

func newNew(env environment) *cobra.Command {
	var replace, image string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "new go|python NAME",
		Short: "Make a folder with a first app in it",
		Long: `Makes the folder NAME with an app of one function, to run, to edit and to deploy. A Go app requires the SDK that belongs to this
command line, which brings it: nothing is downloaded. With --sdk it builds with the SDK's source in a folder.`,
		Example: `  freshet new go hello && cd hello && freshet run
  freshet new python hello && cd hello && freshet run app.py`,
		Args:              args(cobra.ExactArgs(2)),
		ValidArgsFunction: cobra.FixedCompletions([]cobra.Completion{"go", "python"}, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, given []string) error {
			language, dir := given[0], given[1]
			if language != "go" && language != "python" {
				return usagef(cmd, "language %q: use go or python", language)
			}
			app := newApp{Name: filepath.Base(dir), Image: image, SDK: sdkModule}
			if !spec.ValidName(app.Name) {
				return usagef(cmd, "name %q: use %s", app.Name, spec.NamePattern)
			}
			if language == "go" {
				if err := app.require(sdk{env.cache}, replace); err != nil {
					return err
				}
			}
			if err := app.write(dir, language); err != nil {
				return err
			}
			if language == "go" {
				if err := tidy(cmd.Context(), sdk{env.cache}, dir); err != nil {
					return fmt.Errorf("%w\nthe files are in %s: mend this, then run `go mod tidy` there", err, dir)
				}
			}
			made := map[string]string{"app": app.Name, "language": language, "folder": dir}
			return say(cmd, asJSON, made, "Made %s. Try it:\n\n  cd %s\n  freshet run%s\n", dir, dir, map[string]string{"python": " app.py"}[language])
		},
	}
	cmd.Flags().StringVar(&replace, "sdk", env.sdk, "folder of the Go SDK's source to build with (default: FRESHET_SDK, else the SDK of this command line)")
	cmd.Flags().StringVar(&image, "image", defaultPythonImage, "image of a Python app")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// require names the SDK that the app builds with.
func (a *newApp) require(s sdk, replace string) error {
	var err error
	if a.Go, err = s.goVersion(); err != nil {
		return err
	}
	if a.Version, err = s.version(); err != nil || replace == "" {
		return err
	}
	if a.Replace, err = filepath.Abs(replace); err != nil {
		return fmt.Errorf("find the SDK: %w", err)
	}
	if _, err := os.Stat(filepath.Join(a.Replace, "go.mod")); err != nil {
		return fmt.Errorf("find the SDK: %w: name the folder of its go.mod with --sdk", err)
	}
	return nil
}

// write fills in the templates of a language, into a folder that has nothing in it.
func (a *newApp) write(dir, language string) error {
	if there, err := os.ReadDir(dir); err == nil && len(there) > 0 {
		return fmt.Errorf("make %s: there is something in it, such as %s: use another name, or remove it", dir, there[0].Name())
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the app's folder: %w", err)
	}
	from, err := fs.Sub(templates, "templates/"+language)
	if err != nil {
		return fmt.Errorf("read templates: %w", err)
	}
	parsed, err := template.ParseFS(from, "*.tmpl")
	if err != nil {
		return fmt.Errorf("read templates: %w", err)
	}
	for _, one := range parsed.Templates() {
		var text bytes.Buffer
		if err := one.Execute(&text, a); err != nil {
			return fmt.Errorf("fill in %s: %w", one.Name(), err)
		}
		if err := os.WriteFile(filepath.Join(dir, strings.TrimSuffix(one.Name(), ".tmpl")), text.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write the app: %w", err)
		}
	}
	return nil
}

// tidy writes the go.sum and brings the SDK into the Go command's module cache: editors and `go test` then find it as well.
func tidy(ctx context.Context, s sdk, dir string) error {
	environment, err := s.environment(ctx)
	if err != nil {
		return err
	}
	tidy := exec.CommandContext(ctx, "go", "mod", "tidy")
	tidy.Dir, tidy.Env = dir, environment
	output, err := tidy.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("find the Go command: %w: install Go from https://go.dev/dl", err)
	}
	if err != nil {
		return fmt.Errorf("go mod tidy in %s: %w\n%s", dir, err, bytes.TrimSpace(output))
	}
	return nil
}
