package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/sdk/client"
)

type spawnOptions struct {
	classOptions

	addr, namespace, file, contentType, batch string
	keep                                      time.Duration
	asJSON                                    bool
}

func newSpawn(env environment) *cobra.Command {
	var o spawnOptions
	cmd := &cobra.Command{
		Use:   "spawn APP.FUNCTION [INPUT]",
		Short: "Queue a call, or one for each line of a file, and print its id",
		Long: `Queues a call and prints its id once the cluster has it for certain; 'freshet result ID' fetches what became of it. With --batch a
call is queued for each line of a file, however long it is, and the batch's id is printed.`,
		Example: `  freshet spawn gosearch.search '{"q":"http server"}'
  freshet spawn gosearch.search --batch examples/gosearch/queries.ndjson`,
		Args:              args(cobra.RangeArgs(1, 2)),
		ValidArgsFunction: completeFunction(env),
		RunE: func(cmd *cobra.Command, given []string) error {
			if _, _, err := splitName(given[0]); err != nil {
				return usagef(cmd, "%w", err)
			}
			if o.batch != "" {
				return spawnBatch(cmd, env, given[0], o)
			}
			request, input, err := readInput(cmd, o.request(given[0]), given[1:], o.file)
			if err != nil {
				return err
			}
			defer func() { _ = input.Close() }() // read only
			request.ContentType, request.Keep = guessType(o.contentType, request.Body), o.keep
			return spawn(cmd, env, request, o)
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	o.classOptions.addFlags(cmd)
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "read the input from a file")
	cmd.Flags().StringVar(&o.batch, "batch", "", "file with one input a line, or - for standard input")
	cmd.Flags().StringVar(&o.contentType, "content-type", "", "content type of the input (default: application/json where it looks like it, else text/plain)")
	cmd.Flags().DurationVar(&o.keep, "keep", 0, "how long the result is kept (default: 7 days)")
	addJSONFlag(cmd, &o.asJSON)
	return cmd
}

func spawn(cmd *cobra.Command, env environment, request client.Request, o spawnOptions) error {
	c, err := env.client(o.addr, client.Namespace(o.namespace), client.Patience(10*time.Second))
	if err != nil {
		return err
	}
	call, err := c.Spawn(cmd.Context(), request)
	if err != nil {
		return failed(err)
	}
	return say(cmd, o.asJSON, map[string]string{"call": call}, "%s\n", call)
}

func spawnBatch(cmd *cobra.Command, env environment, function string, o spawnOptions) error {
	api, err := env.api(o.addr)
	if err != nil {
		return err
	}
	in, size := cmd.InOrStdin(), int64(-1)
	if o.batch != "-" {
		file, err := os.Open(o.batch)
		if err != nil {
			return fmt.Errorf("open input: %w", err)
		}
		defer func() { _ = file.Close() }() // read only
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
		in = file
	}
	bar := newUploadBar(cmd.ErrOrStderr(), size)
	app, name, err := splitName(function)
	if err != nil {
		return err
	}
	var batch struct {
		Batch  string `json:"batch"`
		Inputs int64  `json:"inputs"`
	}
	path := "/v1/functions/" + app + "/" + name + "/batch"
	if err := api.send(cmd.Context(), http.MethodPost, path, o.query(o.namespace), io.TeeReader(in, bar), &batch); err != nil {
		return err
	}
	_ = bar.Clear() // a bar that cannot be drawn is no reason to stop
	if o.asJSON {
		return printJSON(cmd.OutOrStdout(), batch)
	}
	fmt.Fprintln(cmd.OutOrStdout(), batch.Batch)
	fmt.Fprintf(cmd.ErrOrStderr(), "%d calls are queued\n", batch.Inputs)
	return nil
}

func newResult(env environment) *cobra.Command {
	var addr, namespace string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "result ID",
		Short: "Wait for a spawned call, or a batch, and print what became of it",
		Long: `Waits until a spawned call has ended and prints its output; exit code 3 says that the call itself ended in an error, which is
printed. Of a batch it prints a line of JSON for each input, in their order, as they end.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given[0]) == 26 && given[0][19:] == "0000000" { // the id of a batch
				return batchResults(cmd, env, addr, given[0])
			}
			c, err := env.client(addr, client.Namespace(namespace), client.Patience(10*time.Second))
			if err != nil {
				return err
			}
			response, output, err := c.OpenResult(cmd.Context(), given[0])
			if err != nil {
				return failedCall(cmd, err, asJSON)
			}
			if asJSON {
				return printResponse(cmd.OutOrStdout(), response, output)
			}
			return printOutput(cmd, output)
		},
	}
	addClientFlags(cmd, &addr, &namespace)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: output or error, and where the time went; of a batch what is printed is JSON")
	return cmd
}

func batchResults(cmd *cobra.Command, env environment, addr, batch string) error {
	api, err := env.api(addr)
	if err != nil {
		return err
	}
	response, err := api.do(cmd.Context(), http.MethodGet, "/v1/batches/"+batch+"/results", url.Values{"follow": {"true"}}, nil)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	if _, err := io.Copy(cmd.OutOrStdout(), response.Body); err != nil {
		return fmt.Errorf("read results: %w", err)
	}
	return nil
}

func newCancel(env environment) *cobra.Command {
	return newForEach(env, "cancel", "Cancel spawned calls and batches, waiting or running", "is cancelled", cancelOne)
}

func cancelOne(ctx context.Context, api apiClient, id string) error {
	kind := "calls"
	if len(id) == 26 && id[19:] == "0000000" {
		kind = "batches"
	}
	return api.json(ctx, http.MethodPost, "/v1/"+kind+"/"+url.PathEscape(id)+"/cancel", nil, nil, nil)
}
