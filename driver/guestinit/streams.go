package guestinit

import (
	"fmt"
	"os"
)

// pipe is one standard stream of what is started.
type pipe struct{ ours, child *os.File }

// streams are the standard streams of a command; the protocol's own are never among them.
type streams struct{ stdin, stdout, stderr pipe }

func openStreams() (streams, error) {
	var s streams
	for _, p := range []struct {
		pipe *pipe
		read bool // we read it
	}{{&s.stdin, false}, {&s.stdout, true}, {&s.stderr, true}} {
		read, write, err := os.Pipe()
		if err != nil {
			s.closeChild()
			closeAll(s.ours()...)
			return streams{}, fmt.Errorf("make a pipe: %w", err)
		}
		if p.read {
			*p.pipe = pipe{ours: read, child: write}
		} else {
			*p.pipe = pipe{ours: write, child: read}
		}
	}
	return s, nil
}

func (s streams) ours() []*os.File { return []*os.File{s.stdin.ours, s.stdout.ours, s.stderr.ours} }

// closeChild closes the child's ends here: we must see when it closes its own.
func (s streams) closeChild() { closeAll(s.stdin.child, s.stdout.child, s.stderr.child) }

func closeAll(files ...*os.File) {
	for _, file := range files {
		_ = file.Close() // a pipe's close loses nothing; a nil file's error is nothing
	}
}
