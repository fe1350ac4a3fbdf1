package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/internal/busyboxtest"
)

// person is somebody at a terminal: a real one of the kernel's.
type person struct {
	*transcript

	keys *os.File
	cmd  *exec.Cmd
}

// sit starts a command in a terminal of that size.
func (s terminal) sit(t *testing.T, size unix.Winsize, args ...string) person {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	screen, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := person{new(transcript), keys, s.command(args...)}
	p.resize(t, size)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = screen, screen, screen
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := errors.Join(p.cmd.Start(), screen.Close()); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		_, _ = io.Copy(p, keys) // ends with an error when the last one of the terminal has ended
		close(read)
	}()
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait() // the test has failed before
		}
		<-read
		_ = keys.Close()
	})
	return p
}

func (p person) resize(t *testing.T, size unix.Winsize) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(p.keys.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		t.Fatal(err)
	}
}

func (p person) types(t *testing.T, text string) {
	t.Helper()
	if _, err := p.keys.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func (p person) ends(t *testing.T, code int) {
	t.Helper()
	_ = p.cmd.Wait() // the code says it
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d: %s", got, code, p)
	}
}

// boxManifest is an app of a function with a shell in its image.
const boxManifest = `{"format":1,"app":%[1]q,"functions":[
	{"app":%[1]q,"name":"run","image":%[2]q,"handler":{"type":"exec"},"command":"/bin/sh","args":["-c","echo by the function > /tmp/made; echo 0"],"env":{"A":"value of A"}}]}`

// putBox deploys it under that name.
func putBox(name, image string) error {
	address := shared.State.Gateway() + "/v1/apps/" + name
	request, err := http.NewRequest(http.MethodPut, address, strings.NewReader(fmt.Sprintf(boxManifest, name, image)))
	if err != nil {
		return err
	}
	request.Header = http.Header{"Authorization": {"Bearer " + shared.State.Token}, "Content-Type": {"application/json"}}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read only
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return nil
}

// TestShellIsATerminal: it has the size of the person's, also when that changes; Ctrl-C is for what runs in it; its exit code is the
// command's; and the person's terminal is left as it was.
func TestShellIsATerminal(t *testing.T) {
	s := newTerminal(t)
	if err := putBox("tty", "docker-archive:"+busyboxtest.Image(t, t.TempDir())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.run(t, "delete", "tty") })
	for name, args := range map[string][]string{"fresh": {"shell", "tty.run", "--fresh"}, "worker": {"shell", "tty.run"}} {
		t.Run(name, func(t *testing.T) {
			if name == "worker" {
				s.run(t, "call", "tty.run", "1")
			}
			p := s.sit(t, unix.Winsize{Row: 33, Col: 101}, args...)
			before, err := unix.IoctlGetTermios(int(p.keys.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			p.await(t, "# ")
			p.types(t, "stty size; echo $TERM\r")
			p.await(t, "33 101\r\nxterm")
			p.resize(t, unix.Winsize{Row: 44, Col: 99})
			p.types(t, "until stty size | grep '44 99'; do sleep 0.1; done\r")
			p.await(t, "\n44 99")
			p.types(t, "sh -c 'echo begins $((1+1)); exec sleep 1000'\r")
			p.await(t, "begins 2")
			p.types(t, "\x03")
			p.types(t, "echo interrupted $((1+1))\r")
			p.await(t, "interrupted 2")
			p.types(t, "exit 5\r")
			p.ends(t, 5)
			after, err := unix.IoctlGetTermios(int(p.keys.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			if *after != *before {
				t.Errorf("the terminal is left as %+v, was %+v", after, before)
			}
		})
	}
}
