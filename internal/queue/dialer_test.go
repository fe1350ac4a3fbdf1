package queue_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/internal/queue"
)

// dial connects to a peer by the Dialer; peer is the other end.
func dial(t *testing.T) (conn, peer net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }() // the connection stays
	if conn, err = (queue.Dialer{}).Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // most tests close it themselves
	if peer, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() }) // as above
	return conn, peer
}

func TestConnectionSendsAllInOrderBeforeItCloses(t *testing.T) {
	const writers, lines = 64, 500
	conn, peer := dial(t)
	var writing sync.WaitGroup
	for writer := range writers {
		writing.Go(func() {
			for line := range lines {
				if _, err := fmt.Fprintf(conn, "%d %d\n", writer, line); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	writing.Go(func() {
		var next [writers]int
		in := bufio.NewReader(peer)
		for range writers * lines {
			var writer, line int
			if _, err := fmt.Fscanf(in, "%d %d\n", &writer, &line); err != nil {
				t.Errorf("read: %v", err)
				return
			}
			if line != next[writer] {
				t.Errorf("line %d of writer %d where %d is due", line, writer, next[writer])
			}
			next[writer]++
		}
	})
	writing.Wait()
	for range 2 { // the second one follows at once, and waits for others
		if _, err := io.WriteString(conn, "end"); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(peer); string(rest) != "endend" || err != nil {
		t.Fatalf("%q, %v", rest, err)
	}
	if _, err := conn.Write([]byte("more")); err == nil {
		t.Fatal("a closed connection takes more")
	}
}

func TestConnectionWhosePeerTakesNothingEnds(t *testing.T) {
	conn, _ := dial(t)
	wrote := make(chan error, 1)
	go func() { // received below
		var err error
		for large := make([]byte, 1<<20); err == nil; {
			_, err = conn.Write(large)
		}
		wrote <- err
	}()
	select {
	case err := <-wrote:
		t.Fatalf("it takes no more than fits: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	began := time.Now()
	_ = conn.Close() // what waits cannot leave
	if err := <-wrote; err == nil || time.Since(began) > 5*time.Second {
		t.Fatalf("after %s: %v", time.Since(began), err)
	}
}

func TestConnectionSaysThatItsPeerHasGone(t *testing.T) {
	conn, peer := dial(t)
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "writing fails", func() bool {
		_, err := conn.Write([]byte("hello"))
		return err != nil
	})
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Fatal("reading goes on")
	}
}
