package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

type serveOptions struct {
	deployOptions

	as string
}

func newServe(env environment) *cobra.Command {
	o := serveOptions{deployOptions: deployOptions{sdk: sdk{env.cache}}}
	cmd := &cobra.Command{
		Use:   "serve [DIR|FILE.py]",
		Short: "Deploy an app to try it out, and again whenever its source changes",
		Long: `Deploys the Go program in DIR (default: this folder), or a Python file, under the app's name with "-dev" behind it, prints what its
functions log, and deploys it again whenever a file of its source changes. What does not build is said, and what ran before goes on.
Ctrl-C removes the app again. What is deployed under the app's own name is not touched.`,
		Example: `  freshet serve
  freshet serve app.py --as hello-ada`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			source := "."
			if len(given) == 1 {
				source = given[0]
			}
			if _, err := os.Stat(source); err != nil {
				return usagef(cmd, "%q is no folder and no file: name the folder of a Go main package, or a .py file", source)
			}
			return serve(cmd, env, source, o)
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	o.addBuildFlags(cmd)
	cmd.Flags().StringVar(&o.as, "as", "", "name to deploy it under (default: the app's, with -dev behind it)")
	return cmd
}

// name is what the app is served as.
func (o serveOptions) name(app string) string {
	return or(o.as, app[:min(len(app), maxName-len("-dev"))]+"-dev")
}

func serve(cmd *cobra.Command, env environment, source string, o serveOptions) (err error) {
	api, err := env.api(o.addr)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	watch, err := newWatch(ctx, source, o.sdk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watch.close()) }()
	t := newTrial(api, o.namespace, cmd.ErrOrStderr())
	defer func() {
		err = errors.Join(err, t.end(ctx))
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil // that is how it is meant to end
		}
		if t.name != "" && err == nil {
			t.say("Removed %s.", t.name)
		}
	}()
	answer, err := t.deploy(ctx, source, o.deployOptions, o.name)
	if err != nil {
		return err
	}
	if err := t.follow(ctx, functionsOf(answer), 0); err != nil {
		return err
	}
	t.say("Serving %s; Ctrl-C removes it.", answer.App)
	for _, f := range answer.Functions {
		t.say("  freshet call %s   POST %s", f.Job, f.URL)
	}
	for {
		began, err := watch.next(ctx)
		if err != nil {
			return err
		}
		next, err := t.deploy(ctx, source, o.deployOptions, o.name)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			t.say("Error: %v\nWhat ran before goes on.", err)
			continue
		}
		if next.Version == answer.Version {
			t.say("No change.")
			continue
		}
		answer = next
		t.say("Deployed again after %s: built in %s, uploaded in %s, registered in %s.", short(time.Since(began)),
			short(answer.built), short(answer.uploaded), short(answer.registered))
	}
}

// folderOf is the folder of a source.
func folderOf(source string) string {
	if info, err := os.Stat(source); err == nil && info.IsDir() {
		return source
	}
	return filepath.Dir(source)
}
