package handoff

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A supervisor made ahead runs in a directory of its own and waits there for a task. It is given one in steps of which each leaves
// no doubt, whenever one of the two dies: the task file is written into the directory; the task's own directory becomes a link to
// it, which is the moment of adoption; then a byte on the socket between the two says so. The socket's end without that byte means
// that the plugin is gone, and the link tells whether it had come to adopt.

// TemplateFile holds what the tasks of a kind have in common, for a supervisor made ahead.
const TemplateFile = "template.json"

// Prepared is what a supervisor made ahead says when it is.
type Prepared struct {
	// Standby: it is thawed. Else it holds an empty sandbox.
	Standby bool `json:"standby"`
	// Error says why it is neither; it ends then.
	Error string `json:"error,omitempty"`
}

// ErrNotWanted says that no task came and none will.
var ErrNotWanted = errors.New("no task came")

// WriteTemplate leaves the template in the directory of a supervisor to be made ahead.
func WriteTemplate(template Task) error {
	if err := writeJSON(filepath.Join(template.StateDir, TemplateFile), template); err != nil {
		return fmt.Errorf("write template: %w", err)
	}
	return nil
}

// ReadTemplate reads it.
func ReadTemplate(dir string) (Task, error) { return ReadTask(filepath.Join(dir, TemplateFile)) }

// Tell says on the socket how the preparation went.
func (p Prepared) Tell(socket *os.File) error {
	if err := json.NewEncoder(socket).Encode(p); err != nil {
		return fmt.Errorf("tell the plugin: %w", err)
	}
	return nil
}

// Hear reads what Tell said; io.EOF when the supervisor ended instead.
func (p *Prepared) Hear(socket *os.File) error {
	line, err := bufio.NewReader(socket).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("wait for a supervisor made ahead: %w", err)
	}
	if err := json.Unmarshal(line, p); err != nil {
		return fmt.Errorf("wait for a supervisor made ahead: %w", err)
	}
	return nil
}

// Adopt gives a task to the supervisor made ahead in the task's state directory. link is where others look for the task.
func Adopt(task Task, link string, socket *os.File) error {
	if _, err := task.Write(); err != nil {
		return err
	}
	if err := os.Symlink(task.StateDir, link); err != nil {
		return fmt.Errorf("adopt supervisor: %w", err)
	}
	if _, err := socket.Write([]byte{'\n'}); err != nil {
		return errors.Join(fmt.Errorf("adopt supervisor: %w", err), os.Remove(link))
	}
	return nil
}

// AwaitTask waits on the socket for a task for the supervisor of this directory; ErrNotWanted when none comes any more.
func AwaitTask(dir string, socket *os.File) (Task, error) {
	_, err := io.ReadFull(socket, make([]byte, 1))
	task, missing := ReadTask(filepath.Join(dir, TaskFile))
	if missing != nil {
		return Task{}, fmt.Errorf("%w: %w", ErrNotWanted, errors.Join(err, missing))
	}
	if err == nil {
		return task, nil
	}
	if target, unlinked := os.Readlink(task.Link); unlinked != nil || target != dir {
		return Task{}, fmt.Errorf("%w: %w", ErrNotWanted, err)
	}
	return task, nil
}

// SocketPair makes the two ends of the socket between plugin and supervisor.
func SocketPair() (plugin, supervisor *os.File, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket to a supervisor: %w", err)
	}
	for _, end := range ends {
		if err := unix.SetNonblock(end, true); err != nil {
			return nil, nil, fmt.Errorf("make a socket to a supervisor: %w", err)
		}
	}
	return os.NewFile(uintptr(ends[0]), "plugin"), os.NewFile(uintptr(ends[1]), "supervisor"), nil
}
