// Command testing is an app with its test: see main_test.go.
package main

import (
	"context"
	"fmt"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// program is the app and the handles by which its test calls it.
type program struct {
	app   *freshet.App
	greet freshet.Handle[string, string]
}

func newProgram() program {
	app := freshet.New("testing")
	return program{app, freshet.Func(app, "greet", greet)}
}

func greet(_ context.Context, name string) (string, error) {
	if name == "" {
		return "", freshet.InputError("whom?")
	}
	return fmt.Sprintf("Hello, %s!", name), nil
}

func main() { newProgram().app.Main() }
