package main

import (
	"errors"
	"testing"

	"github.com/freshet-dev/freshet/sdk/client"
	"github.com/freshet-dev/freshet/sdk/freshettest"
)

// TestGreet runs the app in this process. With freshettest.Cluster(t, p.app, ".") in place of Run it would run in a real cluster.
func TestGreet(t *testing.T) {
	p := newProgram()
	greet := client.Of(freshettest.Run(t, p.app), p.greet)
	if got, err := greet.Call(t.Context(), "Ada"); err != nil || got != "Hello, Ada!" {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := greet.Call(t.Context(), "")
	if _, ok := errors.AsType[*client.InputError](err); !ok {
		t.Errorf("a name that is none: %v", err)
	}
}
