package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newReference prints the part of docs/cli.md that is made from the commands themselves.
func newReference() *cobra.Command {
	return &cobra.Command{
		Use:    "reference",
		Short:  "Print the command line's reference as Markdown",
		Hidden: true,
		Args:   args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			root := newRoot(environment{state: "/var/lib/freshet", chosen: new(string)}) // of no machine
			root.InitDefaultCompletionCmd()
			writeReference(cmd.OutOrStdout(), root)
			return nil
		},
	}
}

func writeReference(out io.Writer, cmd *cobra.Command) {
	for _, one := range cmd.Commands() {
		if one.Hidden || one.Name() == "help" {
			continue
		}
		fmt.Fprintf(out, "\n### %s\n\n%s.\n", strings.TrimSuffix(one.UseLine(), " [flags]"), one.Short)
		if one.Long != "" {
			fmt.Fprintf(out, "\n%s\n", quoted(one.Long))
		}
		if one.Example != "" {
			fmt.Fprintf(out, "\n```\n%s\n```\n", one.Example)
		}
		writeFlags(out, one.NonInheritedFlags())
		if one.Name() != "completion" { // its shells are all alike
			writeReference(out, one)
		}
	}
}

// quoted escapes what Markdown would read as tags.
func quoted(text string) string { return strings.ReplaceAll(text, "<", `\<`) }

func writeFlags(out io.Writer, flags *pflag.FlagSet) {
	var rows []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		text := strings.ReplaceAll(quoted(f.Usage), "|", `\|`)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" && f.DefValue != "[]" {
			text += " (default `" + f.DefValue + "`)"
		}
		rows = append(rows, "| "+name+" | "+text+" |")
	})
	if len(rows) > 0 {
		fmt.Fprintf(out, "\n| flag | |\n|---|---|\n%s\n", strings.Join(rows, "\n"))
	}
}
