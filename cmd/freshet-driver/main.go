// Command freshet-driver is the Nomad task driver plugin. Nomad starts it from the agent's plugin_dir.
//
// As `freshet-driver clear -data-dir DIR …` it removes from a node what it left there, once no task runs any more.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/plugins"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "clear" {
		if err := clearNode(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// The standard streams are pipes to the agent. When it is killed, a line of log would kill the plugin too, in the middle
	// of whatever the next agent asks of it.
	signal.Ignore(syscall.SIGPIPE)
	agent := os.Getppid()
	plugins.ServeCtx(func(ctx context.Context, _ hclog.Logger) any {
		d := driver.New(ctx, newLogger())
		go func() { // ends with the process
			if d.AwaitDeserted(ctx, agent) == nil {
				os.Exit(1)
			}
		}()
		return d
	})
}

// newLogger writes the JSON lines that Nomad's plugin protocol reads from standard error and passes on to its own log.
func newLogger() zerolog.Logger {
	hook := zerolog.HookFunc(func(e *zerolog.Event, level zerolog.Level, message string) {
		e.Str("@level", level.String()).Str("@message", message).Str("@module", "freshet")
	})
	return zerolog.New(os.Stderr).Level(zerolog.DebugLevel).Hook(hook)
}

// clearNode takes what Nomad would hand to the plugin from the command line.
func clearNode(args []string) error {
	var config driver.Config
	flags := flag.NewFlagSet("freshet-driver clear", flag.ExitOnError)
	flags.StringVar(&config.DataDir, "data-dir", "", "data_dir of the plugin's config")
	flags.StringVar(&config.Runsc, "runsc", "", "runsc of the plugin's config")
	flags.StringVar(&config.Worker, "worker", "", "worker of the plugin's config")
	flags.StringVar(&config.CgroupParent, "cgroup-parent", driver.DefaultCgroupParent, "cgroup_parent of the plugin's config")
	flags.StringVar(&config.CgroupRoot, "cgroup-root", "", "cgroup_root of the plugin's config")
	flags.StringVar(&config.Network.Name, "network-name", "", "network.name of the plugin's config")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return driver.Clear(context.Background(), config, zerolog.New(os.Stderr).Level(zerolog.WarnLevel))
}
