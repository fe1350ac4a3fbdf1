package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/local"
)

// The floors' processes: each part runs apart from its client, as in the system.
const (
	floorHTTP = "floor-http"
	floorNATS = "floor-nats"
	floorPipe = "floor-pipe"
)

func runFloor(ctx context.Context, name string, args []string) error {
	switch {
	case name == floorHTTP:
		return serveHTTP(ctx)
	case name == floorNATS && len(args) == 1:
		return serveNATS(ctx, args[0])
	case name == floorPipe && len(args) == 1:
		return servePipe(args[0])
	}
	return fmt.Errorf("%s: bench takes no arguments", name)
}

// floors are the running parts.
type floors struct {
	self     string
	children []*exec.Cmd
	http     string
	nats     *natsFloor
	pipe     *pipeFloor
}

func startFloors(ctx context.Context, s *system) (*floors, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	f := &floors{self: self}
	if f.http, err = f.child(floorHTTP); err != nil {
		return nil, err
	}
	url, err := f.child(floorNATS, filepath.Join(s.work, "floor-nats"))
	if err != nil {
		return nil, errors.Join(err, f.stop())
	}
	if f.nats, err = openNATS(ctx, url); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	if err := buildGuest(ctx, "./driver/sandbox/testdata/guest", filepath.Join(s.work, "rootfs")); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	if f.pipe, err = openPipe(self, s.work); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	return f, nil
}

// child starts a part and reads its address.
func (f *floors) child(args ...string) (string, error) {
	cmd := exec.Command(f.self, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", fmt.Errorf("start %s: %w", args[0], err)
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start %s: %w", args[0], err)
	}
	f.children = append(f.children, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("start %s: %w", args[0], err)
	}
	return strings.TrimSpace(line), nil
}

func (f *floors) stop() error {
	if f.nats != nil {
		f.nats.close()
	}
	var err error
	if f.pipe != nil {
		err = f.pipe.close()
	}
	for _, cmd := range f.children {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	}
	return err
}

func serveHTTP(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + listener.Addr().String())
	empty := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	defer context.AfterFunc(ctx, func() { _ = empty.Close() })() // it serves nothing of worth
	if err := empty.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// roundTrips posts to the empty handler, one after the other.
func (f *floors) roundTrips(ctx context.Context, client *http.Client, n int) (samples, error) {
	s := make(samples, 0, n)
	for range n {
		began := time.Now()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.http, bytes.NewReader(input))
		if err != nil {
			return s, err
		}
		response, err := client.Do(request)
		if err != nil {
			return s, err
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return s, err
		}
		if err := response.Body.Close(); err != nil {
			return s, err
		}
		s = append(s, time.Since(began))
	}
	return s, nil
}

func serveNATS(ctx context.Context, dir string) error {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("NATS does not get ready")
	}
	fmt.Println(s.ClientURL())
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// natsFloor is a work queue with a worker that answers at once, as short as nats.go makes it.
type natsFloor struct {
	caller, worker *nats.Conn
	js             jetstream.JetStream
	pulling        jetstream.ConsumeContext
	single         *floorCaller
}

const (
	floorStream  = "FLOOR"
	floorSubject = "floor.calls"
	replyHeader  = "Reply-To"
)

func openNATS(ctx context.Context, url string) (*natsFloor, error) {
	f := &natsFloor{}
	var err error
	if f.caller, err = nats.Connect(url); err != nil {
		return nil, err
	}
	if f.worker, err = nats.Connect(url); err != nil {
		return nil, err
	}
	if f.js, err = jetstream.New(f.caller); err != nil {
		return nil, err
	}
	config := jetstream.StreamConfig{Name: floorStream, Subjects: []string{floorSubject}, Retention: jetstream.WorkQueuePolicy}
	if _, err := f.js.CreateStream(ctx, config); err != nil {
		return nil, err
	}
	pulls, err := jetstream.New(f.worker)
	if err != nil {
		return nil, err
	}
	consumer, err := pulls.CreateConsumer(ctx, floorStream, jetstream.ConsumerConfig{Durable: "floor", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1000})
	if err != nil {
		return nil, err
	}
	f.pulling, err = consumer.Consume(func(msg jetstream.Msg) {
		_ = f.worker.Publish(msg.Headers().Get(replyHeader), msg.Data()) // a lost answer is noticed by its caller
		_ = msg.Ack()
	}, jetstream.PullMaxMessages(64))
	if err != nil {
		return nil, err
	}
	f.single, err = f.newCaller()
	return f, err
}

func (f *natsFloor) close() {
	f.pulling.Stop()
	f.worker.Close()
	f.caller.Close()
}

// floorCaller publishes and waits for answers on a subject of its own.
type floorCaller struct {
	floor   *natsFloor
	replies *nats.Subscription
	msg     *nats.Msg
}

func (f *natsFloor) newCaller() (*floorCaller, error) {
	inbox := f.caller.NewInbox()
	replies, err := f.caller.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	return &floorCaller{floor: f, replies: replies, msg: &nats.Msg{Subject: floorSubject, Data: input, Header: nats.Header{replyHeader: {inbox}}}}, nil
}

func (c *floorCaller) call(ctx context.Context) error {
	if _, err := c.floor.js.PublishMsg(ctx, c.msg); err != nil {
		return err
	}
	_, err := c.replies.NextMsgWithContext(ctx)
	return err
}

func (f *natsFloor) roundTrips(ctx context.Context, n int) (samples, error) {
	s := make(samples, 0, n)
	for range n {
		began := time.Now()
		if err := f.single.call(ctx); err != nil {
			return s, err
		}
		s = append(s, time.Since(began))
	}
	return s, nil
}

// rate is the calls a second with some in flight.
func (f *natsFloor) rate(ctx context.Context, inFlight, n int) (float64, error) {
	callers := make([]*floorCaller, inFlight)
	for i := range callers {
		var err error
		if callers[i], err = f.newCaller(); err != nil {
			return 0, err
		}
	}
	return inParallel(inFlight, n, func(i int) error { return callers[i].call(ctx) })
}

// inParallel shares n calls among some callers and returns how many a second they made.
func inParallel(callers, n int, call func(caller int) error) (float64, error) {
	var group sync.WaitGroup
	failed := make([]error, callers)
	began := time.Now()
	for i := range callers {
		group.Go(func() {
			for range n / callers {
				if failed[i] = call(i); failed[i] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	return float64(n/callers*callers) / time.Since(began).Seconds(), errors.Join(failed...)
}

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

// buildGuest builds a program as the only file of a root.
func buildGuest(ctx context.Context, pkg, rootfs string) error {
	for _, dir := range []string{"proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(rootfs, dir), 0o755); err != nil {
			return err
		}
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(rootfs, "guest"), pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
}
