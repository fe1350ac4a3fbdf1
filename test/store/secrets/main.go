// Command secrets is an app for the tests of secrets: its function tells what it sees of one.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strconv"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// seen is what a worker has of its secret: in the memory that its load hook made, and in its environment. Values are told by their
// digests, as answers are kept.
type seen struct {
	Loaded string `json:"loaded"`
	Now    string `json:"now"`
	User   string `json:"user"`
	// Load is another one for each load hook that ran.
	Load string `json:"load"`
}

func main() {
	var loaded, load string
	app := freshet.New("keeper")
	freshet.Func(app, "secret", func(context.Context, int) (seen, error) {
		return seen{digest(loaded), digest(os.Getenv("PASSWORD")), os.Getenv("USER"), load}, nil
	}, freshet.Secrets("db:PASSWORD"), freshet.Env("USER", "mine"), freshet.ScaledownWindow(time.Second), freshet.Scale(0, 1),
		freshet.Enter(func(context.Context) error {
			loaded, load = os.Getenv("PASSWORD"), strconv.FormatInt(time.Now().UnixNano(), 36)
			return nil
		}))
	app.Main()
}

func digest(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])
}
