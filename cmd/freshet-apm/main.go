// Command freshet-apm is an APM plugin for nomad-autoscaler, which starts it: put it into the plugin directory and write
// driver = "freshet-apm". Package apm says what can be asked.
package main

import (
	"context"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad-autoscaler/plugins"

	"github.com/freshet-dev/freshet/scheduler-ext/apm"
)

func main() {
	plugins.Serve(func(log hclog.Logger) any { return apm.New(context.Background(), log) })
}
