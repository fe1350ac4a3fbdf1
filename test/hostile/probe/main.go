// Command probe is the program in the sandboxes of the hostile tests: for each call, a command or a server, it does as it is told and
// says in JSON what came of it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	if len(os.Args) < 2 {
		fatal(errors.New("name a verb, or serve"))
	}
	var err error
	if os.Args[1] == "serve" {
		err = serve()
	} else {
		err = once(os.Args[1])
	}
	if err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(3)
}

// once does one thing, and prints what came of it.
func once(verb string) error {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	answer, err := do(verb, strings.TrimSpace(string(input)))
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

// serve does what the path of each request names.
func serve() error {
	if err := load(); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	mux.HandleFunc("POST /{verb}", func(w http.ResponseWriter, r *http.Request) {
		input, err := io.ReadAll(r.Body)
		if err != nil {
			return // the caller is gone
		}
		if r.PathValue("verb") == "status" {
			answerStatus(w, string(input))
			return
		}
		answer, err := do(r.PathValue("verb"), strings.TrimSpace(string(input)))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	})
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: mux} //nolint:gosec // its only client is the sandbox's own
	return server.ListenAndServe()
}

func answerStatus(w http.ResponseWriter, input string) {
	status := http.StatusTeapot
	if _, err := fmt.Sscan(input, &status); err != nil {
		status = http.StatusTeapot
	}
	http.Error(w, "as told", status)
}

// do does what the verb says.
func do(verb, with string) (any, error) {
	switch verb {
	case "echo":
		return with, nil
	case "who":
		return who()
	case "try":
		return try(), nil
	case "dial":
		return dial(with)
	case "read":
		return look(with)
	case "eat":
		return eat(with)
	case "fill":
		return fill(with)
	case "forks":
		return forks(with)
	case "flood":
		return flood(with)
	case "sleep":
		return rest(with)
	case "exit":
		return nil, exit(with)
	case "held":
		return held()
	}
	return nil, fmt.Errorf("verb %q: not known", verb)
}
