package driver

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/nomad/plugins/base"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// TestPluginEndsWithAnAgentThatDidNotConfigureIt has the parent of a fresh plugin killed, of which no other agent would know.
func TestPluginEndsWithAnAgentThatDidNotConfigureIt(t *testing.T) {
	agent := exec.Command("sh", "-c", `"$0" & echo $!; wait`, program(t, "FRESHET_BIN", "freshet-driver"))
	agent.Env = append(os.Environ(), base.Handshake.MagicCookieKey+"="+base.Handshake.MagicCookieValue)
	said, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(said)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lines.ReadString('\n'); err != nil { // where it listens: it runs
		t.Fatal(err)
	}
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()                                                // it was killed
	t.Cleanup(func() { _ = syscall.Kill(plugin, syscall.SIGKILL) }) // when it did not end
	eventually.True(t, "the plugin ended", func() bool { return syscall.Kill(plugin, 0) != nil })
}
