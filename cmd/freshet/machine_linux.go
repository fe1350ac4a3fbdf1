package main

import "github.com/spf13/cobra"

// machineCommands run a cluster on this machine.
func machineCommands(env environment) []*cobra.Command {
	return []*cobra.Command{newUp(env), newDown(env), newStatus(env), newDoctor(env), newDemo(env), newNATS(env)}
}
