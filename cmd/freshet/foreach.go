package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
)

// newForEach makes a command that does something to each id on its line, in their order, and says of each that it is done.
func newForEach(env environment, verb, short, done string, do func(ctx context.Context, api apiClient, id string) error) *cobra.Command {
	var addr, namespace string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   verb + " ID...",
		Short: short,
		Args:  args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			for _, id := range given {
				if err := do(cmd.Context(), api, id); err != nil {
					return err
				}
				if err := say(cmd, asJSON, map[string]string{"id": id, "status": done[strings.LastIndexByte(done, ' ')+1:]}, "%s %s.\n", id, done); err != nil {
					return err
				}
			}
			return nil
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	addJSONFlag(cmd, &asJSON)
	return cmd
}
