//go:build !linux

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// machineCommands say where a cluster runs.
func machineCommands(environment) []*cobra.Command {
	return []*cobra.Command{{
		Use:                "up",
		Short:              "Run a whole cluster on this machine: on Linux alone",
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("start the cluster: sandboxes need Linux: run it there, and name its gateway with --addr or FRESHET_ADDR")
		},
	}}
}
