//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/freshet-dev/freshet/internal/doctor"
	"github.com/freshet-dev/freshet/internal/local"
)

func newDoctor(env environment) *cobra.Command {
	var o upOptions
	var addr string
	var minFree float64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at this machine and its cluster, and say what to mend",
		Long: `Looks at all that functions need of this machine: kernel, file systems, control groups, programs and their versions, disk, ports, GPUs;
and where a cluster runs, at its NATS, driver and gateway. Says of each thing that is wrong what mends it; exit code 1 says that there is one.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			s := doctor.Setup{
				User: os.Geteuid(), Bin: filepath.Dir(self), Nomad: or(o.nomad, "nomad"), Runsc: or(o.runsc, "runsc"),
				Proc: "/proc", Cgroup: "/sys/fs/cgroup", Dev: "/dev", State: o.state, MinFree: uint64(minFree * 1e9),
			}
			if found, err := local.FindPrograms(o.nomad, o.runsc, env.cache); err == nil {
				s.Nomad, s.Runsc = found.Nomad, found.Runsc
			}
			ports := local.DefaultPorts()
			s.Ports = []int{ports.Gateway, ports.Autoscaler, ports.NATS, ports.NomadHTTP, ports.NomadRPC, ports.NomadSerf}
			if _, err := local.Holder(o.state); err == nil {
				if state, err := local.LoadState(o.state); err == nil {
					s.Ports, s.Gateway, s.NomadAPI, s.NATS, s.Token = nil, state.Gateway(), state.Nomad(), state.NATS(), state.Token
				}
			}
			if named := or(addr, env.addr); named != "" {
				at := env.at(named)
				s.Gateway, s.Token = at.address, at.token
			}
			return printFindings(cmd, doctor.Run(cmd.Context(), s), asJSON)
		},
	}
	o.addFlags(cmd, env)
	cmd.Flags().StringVar(&addr, "addr", "", addrUsage)
	cmd.Flags().Float64Var(&minFree, "min-free", 5, "what the state directory's disk must have to spare, in GB")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printFindings(cmd *cobra.Command, findings []doctor.Finding, asJSON bool) error {
	wrong := 0
	t := newTable(cmd.OutOrStdout(), "", "what", "says")
	for _, f := range findings {
		mark := "ok"
		if f.Wrong {
			wrong++
			mark = "wrong"
		}
		t.AppendRow(table.Row{mark, f.Name, f.Says})
		if f.Mend != "" {
			t.AppendRow(table.Row{"", "", "mend: " + f.Mend})
		}
	}
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), findings); err != nil {
			return err
		}
	} else {
		t.Render()
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d things are wrong", wrong, len(findings))
	}
	return nil
}
