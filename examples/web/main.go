// Command web is a site that is one function: a page, a stream of events and an upload, from an ordinary http.Handler.
//
//	freshet deploy examples/web
//	curl -N http://127.0.0.1:8600/web/example/site/clock
package main

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/web"
)

func main() {
	site := http.NewServeMux()
	site.HandleFunc("GET /{$}", page)
	site.HandleFunc("GET /clock", clock)
	site.HandleFunc("POST /count", count)

	app := freshet.New("example")
	web.Handle(app, "site", site, freshet.Public(), freshet.Timeout(time.Minute))
	app.Main()
}

// page shows the clock. Its address is relative: the page does not know below which path it is.
func page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, `<!doctype html><title>clock</title><h1 id="now"></h1>
<script>new EventSource("clock").onmessage = (m) => document.getElementById("now").textContent = m.data</script>`)
}

// clock sends the time until the client leaves, or as often as it asked for.
func clock(w http.ResponseWriter, r *http.Request) {
	ticks, _ := strconv.Atoi(r.URL.Query().Get("ticks"))
	w.Header().Set("Content-Type", "text/event-stream")
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for sent := 0; ticks == 0 || sent < ticks; sent++ {
		fmt.Fprintf(w, "data: %s\n\n", time.Now().UTC().Format(time.TimeOnly))
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
}

// count counts words as they come, of a body of any size.
func count(w http.ResponseWriter, r *http.Request) {
	total, words := 0, make(map[string]bool)
	scanner := bufio.NewScanner(r.Body)
	scanner.Split(bufio.ScanWords)
	for scanner.Scan() {
		total++
		words[scanner.Text()] = true
	}
	if err := scanner.Err(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%d words, %d of them different\n", total, len(words))
}
