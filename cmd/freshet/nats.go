//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/local"
)

func newNATS(env environment) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:    "nats",
		Short:  "Run the NATS server of 'freshet up'",
		Hidden: true, // a cluster runs its own NATS
		Args:   args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := local.LoadState(dir)
			if err != nil {
				return err
			}
			options := state.NATSOptions()
			embedded, err := server.NewServer(options)
			if err != nil {
				return fmt.Errorf("set up nats: %w", err)
			}
			embedded.SetLogger(natsLogger{newLogger("nats")}, false, false)
			embedded.Start()
			defer embedded.WaitForShutdown()
			defer embedded.Shutdown()
			if !embedded.ReadyForConnections(30 * time.Second) {
				return errors.New("start nats: it does not accept connections")
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "state", env.state, "state directory")
	return cmd
}

// natsLogger gives the server's words to zerolog.
type natsLogger struct{ log zerolog.Logger }

func (l natsLogger) Noticef(format string, v ...any) { l.log.Info().Msgf(format, v...) }
func (l natsLogger) Warnf(format string, v ...any)   { l.log.Warn().Msgf(format, v...) }
func (l natsLogger) Errorf(format string, v ...any)  { l.log.Error().Msgf(format, v...) }
func (l natsLogger) Fatalf(format string, v ...any)  { l.log.Error().Msgf(format, v...) }
func (l natsLogger) Debugf(format string, v ...any)  { l.log.Debug().Msgf(format, v...) }
func (l natsLogger) Tracef(format string, v ...any)  { l.log.Trace().Msgf(format, v...) }
