//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/local"
)

// readyTimeout is how long a start may take: Nomad elects itself and fingerprints in about two seconds; a machine under
// load takes several times that.
const readyTimeout = 90 * time.Second

type upOptions struct {
	state, nomad, runsc string
	domain, tls         string
	detach, auth        bool
	asJSON              bool
}

// addFlags adds the flags of every command that starts a cluster.
func (o *upOptions) addFlags(cmd *cobra.Command, env environment) {
	cmd.Flags().StringVar(&o.state, "state", env.state, "state directory")
	cmd.Flags().StringVar(&o.nomad, "nomad", env.nomad, "nomad program (default: the pinned one)")
	cmd.Flags().StringVar(&o.runsc, "runsc", env.runsc, "runsc program (default: the pinned one)")
}

func newUp(env environment) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a whole cluster on this machine",
		Long: `Runs NATS, a Nomad agent with the freshet driver, the gateway and the autoscaler on this machine, each its own
process, and starts again whichever ends. Everything it keeps is in the state directory: a second start finds every
function, queued call and result again. Ctrl-C, or 'freshet down', stops all that it started.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("start the cluster: sandboxes and cgroups need root: run `sudo freshet up`")
			}
			if o.detach {
				state, err := upDetached(cmd.Context(), env, o)
				if err != nil {
					return err
				}
				return printAddresses(cmd, state, o.asJSON)
			}
			return up(cmd, env, o)
		},
	}
	o.addFlags(cmd, env)
	cmd.Flags().BoolVar(&o.auth, "auth", false, "have the gateway ask callers for a token; this command line shows the cluster's own")
	cmd.Flags().StringVar(&o.domain, "domain", "localhost", "domain below which functions with web endpoints are app--function")
	cmd.Flags().StringVar(&o.tls, "tls", "", "address to serve with TLS too, such as 127.0.0.1:8443; the certificates' authority is tls/ca.pem in the state directory")
	cmd.Flags().BoolVarP(&o.detach, "detach", "d", false, "return once it is ready and leave it running")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print the addresses as JSON")
	return cmd
}

func up(cmd *cobra.Command, env environment, o upOptions) (err error) {
	programs, err := local.FindPrograms(o.nomad, o.runsc, env.cache)
	if err != nil {
		return err
	}
	lock, err := local.Acquire(o.state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	state, err := local.OpenState(o.state)
	if err != nil {
		return err
	}
	state.Auth, state.Domain, state.TLS = o.auth, o.domain, o.tls
	ctx := cmd.Context()
	cluster, err := local.Start(ctx, state, programs, newLogger("up").Level(zerolog.InfoLevel))
	if err != nil {
		return err
	}
	defer func() {
		fmt.Fprintln(cmd.OutOrStdout(), "Stopping: running calls get a few seconds to finish, queued ones stay queued.")
		err = errors.Join(err, cluster.Stop(context.WithoutCancel(ctx)))
	}()
	ready, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := cluster.Ready(ready); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop while starting
		}
		return err
	}
	if err := printAddresses(cmd, state, o.asJSON); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func printAddresses(cmd *cobra.Command, state *local.State, asJSON bool) error {
	addresses := map[string]string{"gateway": state.Gateway(), "nomad": state.Nomad(), "nats": state.NATS(), "autoscaler": state.Autoscaler()}
	return say(cmd, asJSON, addresses, `freshet is up.

  Gateway   %s
  Nomad     %s   (export NOMAD_ADDR=%[2]s)
  NATS      %s

Try:  freshet deploy examples/gosearch
      freshet ps
      freshet down
`, state.Gateway(), state.Nomad(), state.NATS())
}

// upDetached starts this program again in a session of its own and waits until the cluster is ready.
func upDetached(ctx context.Context, env environment, o upOptions) (*local.State, error) {
	if pid, err := local.Holder(o.state); err == nil {
		return nil, fmt.Errorf("state directory %s: %w with pid %d", o.state, local.ErrRunning, pid)
	}
	if _, err := local.FindPrograms(o.nomad, o.runsc, env.cache); err != nil {
		return nil, err
	}
	state, err := local.OpenState(o.state)
	if err != nil {
		return nil, err
	}
	child, err := startSession(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, errors.New("it took too long"))
	defer cancel()
	ended := make(chan error, 1)
	go func() { // ends with the child, at the latest when this process does
		ended <- child.Wait()
		cancel()
	}()
	if err := state.Ready(ctx); err != nil {
		select {
		case exit := <-ended:
			return nil, fmt.Errorf("start the cluster: it ended: %w; the end of %s:\n%s", exit, upLog(o.state), local.LastLines(upLog(o.state)))
		default:
			return nil, errors.Join(err, child.Process.Signal(syscall.SIGTERM))
		}
	}
	return state, nil
}

func upLog(state string) string { return state + "/up.log" }

func startSession(o upOptions) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	out, err := os.OpenFile(upLog(o.state), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = out.Close() }() // the child holds its own descriptor
	child := exec.Command(self, "up", "--state", o.state, "--nomad", o.nomad, "--runsc", o.runsc, "--auth="+strconv.FormatBool(o.auth),
		"--domain", o.domain, "--tls", o.tls)
	child.Stdout, child.Stderr = out, out
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return nil, fmt.Errorf("start the cluster: %w", err)
	}
	return child, nil
}

func newDown(env environment) *cobra.Command {
	var state string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the cluster of 'freshet up'",
		Long: `Stops the cluster that 'freshet up' runs from the state directory and waits until it is gone. Functions, queued calls
and results stay in the state directory for the next 'freshet up'.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return down(cmd, state, asJSON) },
	}
	cmd.Flags().StringVar(&state, "state", env.state, "state directory")
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func down(cmd *cobra.Command, state string, asJSON bool) error {
	pid, err := local.Holder(state)
	if errors.Is(err, local.ErrNotRunning) {
		return say(cmd, asJSON, map[string]string{"state": state, "status": "not running"}, "Nothing runs from %s.\n", state)
	}
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop pid %d: %w", pid, err)
	}
	for {
		if _, err := local.Holder(state); errors.Is(err, local.ErrNotRunning) {
			return say(cmd, asJSON, map[string]string{"state": state, "status": "stopped"}, "Stopped.\n")
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		}
	}
}

func newStatus(env environment) *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say whether the cluster of 'freshet up' runs, and where",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := local.Holder(dir); err != nil {
				return fmt.Errorf("cluster of %s: %w: start it with `freshet up`", dir, err)
			}
			state, err := local.LoadState(dir)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second)
			defer cancel()
			if err := state.Ready(ctx); err != nil {
				return err
			}
			return printAddresses(cmd, state, asJSON)
		},
	}
	cmd.Flags().StringVar(&dir, "state", env.state, "state directory")
	addJSONFlag(cmd, &asJSON)
	return cmd
}
