package jobs

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// TestBuild: an image is built by a job, with files of another machine, and run by the next job; the build reaches what the operator's
// policy lets tasks reach, and not the node.
func TestBuild(t *testing.T) {
	t.Run("reaches other machines", func(t *testing.T) {
		clean(t, "said")
		alloc := build(t, otherMachine(t))
		logs := nomad(t, "alloc", "logs", alloc.ID)
		if alloc.ClientStatus != api.AllocClientStatusComplete {
			t.Fatalf("the build is %s: %s\n%s", alloc.ClientStatus, logs, nomad(t, "alloc", "logs", "-stderr", alloc.ID))
		}
		wantIn(t, logs, "[one] RUN wget -q -O /one http://", "[two] took ", "image freshet-image://sha256:")
		nomad(t, "job", "run", "-detach", "-var", "image=freshet-image://said", "said.nomad.hcl")
		said := allocation(t, "said", "ended", ended)
		if got := nomad(t, "alloc", "logs", said.ID); got != "/one\nnode\n/two\n/three\n" {
			t.Errorf("the image says %q", got)
		}
	})
	t.Run("does not reach its node", func(t *testing.T) {
		listener, err := net.Listen("tcp", hostAddress+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		alloc := build(t, listener.Addr().String())
		if why := nomad(t, "alloc", "logs", "-stderr", alloc.ID); alloc.ClientStatus != api.AllocClientStatusFailed || !strings.Contains(why, "wget") {
			t.Errorf("it is %s: %s", alloc.ClientStatus, why)
		}
	})
}

// build runs the job with the files of a web server to its end.
func build(t *testing.T, source string) *api.AllocationListStub {
	t.Helper()
	clean(t, "build")
	nomad(t, "job", "run", "-detach", "-var", "base="+registryAddress+"/busybox:1", "-var", "source="+source, "build.nomad.hcl")
	return allocation(t, "build", "ended", ended)
}

// otherMachine serves files that say their names, and returns its address.
func otherMachine(t *testing.T) string {
	t.Helper()
	var listener net.Listener
	err := outside.Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", outsideAddress+":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.URL.Path) })}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends with Close
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return listener.Addr().String()
}
