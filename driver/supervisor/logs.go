package supervisor

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// maxLine is the longest line kept whole, in bytes; a longer one is cut into several records.
const maxLine = 64 << 10

// logs writes what the guest says to the files that Nomad serves and to the log stream. The files lose nothing; the stream
// loses what NATS cannot take while it is away, and says how much.
type logs struct {
	nc      *nats.Conn
	subject string
	alloc   string
	log     zerolog.Logger

	mu      sync.Mutex
	stdout  *rotating
	stderr  *rotating
	dropped int
}

func openLogs(task handoff.Task, nc *nats.Conn, subject string, log zerolog.Logger) (*logs, error) {
	stdout, err := openRotating(task.Logs, "stdout")
	if err != nil {
		return nil, err
	}
	stderr, err := openRotating(task.Logs, "stderr")
	if err != nil {
		return nil, errors.Join(err, stdout.close())
	}
	return &logs{nc: nc, subject: subject, alloc: task.Identity.Alloc, log: log, stdout: stdout, stderr: stderr}, nil
}

// copyLines reads the guest's standard error to its end; call tells whose a line is.
func (l *logs) copyLines(in io.Reader, call func() string) {
	lines := bufio.NewReaderSize(in, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			text := string(line)
			if line[len(line)-1] == '\n' {
				text = text[:len(text)-1]
			}
			l.write(l.stderr, queue.LogRecord{Time: time.Now(), Call: call(), Alloc: l.alloc, Source: "guest", Text: text})
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return // the guest is gone, or its pipe is closed
		}
	}
}

// frame takes a line that the guest's SDK sent for a call.
func (l *logs) frame(call string, meta wire.Log, text string) {
	at := meta.Time
	if at.IsZero() {
		at = time.Now()
	}
	l.write(l.stdout, queue.LogRecord{Time: at, Call: call, Alloc: l.alloc, Level: meta.Level, Source: "guest", Text: text})
}

// say adds a line of the worker's own.
func (l *logs) say(level, format string, values ...any) {
	l.write(l.stderr, queue.LogRecord{
		Time: time.Now(), Alloc: l.alloc, Level: level, Source: "worker", Text: "freshet: " + fmt.Sprintf(format, values...),
	})
}

func (l *logs) write(file *rotating, record queue.LogRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := file.writeLine(record.Text); err != nil {
		l.log.Error().Err(err).Msg("write log file")
	}
	data, err := json.Marshal(record)
	if err == nil {
		err = l.nc.Publish(l.subject, data)
	}
	if err != nil {
		if l.dropped++; l.dropped == 1 {
			l.log.Warn().Err(err).Msg("the log stream is away; lines go to the file alone")
		}
		return
	}
	if l.dropped > 0 {
		l.log.Warn().Int("lines", l.dropped).Msg("the log stream is back; it misses lines that the file has")
		l.dropped = 0
	}
}

func (l *logs) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.stdout.close(), l.stderr.close())
}

// rotating is a log file under the names that Nomad gives them: task.stdout.0, task.stdout.1, …; the newest has the highest
// number, and the oldest beyond the limit are removed.
type rotating struct {
	base     string
	maxFiles int
	maxBytes int64

	file   *os.File
	index  int
	size   int64
	closed bool
}

func openRotating(settings handoff.Logs, stream string) (*rotating, error) {
	r := &rotating{
		base:     filepath.Join(settings.Dir, settings.Task+"."+stream),
		maxFiles: max(settings.MaxFiles, 1),
		maxBytes: int64(max(settings.MaxSizeMB, 1)) << 20,
	}
	for { // go on with the newest file of an earlier run
		if _, err := os.Stat(r.name(r.index + 1)); err != nil {
			break
		}
		r.index++
	}
	return r, r.open()
}

func (r *rotating) name(index int) string { return fmt.Sprintf("%s.%d", r.base, index) }

func (r *rotating) open() error {
	file, err := os.OpenFile(r.name(r.index), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open log file: %w", err), file.Close())
	}
	r.file, r.size = file, info.Size()
	return nil
}

func (r *rotating) writeLine(text string) error {
	if r.closed {
		return nil
	}
	if r.size > r.maxBytes {
		if err := r.rotate(); err != nil {
			return err
		}
	}
	n, err := r.file.WriteString(text + "\n")
	r.size += int64(n)
	if err != nil {
		return fmt.Errorf("write log line: %w", err)
	}
	return nil
}

func (r *rotating) rotate() error {
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("rotate log file: %w", err)
	}
	r.index++
	if oldest := r.index - r.maxFiles; oldest >= 0 {
		if err := os.Remove(r.name(oldest)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotate log file: %w", err)
		}
	}
	return r.open()
}

func (r *rotating) close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("close log file: %w", err)
	}
	return nil
}
