package sandbox

import (
	"fmt"
	"time"

	"github.com/rs/zerolog"
	gvisorlog "gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"
	"gvisor.dev/gvisor/runsc/specutils"
)

// configure sets what gVisor keeps in globals: where its program is and where it logs.
func configure(cfg Config, log zerolog.Logger) error {
	if cfg.Runsc == "" {
		return fmt.Errorf("create sandbox: runsc: %q: name the pinned runsc binary", cfg.Runsc)
	}
	specutils.ExePath = cfg.Runsc
	gvisorlog.SetTarget(emitter{log})
	if cfg.DebugDir != "" {
		gvisorlog.SetLevel(gvisorlog.Debug)
	} else {
		gvisorlog.SetLevel(gvisorlog.Warning)
	}
	return nil
}

// newConfig is gVisor's configuration: its defaults, and what a function's sandbox needs otherwise.
func newConfig(cfg Config) (*config.Config, error) {
	flags := flag.NewFlagSet("runsc", flag.ContinueOnError)
	config.RegisterFlags(flags)
	platform := cfg.Platform
	if platform == "" {
		platform = "systrap"
	}
	settings := []struct{ name, value string }{
		{"root", cfg.StateDir},
		{"shared-root", cfg.SharedDir},
		{"platform", platform},
		// The pinned runsc is one program built from the module proxy: it has no separate sentry beside it.
		{"sidecar-usage-policy", "LEGACY_DEPRECATED_SLOW_EMBEDDED_FALLBACK"},
		{"network", "none"},
		// The driver puts the whole tree of processes into the task's cgroup.
		{"ignore-cgroups", "true"},
		// A check of /proc/sys settings, each start: the node's fingerprint is the place for that.
		{"host-settings", "ignore"},
		// The root is shared by all workers of a function and never written; what a guest writes stays in its memory.
		{"overlay2", "all:memory"},
	}
	if cfg.DebugDir != "" {
		settings = append(settings, []struct{ name, value string }{{"debug", "true"}, {"debug-log", cfg.DebugDir + "/"}}...)
	}
	for _, s := range settings {
		if err := flags.Set(s.name, s.value); err != nil {
			return nil, fmt.Errorf("set gVisor's %s to %q: %w", s.name, s.value, err)
		}
	}
	conf, err := config.NewFromFlags(flags)
	if err != nil {
		return nil, fmt.Errorf("configure gVisor: %w", err)
	}
	return conf, nil
}

// emitter gives gVisor's log to zerolog, for debugging only: what fails comes back as an error, and its warnings are mostly
// about how it was built.
type emitter struct{ log zerolog.Logger }

// Emit implements gVisor's log.Emitter.
func (e emitter) Emit(_ int, level gvisorlog.Level, _ time.Time, format string, v ...any) {
	e.log.Debug().Str("source", "gvisor").Stringer("gvisor_level", level).Msg(fmt.Sprintf(format, v...))
}
