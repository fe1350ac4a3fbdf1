package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/jobspecs"
	"github.com/freshet-dev/freshet/sdk/spec"
)

func newJobspecRender(env environment) *cobra.Command {
	o := deployOptions{sdk: sdk{env.cache}}
	out := ""
	cmd := &cobra.Command{
		Use:   "render DIR|FILE.py [FUNCTION]",
		Short: "Print the jobspec that a deploy would register",
		Long: `Builds and uploads what 'freshet deploy' would, and prints the Nomad job of a function in place of registering it: to read, to change by
hand, or to keep where jobs are kept. 'nomad job run' then does what the deploy would have done.`,
		Example: `  freshet jobspec render . > hello.nomad.hcl && nomad job plan hello.nomad.hcl
  freshet jobspec render app.py --out jobs`,
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			app, err := provide(cmd.Context(), api, given[0], o)
			if err != nil {
				return err
			}
			functions, err := choose(cmd, app.manifest.Functions, given[1:], out != "")
			if err != nil {
				return err
			}
			for _, f := range functions {
				text, err := jobspecs.HCL(f)
				if err != nil {
					return err
				}
				if out == "" {
					_, err = cmd.OutOrStdout().Write(text)
				} else {
					path := filepath.Join(out, f.JobID()+".nomad.hcl")
					err = os.WriteFile(path, text, 0o644)
					fmt.Fprintln(cmd.OutOrStdout(), path)
				}
				if err != nil {
					return fmt.Errorf("write the jobspec of %s: %w", f.JobID(), err)
				}
			}
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	o.addBuildFlags(cmd)
	cmd.Flags().StringVar(&out, "out", "", "folder for a file of each function (default: print that of one)")
	return cmd
}

// choose finds the function to render: a file of Nomad's has one job.
func choose(cmd *cobra.Command, functions []spec.Function, named []string, all bool) ([]spec.Function, error) {
	names := make([]string, len(functions))
	for i, f := range functions {
		names[i] = f.Name
	}
	if len(named) == 1 {
		if at := slices.Index(names, named[0]); at >= 0 {
			return functions[at : at+1], nil
		}
		return nil, usagef(cmd, "%s: no such function; there are %s", named[0], strings.Join(names, ", "))
	}
	if len(functions) > 1 && !all {
		return nil, usagef(cmd, "name one of the functions %s, or a folder for all of them with --out", strings.Join(names, ", "))
	}
	return functions, nil
}
