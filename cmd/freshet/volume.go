package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/freshet-dev/freshet/internal/volumes"
)

// volumeRow is what the gateway says of a volume.
type volumeRow struct {
	Name      string    `json:"name"`
	Changed   time.Time `json:"changed"`
	Functions []string  `json:"functions"`
}

// storedRow is what the gateway stored.
type storedRow struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

const tarType = "application/x-tar"

func newVolume(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Make volumes, which functions share, and put files into them and get them out",
		Example: `  freshet volume create models
  freshet volume put models ./llama llama
  freshet volume ls models llama
  freshet volume get results report.csv -`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newVolumeCreate(env), newVolumeList(env), newVolumePut(env), newVolumeGet(env), newVolumeRemove(env), newVolumeDelete(env))
	return cmd
}

func volumePath(name, what string) string { return "/v1/volumes/" + url.PathEscape(name) + what }

type volumeOptions struct {
	addr, namespace   string
	recursive, asJSON bool
	force, quiet      bool
}

func newVolumeCreate(env environment) *cobra.Command {
	var o volumeOptions
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make an empty volume",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			var row volumeRow
			if err := api.json(cmd.Context(), http.MethodPut, volumePath(given[0], ""), url.Values{"namespace": {o.namespace}}, nil, &row); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Volume %s is made. A function has it by volume { name = %q  target = \"/%s\" }.\n", row.Name, row.Name, row.Name)
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	return cmd
}

func newVolumeList(env environment) *cobra.Command {
	var o volumeOptions
	cmd := &cobra.Command{
		Use:   "ls [NAME [PATH]]",
		Short: "List volumes, or the files in one",
		Args:  args(cobra.MaximumNArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			if len(given) == 0 {
				return listVolumes(cmd, api, o)
			}
			within := ""
			if len(given) == 2 {
				within = given[1]
			}
			return listFiles(cmd, api, given[0], within, o)
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().BoolVarP(&o.recursive, "recursive", "r", false, "all that is below, not only what is right in the folder")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON; of files a line each")
	return cmd
}

func listVolumes(cmd *cobra.Command, api apiClient, o volumeOptions) error {
	var rows []volumeRow
	if err := api.get(cmd.Context(), "/v1/volumes", url.Values{"namespace": {o.namespace}}, &rows); err != nil {
		return err
	}
	if o.asJSON {
		return printJSON(cmd.OutOrStdout(), rows)
	}
	t := newTable(cmd.OutOrStdout(), "name", "changed", "functions")
	for _, row := range rows {
		t.AppendRow(table.Row{row.Name, row.Changed.Local().Format(time.DateTime), or(strings.Join(row.Functions, ","), "-")})
	}
	t.Render()
	return nil
}

func listFiles(cmd *cobra.Command, api apiClient, name, within string, o volumeOptions) error {
	query := url.Values{"namespace": {o.namespace}, "path": {within}, "recursive": {strconv.FormatBool(o.recursive)}}
	response, err := api.do(cmd.Context(), http.MethodGet, volumePath(name, "/files"), query, nil)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read to its end below
	out := bufio.NewWriter(cmd.OutOrStdout())
	lines := json.NewDecoder(response.Body)
	for {
		var entry volumes.Entry
		err := lines.Decode(&entry)
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return errors.Join(out.Flush(), fmt.Errorf("read the list: %w", err))
		}
		if o.asJSON {
			if err := json.NewEncoder(out).Encode(entry); err != nil {
				return fmt.Errorf("print the list: %w", err)
			}
			continue
		}
		shown := entry.Path
		if entry.Kind == volumes.KindDir {
			shown += "/"
		}
		fmt.Fprintf(out, "%-5s %s %12d  %s  %s\n", entry.Kind, entry.Mode, entry.Size, entry.Modified.Local().Format(time.DateTime), shown)
	}
}

func newVolumePut(env environment) *cobra.Command {
	var o volumeOptions
	cmd := &cobra.Command{
		Use:   "put NAME LOCAL|- [PATH]",
		Short: "Store a file or a folder with all that is in it",
		Long: `Stores a local file under PATH in the volume, by default its own name at the top; - is standard input. Of a folder, what is in it is
stored below PATH, links as links. A file that is there already is replaced at once by the whole new one. Where PATH ends in / a file
keeps its name below it.`,
		Args: args(cobra.RangeArgs(2, 3)),
		RunE: func(cmd *cobra.Command, given []string) error { return putFiles(cmd, env, o, given) },
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print what was stored as JSON")
	return cmd
}

func putFiles(cmd *cobra.Command, env environment, o volumeOptions, given []string) error {
	name, local, to := given[0], given[1], ""
	if len(given) == 3 {
		to = given[2]
	}
	api, err := env.api(o.addr)
	if err != nil {
		return err
	}
	source, err := openSource(cmd, local)
	if err != nil {
		return err
	}
	defer source.close()
	if !source.folder && (to == "" || strings.HasSuffix(to, "/")) {
		if local == "-" {
			return usagef(cmd, "put -: name the file in the volume: freshet volume put %s - PATH", name)
		}
		to = path.Join(to, filepath.Base(local))
	}
	bar := newByteBar(cmd.ErrOrStderr(), source.size, o.quiet)
	reader := progressbar.NewReader(source, bar)
	query := url.Values{"namespace": {o.namespace}, "path": {to}}
	if source.mode != "" {
		query.Set("mode", source.mode)
	}
	request := volumeBody{path: volumePath(name, "/content"), query: query, body: &reader, contentType: "application/octet-stream", size: source.size}
	if source.folder {
		request.contentType, request.size = tarType, -1
	}
	var stored storedRow
	if err := api.put(cmd.Context(), request, &stored); err != nil {
		return errors.Join(source.failed(), err)
	}
	_ = bar.Finish() // a bar that cannot be drawn is no failure
	if o.asJSON {
		return printJSON(cmd.OutOrStdout(), stored)
	}
	files := "files"
	if stored.Files == 1 {
		files = "file"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "Stored %d %s in volume %s.\n", stored.Files, files, name)
	return nil
}

// newByteBar shows how much was copied, on a terminal alone; of an unknown size it shows what there is so far.
func newByteBar(out io.Writer, size int64, quiet bool) *progressbar.ProgressBar {
	file, ok := out.(*os.File)
	visible := !quiet && ok && term.IsTerminal(int(file.Fd()))
	return progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(out), progressbar.OptionSetVisibility(visible), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(65*time.Millisecond), progressbar.OptionFullWidth(), progressbar.OptionSetPredictTime(true),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(out) }),
	)
}

