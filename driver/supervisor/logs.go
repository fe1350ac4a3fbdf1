package supervisor

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/freshet-dev/freshet/driver/supervisor/logfile"
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
	stdout  io.WriteCloser
	stderr  io.WriteCloser
	dropped int
}

func openLogs(task handoff.Task, nc *nats.Conn, subject string, log zerolog.Logger) (*logs, error) {
	stdout, stderr, err := logfile.Open(task.Logs)
	if err != nil {
		return nil, err
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

func (l *logs) write(file io.Writer, record queue.LogRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := file.Write([]byte(record.Text + "\n")); err != nil {
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
	return errors.Join(l.stdout.Close(), l.stderr.Close())
}
