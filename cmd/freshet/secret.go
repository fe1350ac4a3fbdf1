package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-envparse"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// secretRow is what the gateway says of a secret: never a value.
type secretRow struct {
	Name      string             `json:"name"`
	Version   int                `json:"version"`
	Keys      []string           `json:"keys"`
	Created   time.Time          `json:"created"`
	Functions []string           `json:"functions"`
	Restarted []string           `json:"restarted,omitempty"`
	Versions  []secretVersionRow `json:"versions,omitempty"`
}

type secretVersionRow struct {
	Version int       `json:"version"`
	Keys    []string  `json:"keys"`
	Created time.Time `json:"created"`
}

func newSecret(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Make, change, list and remove the secrets that functions read from their environment",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSecretPut(env, true), newSecretPut(env, false), newSecretList(env), newSecretVersions(env), newSecretRemove(env))
	return cmd
}

func secretPath(name string) string { return "/v1/secrets/" + url.PathEscape(name) }

type secretOptions struct {
	addr, namespace, file    string
	replace, restart, asJSON bool
}

const secretValues = `Values come from KEY=VALUE, from a file of such lines with --from-env-file, or, for a KEY alone, from standard input; at a
terminal you are asked for it, and it is not shown. What stands on a command line is in the shell's history: prefer the other two.
No command prints a value again.`

// newSecretPut makes the command that makes a secret, or the one that changes it.
func newSecretPut(env environment, create bool) *cobra.Command {
	var o secretOptions
	cmd := &cobra.Command{
		Use:   "set NAME [KEY=VALUE | KEY]...",
		Short: "Change keys of a secret, as a new version of it",
		Long: secretValues + `

The other keys stay, unless with --replace. Workers that start from then on have the new values. Those that run keep theirs until they
end; --restart replaces them now: each finishes its calls while another one starts.`,
		Example: `  freshet secret set db PASSWORD --restart < password.txt
  freshet secret set db --from-env-file db.env --replace`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error { return putSecret(cmd, env, o, given, create) },
	}
	if create {
		cmd.Use, cmd.Short, cmd.Long = "create NAME [KEY=VALUE | KEY]...", "Make a secret", secretValues
		cmd.Example = `  freshet secret create db --from-env-file db.env
  freshet secret create huggingface HF_TOKEN`
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().StringVar(&o.file, "from-env-file", "", "a file of KEY=VALUE lines, - for standard input")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print what became of it as JSON")
	if !create {
		cmd.Flags().BoolVar(&o.replace, "replace", false, "drop the keys that are not given")
		cmd.Flags().BoolVar(&o.restart, "restart", false, "replace the workers of the functions that use it now")
	}
	return cmd
}

func putSecret(cmd *cobra.Command, env environment, o secretOptions, given []string, create bool) error {
	values, err := readSecretValues(cmd, o.file, given[1:])
	if err != nil {
		return err
	}
	api, err := env.api(o.addr)
	if err != nil {
		return err
	}
	query := url.Values{"namespace": {o.namespace}, "create": {strconv.FormatBool(create)}, "restart": {strconv.FormatBool(o.restart)}}
	var row secretRow
	request := map[string]any{"values": values, "replace": o.replace}
	if err := api.json(cmd.Context(), http.MethodPut, secretPath(given[0]), query, request, &row); err != nil {
		return err
	}
	if o.asJSON {
		return printJSON(cmd.OutOrStdout(), row)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "Secret %s is at version %d: %s.\n", row.Name, row.Version, strings.Join(row.Keys, ", "))
	switch {
	case len(row.Restarted) > 0:
		fmt.Fprintf(out, "The workers of %s are being replaced.\n", strings.Join(row.Restarted, ", "))
	case len(row.Functions) > 0 && !o.restart:
		fmt.Fprintf(out, "New workers of %s have it; --restart replaces those that run.\n", strings.Join(row.Functions, ", "))
	}
	return nil
}

// readSecretValues gathers a secret's values. No error of it shows one.
func readSecretValues(cmd *cobra.Command, file string, pairs []string) (map[string]string, error) {
	values := make(map[string]string)
	if file != "" {
		read, err := readEnvFile(cmd, file)
		if err != nil {
			return nil, err
		}
		maps.Copy(values, read)
	}
	asked := ""
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			if (asked != "" || file == "-") && !term.IsTerminal(int(os.Stdin.Fd())) {
				return nil, usagef(cmd, "%s: standard input is taken already: give one KEY alone, or write them to a file for --from-env-file", key)
			}
			asked = key
			var err error
			if value, err = askValue(cmd, key); err != nil {
				return nil, err
			}
		}
		values[key] = value
	}
	if len(values) == 0 {
		return nil, usagef(cmd, "no value: give KEY=VALUE, KEY, or --from-env-file FILE")
	}
	return values, nil
}

