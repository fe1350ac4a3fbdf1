package main

import (
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// completeWait bounds how long a shell waits for names.
const completeWait = time.Second

// completeFunction offers the functions that there are, as APP.FUNCTION. A gateway that is away offers none.
func completeFunction(env environment) cobra.CompletionFunc {
	return completeNames(env, func(f functionRow) string { return f.App + "." + f.Function })
}

// completeApp offers the apps that there are.
func completeApp(env environment) cobra.CompletionFunc {
	return completeNames(env, func(f functionRow) string { return f.App })
}

func completeNames(env environment, name func(functionRow) string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		api, err := env.api(cmd.Flag("addr").Value.String())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completeWait)
		defer cancel()
		var functions []functionRow
		query := url.Values{"namespace": {cmd.Flag("namespace").Value.String()}}
		if err := api.get(ctx, "/v1/functions", query, &functions); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := make([]string, len(functions))
		for i, f := range functions {
			names[i] = name(f)
		}
		return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
	}
}
