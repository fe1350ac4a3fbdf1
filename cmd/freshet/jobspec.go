package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/jobspecs"
)

func newJobspec(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobspec [NAME]",
		Short: "Print a Nomad jobspec to copy",
		Long: `Prints a commented Nomad jobspec of a function, to copy and run with 'nomad job run'. Without a name it lists those that
there are.`,
		Example:           "  freshet jobspec function > hello.nomad.hcl",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: cobra.FixedCompletions(jobspecs.Names(), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				for _, name := range jobspecs.Names() {
					fmt.Fprintln(cmd.OutOrStdout(), name)
				}
				return nil
			}
			text, err := jobspecs.Template(given[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s", text)
			return nil
		},
	}
	cmd.AddCommand(newJobspecRender(env))
	return cmd
}