func readEnvFile(cmd *cobra.Command, file string) (map[string]string, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--from-env-file: %w", err)
		}
		defer func() { _ = opened.Close() }() // read only
		in = opened
	}
	values, err := envparse.Parse(in)
	if err != nil {
		return nil, fmt.Errorf("--from-env-file %s: %w: write KEY=VALUE lines", file, err)
	}
	return values, nil
}

// askValue reads the value of a key from standard input, without its last line break; a terminal does not show it.
func askValue(cmd *cobra.Command, key string) (string, error) {
	if term.IsTerminal(int(os.Stdin.Fd())) {
		fmt.Fprintf(cmd.ErrOrStderr(), "Value of %s: ", key)
		value, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("read the value of %s: %w", key, err)
		}
		return string(value), nil
	}
	data, err := io.ReadAll(cmd.InOrStdin())
	if err != nil {
		return "", fmt.Errorf("read the value of %s: %w", key, err)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if value == "" {
		return "", errors.New("read the value of " + key + ": standard input is empty")
	}
	return value, nil
}

func newSecretList(env environment) *cobra.Command {
	var o secretOptions
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List secrets with their keys, never with values",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			var rows []secretRow
			if err := api.get(cmd.Context(), "/v1/secrets", url.Values{"namespace": {o.namespace}}, &rows); err != nil {
				return err
			}
			if o.asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			t := newTable(cmd.OutOrStdout(), "name", "version", "keys", "changed", "functions")
			for _, row := range rows {
				t.AppendRow(table.Row{
					row.Name, row.Version, strings.Join(row.Keys, ","), row.Created.Local().Format(time.DateTime), or(strings.Join(row.Functions, ","), "-"),
				})
			}
			t.Render()
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	return cmd
}

func newSecretVersions(env environment) *cobra.Command {
	var o secretOptions
	cmd := &cobra.Command{
		Use:   "versions NAME",
		Short: "List the versions of a secret, the newest first",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			var row secretRow
			if err := api.get(cmd.Context(), secretPath(given[0]), url.Values{"namespace": {o.namespace}}, &row); err != nil {
				return err
			}
			if o.asJSON {
				return printJSON(cmd.OutOrStdout(), row.Versions)
			}
			t := newTable(cmd.OutOrStdout(), "version", "keys", "made")
			for _, v := range row.Versions {
				t.AppendRow(table.Row{v.Version, strings.Join(v.Keys, ","), v.Created.Local().Format(time.DateTime)})
			}
			t.Render()
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	return cmd
}

func newSecretRemove(env environment) *cobra.Command {
	var o secretOptions
	var force bool
	cmd := &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove secrets with all their versions",
		Args:  args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			query := url.Values{"namespace": {o.namespace}, "force": {strconv.FormatBool(force)}}
			for _, name := range given {
				if err := api.json(cmd.Context(), http.MethodDelete, secretPath(name), query, nil, nil); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Secret %s is removed.\n", name)
			}
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().BoolVar(&force, "force", false, "also those that functions use, whose next worker then does not start")
	return cmd
}
