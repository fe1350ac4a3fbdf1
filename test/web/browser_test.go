package web

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// browse opens the tests' page in a browser and returns what it heard over its WebSocket and its event source.
func browse(t *testing.T, address string, options ...chromedp.ExecAllocatorOption) (socket, events string) {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Fatal("a browser is needed: it is in Debian's package chromium")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	options = append(chromedp.DefaultExecAllocatorOptions[:len(chromedp.DefaultExecAllocatorOptions):len(chromedp.DefaultExecAllocatorOptions)],
		append(options, chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()))...) // root's browser has no sandbox
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	const ended = `document.getElementById("socket").textContent.includes("closed") && document.getElementById("events").textContent.includes("done")`
	if err := chromedp.Do(ctx, chromedp.Navigate(address)); err != nil {
		t.Fatalf("browse %s: %v", address, err)
	}
	_, ending := chromedp.Run(ctx, chromedp.Poll[bool](ended, chromedp.WithPollingTimeout(time.Minute)))
	for id, into := range map[string]*string{"socket": &socket, "events": &events} {
		var err error
		if *into, err = chromedp.Run(ctx, chromedp.Evaluate[string](`document.getElementById("`+id+`").textContent`)); err != nil {
			t.Fatal(err)
		}
	}
	if ending != nil {
		t.Fatalf("browse %s: %v; its WebSocket heard %q, its event source %q", address, ending, socket, events)
	}
	return strings.TrimSpace(socket), strings.TrimSpace(events)
}

// What the tests' page hears.
const (
	heard = "message 1\nmessage 2\nmessage 3\nmessage 4\nmessage 5\nclosed 1000"
	saw   = "1: event 1\n2: event 2\n3: event 3\ndone"
)

func inABrowser(t *testing.T, address string) {
	if socket, events := browse(t, address+"/page"); socket != heard || events != saw {
		t.Errorf("the page's WebSocket heard %q, its event source %q", socket, events)
	}
}
