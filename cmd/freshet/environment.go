package main

import (
	"os"
	"path/filepath"

	"github.com/rs/zerolog"
	"golang.org/x/term"
)

// environment is everything read from the process's environment: the only place that does.
type environment struct {
	// addr is the gateway's address, from FRESHET_ADDR.
	addr string
	// state is the state directory of `freshet up`, from FRESHET_STATE.
	state string
	// cache is where pinned tools are, and the versions of the SDK that this program brings, from FRESHET_CACHE.
	cache string
	// sdk is a folder of the Go SDK's source to build new apps with, from FRESHET_SDK.
	sdk string
	// nomad and runsc are paths of those tools, from FRESHET_NOMAD and FRESHET_RUNSC.
	nomad, runsc string
	// token is what the gateway is shown, from FRESHET_TOKEN.
	token string
	// rootToken is what a gateway takes from its operator, from FRESHET_ROOT_TOKEN.
	rootToken string
	// callbackSecret signs what a gateway tells callers, from FRESHET_CALLBACK_SECRET.
	callbackSecret string
	// context names one of the clusters of contexts, a file: from FRESHET_CONTEXT. chosen is that of --context, which stands above it.
	context  string
	chosen   *string
	contexts string
	// namespace is the environment of commands that name none, from FRESHET_NAMESPACE.
	namespace string
	// noColor leaves colours away, from NO_COLOR.
	noColor bool
	// natsUser and natsPassword are a component's, from FRESHET_NATS_USER and FRESHET_NATS_PASSWORD.
	natsUser, natsPassword string
}

func newEnvironment() environment {
	return environment{
		addr:           os.Getenv("FRESHET_ADDR"),
		state:          or(os.Getenv("FRESHET_STATE"), defaultState()),
		cache:          or(os.Getenv("FRESHET_CACHE"), defaultCache()),
		sdk:            os.Getenv("FRESHET_SDK"),
		nomad:          os.Getenv("FRESHET_NOMAD"),
		runsc:          os.Getenv("FRESHET_RUNSC"),
		token:          os.Getenv("FRESHET_TOKEN"),
		rootToken:      os.Getenv("FRESHET_ROOT_TOKEN"),
		callbackSecret: os.Getenv("FRESHET_CALLBACK_SECRET"),
		context:        os.Getenv("FRESHET_CONTEXT"),
		chosen:         new(string),
		contexts:       defaultContexts(),
		namespace:      os.Getenv("FRESHET_NAMESPACE"),
		noColor:        os.Getenv("NO_COLOR") != "",
		natsUser:       os.Getenv("FRESHET_NATS_USER"),
		natsPassword:   os.Getenv("FRESHET_NATS_PASSWORD"),
	}
}

func or(value, otherwise string) string {
	if value != "" {
		return value
	}
	return otherwise
}

// defaultState follows the XDG base directories, and for root the file system hierarchy.
func defaultState() string {
	if os.Geteuid() == 0 {
		return "/var/lib/freshet"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "freshet")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "freshet-state")
	}
	return filepath.Join(home, ".local", "state", "freshet")
}

func defaultCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "freshet")
}

// defaultContexts is the file of contexts in the user's folder of configuration.
func defaultContexts() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "" // no home, as of daemons: there are no contexts
	}
	return filepath.Join(dir, "freshet", "contexts.hcl")
}

// newLogger writes for people on a terminal and JSON lines elsewhere.
func newLogger(component string) zerolog.Logger {
	if term.IsTerminal(int(os.Stderr.Fd())) {
		out := zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: "15:04:05.000"}
		return zerolog.New(out).With().Timestamp().Logger()
	}
	return zerolog.New(os.Stderr).With().Timestamp().Str("component", component).Logger()
}
