package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// onTerminal tells whether what is written is read by a person at once.
func onTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// painter paints text where a terminal shows colours and nobody asked for none, as no-color.org has it.
func (e environment) painter(out io.Writer) func(text.Color, string) string {
	if e.noColor || !onTerminal(out) {
		return func(_ text.Color, line string) string { return line }
	}
	return func(color text.Color, line string) string { return color.Sprint(line) }
}

// newUploadBar shows how much of so many bytes is sent, to people alone; -1 for an unknown number.
func newUploadBar(out io.Writer, bytes int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(bytes,
		progressbar.OptionSetWriter(out), progressbar.OptionSetVisibility(onTerminal(out)), progressbar.OptionSetDescription("uploading"),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(65*time.Millisecond), progressbar.OptionFullWidth(),
		progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(),
	)
}

// addJSONFlag adds the flag of every command that prints something.
func addJSONFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

// say prints what became of a command: a sentence, or a value as JSON.
func say(cmd *cobra.Command, asJSON bool, value any, format string, words ...any) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), value)
	}
	fmt.Fprintf(cmd.OutOrStdout(), format, words...)
	return nil
}
