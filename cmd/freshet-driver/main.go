// Command freshet-driver is the Nomad task driver plugin. Nomad starts it from the agent's plugin_dir.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/plugins"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver"
)

func main() {
	// The standard streams are pipes to the agent. When it is killed, a line of log would kill the plugin too, in the middle
	// of whatever the next agent asks of it.
	signal.Ignore(syscall.SIGPIPE)
	plugins.ServeCtx(func(ctx context.Context, _ hclog.Logger) any {
		return driver.New(ctx, newLogger())
	})
}

// newLogger writes the JSON lines that Nomad's plugin protocol reads from standard error and passes on to its own log.
func newLogger() zerolog.Logger {
	hook := zerolog.HookFunc(func(e *zerolog.Event, level zerolog.Level, message string) {
		e.Str("@level", level.String()).Str("@message", message).Str("@module", "freshet")
	})
	return zerolog.New(os.Stderr).Level(zerolog.DebugLevel).Hook(hook)
}
