package handoff

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Handler answers a request. The files are the request's, closed after it returned; the context ends when the asker is gone; resize
// brings later sizes of a terminal, of which the last one counts.
type Handler func(ctx context.Context, request Request, resize <-chan Size, files []*os.File) Answer

// Server answers the requests to one supervisor.
type Server struct {
	listener *net.UnixListener
	cancel   context.CancelFunc
	serving  sync.WaitGroup
}

// Serve begins to answer at the state directory's control socket, until Close.
func Serve(ctx context.Context, stateDir string, handle Handler) (*Server, error) {
	dir, err := os.Open(stateDir)
	if err != nil {
		return nil, fmt.Errorf("listen for requests: %w", err)
	}
	defer func() { _ = dir.Close() }() // a directory
	if err := os.Remove(filepath.Join(stateDir, ControlFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen for requests: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketAddress(dir), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for requests: %w", err)
	}
	listener.SetUnlinkOnClose(false) // its name leads through a descriptor that is closed by then; the directory goes as a whole
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Server{listener: listener, cancel: cancel}
	s.serving.Go(func() { s.accept(ctx, handle) })
	return s, nil
}

func (s *Server) accept(ctx context.Context, handle Handler) {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			return // closed
		}
		s.serving.Go(func() { serve(ctx, conn, handle) })
	}
}

// serve answers one connection. Whoever asks closes its connection to give up.
func serve(ctx context.Context, conn *net.UnixConn, handle Handler) {
	defer func() { _ = conn.Close() }() // the asker sees the end
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	request, more, files, err := receive(conn)
	defer closeFiles(files)
	answer := Answer{}
	if err != nil {
		answer.Error = err.Error()
	} else {
		var watch sync.WaitGroup
		resize := make(chan Size, 1)
		watch.Go(func() { hear(more, resize, cancel) })
		answer = handle(ctx, request, resize, files)
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // ends hear; fails only when it has ended
		watch.Wait()
	}
	if !stop() {
		return // the asker or the server is gone
	}
	_ = json.NewEncoder(conn).Encode(answer) // nobody is left to tell when it fails
}

// hear passes on the terminal's sizes that the asker sends, the newest alone where they are not taken, and cancels when it closes
// the connection.
func hear(more *json.Decoder, resize chan Size, cancel context.CancelFunc) {
	for {
		var size Size
		if err := more.Decode(&size); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				cancel()
			}
			return
		}
		select {
		case <-resize:
		default:
		}
		resize <- size // there is room: nobody else sends
	}
}

func closeFiles(files []*os.File) {
	for _, file := range files {
		_ = file.Close() // the process has its own
	}
}

// receive reads a request and the files that came with it; what the asker sends later comes from the decoder.
func receive(conn *net.UnixConn) (Request, *json.Decoder, []*os.File, error) {
	const mostFiles = 3
	first, control := make([]byte, 1), make([]byte, unix.CmsgSpace(mostFiles*4))
	n, controls, _, _, err := conn.ReadMsgUnix(first, control)
	if err != nil || n != 1 {
		return Request{}, nil, nil, fmt.Errorf("read request: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	files, err := receivedFiles(control[:controls])
	if err != nil {
		return Request{}, nil, files, err
	}
	in := json.NewDecoder(io.MultiReader(bytes.NewReader(first), conn))
	var request Request
	if err := in.Decode(&request); err != nil {
		return Request{}, nil, files, fmt.Errorf("read request: %w", err)
	}
	return request, in, files, nil
}

func receivedFiles(control []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("read the request's files: %w", err)
	}
	var files []*os.File
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil {
			return files, fmt.Errorf("read the request's files: %w", err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "stream"))
		}
	}
	return files, nil
}

// Close ends all requests and waits until their handlers returned.
func (s *Server) Close() {
	s.cancel()
	_ = s.listener.Close() // nothing is written through it
	s.serving.Wait()
}
