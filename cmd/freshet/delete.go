package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

func newDelete(env environment) *cobra.Command {
	var addr, namespace string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "delete APP",
		Short: "Stop an app's functions and remove them",
		Long: `Stops an app's functions and removes them; running calls get the functions' drain time to end. Its list of deploys stays:
'freshet rollback APP DEPLOY' brings the app back.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeApp(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			answer, err := deleteApp(cmd.Context(), api, namespace, given[0])
			if err != nil {
				return fmt.Errorf("delete %s: %w", given[0], err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), answer)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Deleted %s.\n", given[0])
			for _, job := range answer.Stopped {
				fmt.Fprintf(cmd.OutOrStdout(), "  %s is stopped\n", job)
			}
			return nil
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// deleted is what the gateway says of an app that it deleted.
type deleted struct {
	App string `json:"app"`
	// Stopped are the jobs of its functions.
	Stopped []string `json:"stopped"`
}

func deleteApp(ctx context.Context, api apiClient, namespace, app string) (deleted, error) {
	var answer deleted
	err := api.json(ctx, http.MethodDelete, "/v1/apps/"+url.PathEscape(app), url.Values{"namespace": {namespace}}, nil, &answer)
	return answer, err
}

// notFound tells whether the gateway knows no such thing.
func notFound(err error) bool {
	var failure *apiFailure
	return errors.As(err, &failure) && failure.status == http.StatusNotFound
}
