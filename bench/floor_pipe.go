package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/local"
)

// pipeFloor is a process with a sandbox, as a supervisor is one.
type pipeFloor struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func openPipe(self, work string) (*pipeFloor, error) {
	p := &pipeFloor{cmd: exec.Command(self, floorPipe, work)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", floorPipe, err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", floorPipe, err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", floorPipe, err)
	}
	return p, nil
}

// roundTrips has the process write to its guest and read the answer, and takes its word for how long each took.
func (p *pipeFloor) roundTrips(n int) (samples, error) {
	if _, err := fmt.Fprintln(p.in, n); err != nil {
		return nil, err
	}
	s := make(samples, 0, n)
	for range n {
		if !p.out.Scan() {
			return s, fmt.Errorf("%s ended: %w", floorPipe, p.out.Err())
		}
		nanos, err := strconv.ParseInt(p.out.Text(), 10, 64)
		if err != nil {
			return s, err
		}
		s = append(s, time.Duration(nanos))
	}
	return s, nil
}

func (p *pipeFloor) close() error { return errors.Join(p.in.Close(), p.cmd.Wait()) }

// servePipe starts a sandbox with a guest that answers lines; for each number read it makes so many round trips.
func servePipe(work string) (err error) {
	box, err := sandbox.Create(sandbox.Config{
		ID: "pipe", Runsc: os.Getenv("FRESHET_RUNSC"), StateDir: filepath.Join(work, "pipe", "state"), SharedDir: filepath.Join(work, "pipe", "shared"),
		Rootfs: filepath.Join(work, "rootfs"), Args: []string{"/guest"},
	}, zerolog.Nop())
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, box.Destroy(), local.UnmountUnder(filepath.Join(work, "pipe")))
	}()
	if err := box.Start(); err != nil {
		return err
	}
	answers := bufio.NewReader(box.Stdout)
	asked := bufio.NewScanner(os.Stdin)
	for asked.Scan() {
		n, err := strconv.Atoi(asked.Text())
		if err != nil {
			return err
		}
		s := make(samples, 0, n)
		for range n {
			began := time.Now()
			if _, err := box.Stdin.WriteString("x\n"); err != nil {
				return err
			}
			if _, err := answers.ReadString('\n'); err != nil {
				return err
			}
			s = append(s, time.Since(began))
		}
		for _, took := range s {
			fmt.Println(took.Nanoseconds())
		}
	}
	return asked.Err()
}
