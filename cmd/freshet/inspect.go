package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func newInspect(env environment) *cobra.Command {
	var addr, namespace string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect APP|APP.FUNCTION|WORKER|CALL",
		Short: "Show all that is known of an app, a function, a worker, a call or a batch",
		Long: `Shows all that the gateway knows of an app (its functions and deploys), a function (its spec, workers and schedules), a worker (a part of
its id is enough, of four characters at least), or a spawned call or batch.`,
		Example: `  freshet inspect gosearch.search
  freshet inspect 1f2e3d4c --json`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeFunction(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			found, err := inspect(cmd.Context(), api, namespace, given[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), found)
			}
			printTree(cmd.OutOrStdout(), "", found)
			return nil
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// inspect finds out what a name is, and asks for all of it.
func inspect(ctx context.Context, api apiClient, namespace, name string) (map[string]any, error) {
	if strings.Contains(name, ".") {
		return inspectFunction(ctx, api, namespace, name)
	}
	if regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`).MatchString(name) {
		return inspectCall(ctx, api, name)
	}
	query := url.Values{"namespace": {namespace}}
	var functions []map[string]any
	if err := api.get(ctx, "/v1/functions", query, &functions); err != nil {
		return nil, err
	}
	functions = slices.DeleteFunc(functions, func(f map[string]any) bool { return f["app"] != name })
	if len(functions) > 0 {
		var deploys any
		if err := api.get(ctx, "/v1/apps/"+url.PathEscape(name)+"/deploys", query, &deploys); err != nil {
			return nil, err
		}
		return map[string]any{"app": name, "namespace": namespace, "functions": functions, "deploys": deploys}, nil
	}
	return inspectWorker(ctx, api, namespace, name)
}

func inspectFunction(ctx context.Context, api apiClient, namespace, name string) (map[string]any, error) {
	app, function, err := splitName(name)
	if err != nil {
		return nil, err
	}
	query := url.Values{"namespace": {namespace}}
	var found map[string]any
	if err := api.get(ctx, "/v1/functions/"+url.PathEscape(app)+"/"+url.PathEscape(function), query, &found); err != nil {
		return nil, err
	}
	var workers, schedules any
	if err := api.get(ctx, "/v1/workers", url.Values{"namespace": {namespace}, "app": {app}, "function": {function}}, &workers); err != nil {
		return nil, err
	}
	query.Set("function", name)
	if err := api.get(ctx, "/v1/schedules", query, &schedules); err != nil {
		return nil, err
	}
	found["running_workers"], found["schedules"] = workers, schedules
	return found, nil
}

// inspectCall finds a call, a dead one or a batch of that id.
func inspectCall(ctx context.Context, api apiClient, id string) (found map[string]any, err error) {
	if strings.HasSuffix(id, "0000000") {
		return found, api.get(ctx, "/v1/batches/"+id, nil, &found)
	}
	if err = api.get(ctx, "/v1/calls/"+id, nil, &found); notFound(err) {
		if dead := api.get(ctx, "/v1/dead/"+id, nil, &found); dead == nil {
			return found, nil
		}
	}
	return found, err
}

// inspectWorker finds the live worker whose id begins so.
func inspectWorker(ctx context.Context, api apiClient, namespace, prefix string) (map[string]any, error) {
	var workers []map[string]any
	if err := api.get(ctx, "/v1/workers", url.Values{"namespace": {namespace}}, &workers); err != nil {
		return nil, err
	}
	var found []map[string]any
	for _, worker := range workers {
		if alloc, _ := worker["alloc"].(string); len(prefix) >= 4 && strings.HasPrefix(alloc, prefix) {
			found = append(found, worker)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("nothing is known of %q in namespace %s: name an app, APP.FUNCTION, a worker or a call; `freshet ps` and `freshet calls` list them", prefix, namespace)
	}
	return nil, fmt.Errorf("%d workers have ids that begin with %q: give more of it", len(found), prefix)
}

// printTree prints what JSON holds for people: a line for each value, under its name.
func printTree(out io.Writer, indent string, tree map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		switch value := tree[name].(type) {
		case map[string]any:
			if len(value) > 0 {
				fmt.Fprintf(out, "%s%s\n", indent, name)
				printTree(out, indent+"  ", value)
			}
		case []any:
			printList(out, indent, name, value)
		case []map[string]any:
			list := make([]any, len(value))
			for i, one := range value {
				list[i] = one
			}
			printList(out, indent, name, list)
		case nil:
		default:
			fmt.Fprintf(out, "%s%-*s %v\n", indent, max(1, 22-len(indent)), name, plainValue(value))
		}
	}
}

func printList(out io.Writer, indent, name string, list []any) {
	for i, one := range list {
		if tree, ok := one.(map[string]any); ok {
			fmt.Fprintf(out, "%s%s %d\n", indent, name, i+1)
			printTree(out, indent+"  ", tree)
			continue
		}
		fmt.Fprintf(out, "%s%-*s %v\n", indent, max(1, 22-len(indent)), name, plainValue(one))
	}
}

// plainValue writes large numbers as people do.
func plainValue(value any) any {
	if number, ok := value.(float64); ok {
		if text, err := json.Marshal(number); err == nil {
			return string(text)
		}
	}
	return value
}
