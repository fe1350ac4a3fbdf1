package handoff

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serving answers requests in a directory whose path is longer than a socket's may be.
func serving(t *testing.T, handle Handler) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 50))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	server, err := Serve(t.Context(), dir, handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return dir
}

func TestRequestsCarryFilesAndBringAnswers(t *testing.T) {
	dir := serving(t, func(_ context.Context, request Request, _ <-chan Size, files []*os.File) Answer {
		_, _ = files[1].WriteString(request.Exec.Args[0])
		return Answer{Code: 7, Signal: len(files)}
	})
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	answer, err := Ask(t.Context(), dir, Request{Exec: &Exec{Args: []string{"hello"}}}, nil, read, write, write)
	write.Close()
	if err != nil || answer != (Answer{Code: 7, Signal: 3}) {
		t.Fatalf("got %+v, %v", answer, err)
	}
	if text, err := io.ReadAll(read); err != nil || string(text) != "hello" {
		t.Errorf("read %q, %v", text, err)
	}
}

func TestWhoeverHangsUpGivesTheRequestUp(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	dir := serving(t, func(ctx context.Context, _ Request, _ <-chan Size, _ []*os.File) Answer {
		close(began)
		<-ctx.Done()
		close(ended)
		return Answer{}
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("bored")
	asked := make(chan error, 1)
	go func() {
		_, err := Ask(ctx, dir, Request{Signal: 1}, nil)
		asked <- err
	}()
	<-began
	cancel(why)
	if err := <-asked; !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	<-ended
}

func TestSizesOfATerminalArrive(t *testing.T) {
	want := Size{Rows: 50, Columns: 100}
	dir := serving(t, func(_ context.Context, request Request, resize <-chan Size, _ []*os.File) Answer {
		for size := range resize {
			if size == want {
				return Answer{Code: int(request.Exec.Terminal.Rows)}
			}
		}
		return Answer{Error: "no size came"}
	})
	sizes := make(chan Size, 3)
	sizes <- Size{Rows: 1, Columns: 1}
	sizes <- want
	answer, err := Ask(t.Context(), dir, Request{Exec: &Exec{Args: []string{"sh"}, Terminal: &Size{Rows: 24, Columns: 80}}}, sizes)
	if err != nil || answer.Code != 24 {
		t.Errorf("got %+v, %v", answer, err)
	}
}

func TestErrorsComeBack(t *testing.T) {
	dir := serving(t, func(context.Context, Request, <-chan Size, []*os.File) Answer {
		return Answer{Error: "no such process"}
	})
	if _, err := Ask(t.Context(), dir, Request{Signal: 1}, nil); err == nil || err.Error() != "no such process" {
		t.Errorf("got %v", err)
	}
	if _, err := Ask(t.Context(), t.TempDir(), Request{Signal: 1}, nil); !errors.Is(err, ErrNoControl) {
		t.Errorf("nobody there: got %v", err)
	}
}
