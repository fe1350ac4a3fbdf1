package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// version is this program's; a release sets it by the linker.
var version = "0.1.0-dev"

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			revision := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, setting := range info.Settings {
					if setting.Key == "vcs.revision" {
						revision = setting.Value
					}
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"version": version, "revision": revision, "guest_protocol": wire.Version})
			}
			if revision != "" {
				revision = " (" + revision[:min(12, len(revision))] + ")"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "freshet %s%s, guest protocol %d\n", version, revision, wire.Version)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
