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
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  args(cobra.NoArgs),
		Run: func(cmd *cobra.Command, _ []string) {
			revision := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, setting := range info.Settings {
					if setting.Key == "vcs.revision" {
						revision = " (" + setting.Value[:min(12, len(setting.Value))] + ")"
					}
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "freshet %s%s, guest protocol %d\n", version, revision, wire.Version)
		},
	}
}
