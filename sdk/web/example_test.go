package web_test

import (
	"fmt"
	"net/http"

	freshet "github.com/freshet-dev/freshet/sdk"
	"github.com/freshet-dev/freshet/sdk/web"
)

// A site that everybody may see, under a host name of its own.
func ExampleHandle() {
	app := freshet.New("shop")
	site := http.NewServeMux()
	site.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "Hello from", freshet.Worker(r.Context()).Alloc)
	})
	web.Handle(app, "site", site, freshet.Public(), freshet.Domains("shop.example.org"), freshet.Origins("https://example.org"))

	manifest, err := app.Manifest()
	if err != nil {
		fmt.Println(err)
		return
	}
	f := manifest.Functions[0]
	fmt.Println(f.JobID(), f.ServesWeb(), f.Concurrency, f.Web.Public, f.Web.Domains, f.Web.Origins)
	// Output: shop.site true 100 true [shop.example.org] [https://example.org]
}
