package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
)

// builtImage is an image as the gateway shows it.
type builtImage struct {
	Name      string    `json:"name,omitempty"`
	Reference string    `json:"reference"`
	Bytes     int64     `json:"bytes"`
	Built     time.Time `json:"built"`
}

func newImage(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build images, list and remove them",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImageBuild(env), newImageList(env), newImageRemove(env), newImageBootstrap(env))
	return cmd
}

func newImageList(env environment) *cobra.Command {
	var addr string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the images that were built in the cluster",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			var list []builtImage
			if err := api.get(cmd.Context(), "/v1/images", nil, &list); err != nil {
				return fmt.Errorf("list images: %w", err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			printImages(cmd.OutOrStdout(), list)
			return nil
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "", addrUsage)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printImages(out io.Writer, list []builtImage) {
	if len(list) == 0 {
		fmt.Fprintln(out, "No images: build one with `freshet image build`.")
		return
	}
	t := newTable(out, "name", "size", "built", "reference")
	for _, image := range list {
		t.AppendRow(table.Row{or(image.Name, "-"), fmt.Sprintf("%d MB", image.Bytes>>20), image.Built.Local().Format(time.DateTime), image.Reference})
	}
	t.Render()
}

func newImageRemove(env environment) *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:   "rm NAME|sha256:DIGEST...",
		Short: "Remove images that no function uses",
		Args:  args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(addr)
			if err != nil {
				return err
			}
			for _, name := range given {
				if err := api.json(cmd.Context(), http.MethodDelete, "/v1/images/"+url.PathEscape(name), nil, nil, nil); err != nil {
					return fmt.Errorf("remove %s: %w", name, err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Removed %s.\n", name)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "", addrUsage)
	return cmd
}
