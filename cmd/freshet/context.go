package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/contexts"
)

func newContext(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Name the clusters that you work with, and choose among them",
		Long: `Keeps the addresses and tokens of clusters by name, in freshet/contexts.hcl in your folder of configuration, for you alone.
Commands talk to the one in use; --context and FRESHET_CONTEXT choose another for once, and --addr, FRESHET_ADDR, FRESHET_TOKEN and
FRESHET_NAMESPACE stand above what it says. "local" is the cluster of 'freshet up' on this machine.`,
		Example: `  freshet token create me --verbs call,read,deploy,exec      # whoever has a token with the verb admin
  freshet context set prod --addr https://freshet.example.org --token -
  freshet context use prod
  freshet ps --context local`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newContextList(env), newContextUse(env), newContextSet(env), newContextRemove(env))
	return cmd
}

// contextRow is a context as it is listed: without its token.
type contextRow struct {
	Name      string `json:"name"`
	Current   bool   `json:"current"`
	Address   string `json:"address"`
	Namespace string `json:"namespace,omitempty"`
	CA        string `json:"ca,omitempty"`
	HasToken  bool   `json:"has_token"`
}

func newContextList(env environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the contexts, without their tokens",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := env.loadContexts()
			if err != nil {
				return err
			}
			current := or(*env.chosen, or(env.context, or(file.Current, contexts.Local)))
			rows := []contextRow{{Name: contexts.Local, Current: current == contexts.Local}}
			if here, err := env.named(contexts.Local); err == nil {
				rows[0].Address, rows[0].HasToken = here.address, here.token != ""
			}
			for _, c := range file.Contexts {
				rows = append(rows, contextRow{c.Name, c.Name == current, c.Address, c.Namespace, c.CA, c.Token != ""})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			t := newTable(cmd.OutOrStdout(), "", "name", "address", "namespace", "token")
			for _, row := range rows {
				mark, token := "", "no"
				if row.Current {
					mark = "*"
				}
				if row.HasToken {
					token = "yes"
				}
				t.AppendRow(table.Row{mark, row.Name, or(row.Address, "-"), or(row.Namespace, "-"), token})
			}
			t.Render()
			return nil
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// changeContexts changes the file.
func (e environment) changeContexts(change func(*contexts.File) error) error {
	if e.contexts == "" {
		return fmt.Errorf("save contexts: no folder of configuration is known: set HOME")
	}
	file, err := contexts.Load(e.contexts)
	if err != nil {
		return err
	}
	if err := change(&file); err != nil {
		return err
	}
	return file.Save(e.contexts)
}

func newContextUse(env environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "use NAME",
		Short:             "Have commands talk to this cluster from now on",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeContext(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := env.changeContexts(func(f *contexts.File) error { return f.Use(given[0]) }); err != nil {
				return err
			}
			return say(cmd, asJSON, map[string]string{"current": given[0]}, "%s is in use.\n", given[0])
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newContextSet(env environment) *cobra.Command {
	var set contexts.Context
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Make a context, or change what the flags say of it",
		Long: `Makes a context, or changes what the flags say of it and leaves the rest. The first one is in use at once. A token on the command line is
read by whoever lists processes: --token - reads it from standard input.`,
		Example: `  freshet context set prod --addr https://freshet.example.org --token - < token
  freshet context set prod --namespace search --ca ca.pem`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeContext(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			if set.Token == "-" {
				data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4<<10))
				if err != nil {
					return fmt.Errorf("read the token: %w", err)
				}
				set.Token = strings.TrimSpace(string(data))
			}
			if set.CA != "" {
				var err error
				if set.CA, err = filepath.Abs(set.CA); err != nil {
					return fmt.Errorf("find the certificates: %w", err)
				}
				if _, err := (cluster{ca: set.CA}).transport(); err != nil {
					return err
				}
			}
			err := env.changeContexts(func(f *contexts.File) error {
				c, err := f.Find(given[0])
				if err != nil && set.Address == "" {
					return usagef(cmd, "context %q is new: name its gateway with --addr", given[0])
				}
				c.Name = given[0]
				for flag, field := range map[string]struct{ to, from *string }{
					"addr": {&c.Address, &set.Address}, "token": {&c.Token, &set.Token}, "namespace": {&c.Namespace, &set.Namespace}, "ca": {&c.CA, &set.CA},
				} {
					if cmd.Flags().Changed(flag) {
						*field.to = *field.from
					}
				}
				return f.Set(c)
			})
			if err != nil {
				return err
			}
			return say(cmd, asJSON, map[string]string{"name": given[0]}, "%s is set.\n", given[0])
		},
	}
	cmd.Flags().StringVar(&set.Address, "addr", "", "the gateway's address, such as https://freshet.example.org")
	cmd.Flags().StringVar(&set.Token, "token", "", "token to show, or - to read it from standard input")
	cmd.Flags().StringVar(&set.Namespace, "namespace", "", "environment of commands that name none")
	cmd.Flags().StringVar(&set.CA, "ca", "", "file with the certificates, in PEM, that the gateway's is signed by")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func newContextRemove(env environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "rm NAME...",
		Short:             "Forget contexts; their clusters are not concerned",
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeContext(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			for _, name := range given {
				if err := env.changeContexts(func(f *contexts.File) error { return f.Remove(name) }); err != nil {
					return err
				}
				if err := say(cmd, asJSON, map[string]string{"name": name}, "%s is forgotten.\n", name); err != nil {
					return err
				}
			}
			return nil
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// completeContext offers the contexts that there are.
func completeContext(env environment) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		names := []string{contexts.Local}
		if file, err := env.loadContexts(); err == nil {
			for _, c := range file.Contexts {
				names = append(names, c.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