func newVolumeGet(env environment) *cobra.Command {
	var o volumeOptions
	cmd := &cobra.Command{
		Use:   "get NAME PATH [LOCAL|-]",
		Short: "Fetch a file, or a folder with all that is in it",
		Long: `Fetches a file into LOCAL, by default its own name in the current folder; - is standard output. Of a folder, what is in it is put below
LOCAL, which is made where it is missing; - writes it as a tar. Links are fetched as links, and nothing is written outside of LOCAL.`,
		Args: args(cobra.RangeArgs(2, 3)),
		RunE: func(cmd *cobra.Command, given []string) error { return getFiles(cmd, env, o, given) },
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func getFiles(cmd *cobra.Command, env environment, o volumeOptions, given []string) error {
	name, from := given[0], given[1]
	local := path.Base(path.Clean("/" + from))
	if len(given) == 3 {
		local = given[2]
	}
	if local == "/" {
		local = name // the whole volume
	}
	api, err := env.api(o.addr)
	if err != nil {
		return err
	}
	response, err := api.do(cmd.Context(), http.MethodGet, volumePath(name, "/content"), url.Values{"namespace": {o.namespace}, "path": {from}}, nil)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read to its end below
	bar := newByteBar(cmd.ErrOrStderr(), response.ContentLength, o.quiet)
	reader := progressbar.NewReader(response.Body, bar)
	switch {
	case local == "-":
		if _, err := io.Copy(cmd.OutOrStdout(), &reader); err != nil {
			return fmt.Errorf("fetch %s: %w", from, err)
		}
	case response.Header.Get("Content-Type") == tarType:
		err = fetchFolder(local, &reader)
	default:
		err = fetchFile(local, from, &reader)
	}
	_ = bar.Finish() // a bar that cannot be drawn is no failure
	return err
}

// fetchFolder unpacks what comes. What a volume holds is as hostile as its functions: nothing of it gets out of the folder.
func fetchFolder(local string, in io.Reader) error {
	if err := os.MkdirAll(local, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	tree, err := volumes.OpenTree(local)
	if err != nil {
		return err
	}
	defer tree.Close()
	if _, err := tree.Unpack("", in); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // that it was whole is known at its end
		return fmt.Errorf("fetch folder: %w", err)
	}
	return nil
}

// fetchFile writes what comes beside the local file, and puts it in its place when it is whole.
func fetchFile(local, from string, in io.Reader) error {
	if info, err := os.Stat(local); err == nil && info.IsDir() {
		local = filepath.Join(local, path.Base(from))
	}
	partial, err := os.CreateTemp(filepath.Dir(local), ".freshet-get-*")
	if err != nil {
		return fmt.Errorf("fetch %s: %w", from, err)
	}
	_, err = io.Copy(partial, in)
	if err = errors.Join(err, partial.Chmod(0o644), partial.Close()); err == nil {
		err = os.Rename(partial.Name(), local)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("fetch %s: %w", from, err), os.Remove(partial.Name()))
	}
	return nil
}

func newVolumeRemove(env environment) *cobra.Command {
	var o volumeOptions
	cmd := &cobra.Command{
		Use:   "rm NAME PATH...",
		Short: "Remove files of a volume",
		Args:  args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			for _, file := range given[1:] {
				query := url.Values{"namespace": {o.namespace}, "path": {file}, "recursive": {strconv.FormatBool(o.recursive)}}
				if err := api.json(cmd.Context(), http.MethodDelete, volumePath(given[0], "/content"), query, nil, nil); err != nil {
					return err
				}
			}
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().BoolVarP(&o.recursive, "recursive", "r", false, "folders too, with all that is in them")
	return cmd
}

func newVolumeDelete(env environment) *cobra.Command {
	var o volumeOptions
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Remove a volume with all that is in it",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			api, err := env.api(o.addr)
			if err != nil {
				return err
			}
			query := url.Values{"namespace": {o.namespace}, "force": {strconv.FormatBool(o.force)}}
			if err := api.json(cmd.Context(), http.MethodDelete, volumePath(given[0], ""), query, nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Volume %s is deleted.\n", given[0])
			return nil
		},
	}
	addClientFlags(cmd, &o.addr, &o.namespace)
	cmd.Flags().BoolVar(&o.force, "force", false, "also one that functions use, whose next worker then does not start")
	return cmd
}
