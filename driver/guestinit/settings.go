package guestinit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// SettingsEnv is the environment variable that holds the Settings. What is started does not see it.
const SettingsEnv = "FRESHET_HANDLER"

// Defaults of Settings.
const (
	// DefaultGrace is shorter than what a supervisor waits for a cancelled call before it gives up the worker.
	DefaultGrace = spec.Duration(time.Second)
	// DefaultEvery is the time between two checks of a server that serves.
	DefaultEvery = spec.Duration(10 * time.Second)
	// DefaultFailures is how many checks in a row a server fails before it counts as dead.
	DefaultFailures = 3
)

// Settings say what freshet-init does: one of Exec and HTTP is set.
type Settings struct {
	Exec *Exec `json:"exec,omitempty"`
	HTTP *HTTP `json:"http,omitempty"`
	// Dir is the working directory of what is started; empty means init's own.
	Dir string `json:"dir,omitempty"`
	// User is who runs what is started; nil means init's own user. Otherwise init must be root, with the capabilities SETUID
	// and SETGID.
	User *User `json:"user,omitempty"`
	// Grace is how long what was asked to end (SIGTERM) may take before it is killed. Default 1s.
	Grace spec.Duration `json:"grace,omitempty"`
}

// User is a user by number, as the image's files resolve it.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// Exec runs a command for each call.
type Exec struct {
	// Command is the command line. Its arguments may hold the variables of docs/handlers.md, such as {{input.name}}.
	Command []string `json:"command"`
	// ContentType is the results'; empty means that each is looked at: JSON, text or bytes.
	ContentType string `json:"content_type,omitempty"`
}

// HTTP fronts a server.
type HTTP struct {
	// Command starts the server, which must stay in the foreground.
	Command []string `json:"command"`
	// Port is where it listens on the loopback interface, 1 to 65535. It also gets it as PORT in its environment.
	Port int `json:"port"`
	// Ready is a path that is asked with GET until it answers below 400; empty means that a connection is enough.
	Ready string `json:"ready,omitempty"`
	// Live is a path that must go on answering below 500; empty checks only that the server's process runs.
	Live string `json:"live,omitempty"`
	// Every is the time between two checks of Live, 100ms to 1h, and how long each may take. Default 10s.
	Every spec.Duration `json:"every,omitempty"`
	// Failures of Live in a row end the guest, those while requests run not counted: a server may do one thing at a time.
	// Default 3.
	Failures int `json:"failures,omitempty"`
}

// ParseSettings reads what SettingsEnv holds, with defaults set, and checks it. Errors are a spec.FieldError where a field is wrong.
func ParseSettings(text string) (Settings, error) {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	var s Settings
	if err := decoder.Decode(&s); err != nil {
		return Settings{}, fmt.Errorf("decode %s: %w", SettingsEnv, err)
	}
	s = s.WithDefaults()
	return s, s.Validate()
}

// WithDefaults returns the settings with every unset field at its default.
func (s Settings) WithDefaults() Settings {
	if s.Grace == 0 {
		s.Grace = DefaultGrace
	}
	if s.HTTP != nil {
		server := *s.HTTP
		if server.Every == 0 {
			server.Every = DefaultEvery
		}
		if server.Failures == 0 {
			server.Failures = DefaultFailures
		}
		s.HTTP = &server
	}
	return s
}

// Validate tells the first thing that is wrong, named as in the task's config; command is the whole command line.
func (s Settings) Validate() error {
	if (s.Exec == nil) == (s.HTTP == nil) {
		return spec.FieldError{Field: "handler.type", Value: "", Mend: "give the settings of one handler: exec or http"}
	}
	if s.Grace < 0 || s.Grace > spec.MaxTimeout {
		return fieldError("handler.grace", s.Grace, "use 0s to %s", spec.MaxTimeout)
	}
	if s.Dir != "" && !path.IsAbs(s.Dir) {
		return fieldError("handler.dir", s.Dir, "use an absolute path")
	}
	if s.Exec != nil {
		if err := checkCommand(s.Exec.Command); err != nil {
			return err
		}
		_, err := parseTemplate(s.Exec.Command)
		return err
	}
	return s.HTTP.validate()
}

func (h *HTTP) validate() error {
	if err := checkCommand(h.Command); err != nil {
		return err
	}
	if h.Port < 1 || h.Port > 65535 {
		return fieldError("handler.port", h.Port, "use the port that the server listens on, 1 to 65535")
	}
	if h.Every < spec.Duration(100*time.Millisecond) || h.Every > spec.Duration(time.Hour) {
		return fieldError("handler.every", h.Every, "use 100ms to 1h")
	}
	if h.Failures < 1 || h.Failures > 1000 {
		return fieldError("handler.failures", h.Failures, "use 1 to 1000")
	}
	if err := checkPath("handler.ready", h.Ready); err != nil {
		return err
	}
	return checkPath("handler.live", h.Live)
}

func checkCommand(command []string) error {
	if len(command) == 0 || command[0] == "" {
		return fieldError("command", strings.Join(command, " "), "name the program to run, with its arguments")
	}
	for i, arg := range command {
		if strings.ContainsRune(arg, 0) {
			return fieldError(fmt.Sprintf("command[%d]", i), arg, "remove the NUL byte")
		}
	}
	return nil
}

func checkPath(field, value string) error {
	if value != "" && !strings.HasPrefix(value, "/") {
		return fieldError(field, value, "use a path that begins with /")
	}
	return nil
}

func fieldError(field string, value any, mend string, args ...any) error {
	return spec.FieldError{Field: field, Value: fmt.Sprint(value), Mend: fmt.Sprintf(mend, args...)}
}

// credential is the user as the system takes it.
func (u *User) credential() *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}
