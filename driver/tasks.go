package driver

import (
	"sync"

	"github.com/hashicorp/nomad/plugins/drivers"
)

// taskTable holds the tasks that Nomad knows of, by their ids.
type taskTable struct {
	mu    sync.Mutex
	tasks map[string]*task
}

func (tt *taskTable) put(t *task) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	tt.tasks[t.config.ID] = t
}

func (tt *taskTable) get(id string) (*task, error) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	t, ok := tt.tasks[id]
	if !ok {
		return nil, drivers.ErrTaskNotFound
	}
	return t, nil
}

func (tt *taskTable) remove(id string) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	delete(tt.tasks, id)
}

// holds tells whether a task's directory is that of one of them.
func (tt *taskTable) holds(dir string) bool {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	for _, t := range tt.tasks {
		if t.state.StateDir == dir {
			return true
		}
	}
	return false
}
