// Command volumes is an app for the tests of volumes: its functions do with files what they are told.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	freshet "github.com/freshet-dev/freshet/sdk"
)

func main() {
	app := freshet.New("sharer")
	shared := []freshet.Option{freshet.Volume("shared", "/shared"), freshet.ScaledownWindow(time.Second), freshet.Scale(0, 1)}
	freshet.Func(app, "write", act, shared...)
	freshet.Func(app, "look", act, append(shared, freshet.Enter(func(context.Context) error {
		frozen = try(order{Do: "read", Path: "/shared/first"})
		return nil
	}))...)
	freshet.Func(app, "readonly", act, freshet.ReadonlyVolume("shared", "/shared"), freshet.ScaledownWindow(time.Second), freshet.Scale(0, 1))
	app.Main()
}

// order is what to do with a file.
type order struct {
	Do   string `json:"do"`
	Path string `json:"path"`
	With string `json:"with"`
}

// done is what came of it.
type done struct {
	Text  string `json:"text"`
	Error string `json:"error"`
	// Frozen is what the load hook read.
	Frozen string `json:"frozen"`
}

// frozen is in the memory of the frozen worker.
var frozen done

func act(_ context.Context, o order) (done, error) {
	result := try(o)
	result.Frozen = frozen.Text
	return result, nil
}

func try(o order) done {
	text, err := perform(o)
	if err != nil {
		return done{Error: err.Error()}
	}
	return done{Text: text}
}

func perform(o order) (string, error) {
	switch o.Do {
	case "read":
		data, err := os.ReadFile(o.Path)
		return string(data), err
	case "write":
		return "", os.WriteFile(o.Path, []byte(o.With), 0o644)
	case "append":
		file, err := os.OpenFile(o.Path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		_, err = file.WriteString(o.With)
		return "", errors.Join(err, file.Close())
	case "replace":
		if err := os.WriteFile(o.Path+".new", []byte(o.With), 0o644); err != nil {
			return "", err
		}
		return "", os.Rename(o.Path+".new", o.Path)
	case "remove":
		return "", os.Remove(o.Path)
	case "link":
		return "", os.Symlink(o.With, o.Path)
	case "list":
		names, err := filepath.Glob(o.Path)
		return strings.Join(names, " "), err
	case "sum":
		file, err := os.Open(o.Path)
		if err != nil {
			return "", err
		}
		defer func() { _ = file.Close() }() // read only
		sum := sha256.New()
		_, err = io.Copy(sum, file)
		return hex.EncodeToString(sum.Sum(nil)), err
	}
	return "", errors.New("do " + o.Do + "?")
}
