package spec

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// NamePattern is what app and function names match.
const NamePattern = `[A-Za-z0-9][A-Za-z0-9_-]{0,62}`

// FieldError is one thing wrong with a spec: where, what stands there, and what to write instead.
type FieldError struct {
	// Field is the path in the spec, such as "scaling.max" or "mount[1].source".
	Field string `json:"field"`
	// Value is what stands there now.
	Value string `json:"value"`
	// Mend says what to write instead.
	Mend string `json:"mend"`
}

func (e FieldError) Error() string {
	return fmt.Sprintf("%s: %q: %s", e.Field, e.Value, e.Mend)
}

// ValidationError is everything wrong with a spec, in the order of its fields.
type ValidationError struct {
	Fields []FieldError `json:"fields"`
}

func (e *ValidationError) Error() string {
	lines := make([]string, len(e.Fields))
	for i, field := range e.Fields {
		lines[i] = field.Error()
	}
	return strings.Join(lines, "; ")
}

// ValidName tells whether a name may be an app's or a function's.
func ValidName(name string) bool { return compiledName.MatchString(name) }

// compiledName is immutable; compiling it once saves the cost at each check.
var compiledName = regexp.MustCompile(`^` + NamePattern + `$`)

// Validate tells everything that is wrong with the spec, as a *ValidationError, or nil. Defaults count as set.
func (f Function) Validate() error {
	f = f.WithDefaults()
	var c checker
	c.name("namespace", f.Namespace)
	c.name("app", f.App)
	checkFunctionName(&c, f)
	c.printable("version", f.Version, 128)
	if f.Build != nil {
		c.fail("build", f.Build.File, "remove it: a function runs an image that was built before, by its reference in image")
	}
	c.between("priority", f.Priority, 1, MaxPriority)
	c.duration("drain", f.Drain, 0, MaxTimeout)
	c.config(f.Config)
	c.env(f.Env)
	c.resources(f.Resources)
	c.scaling(f.Scaling)
	if len(f.Parameters) > 0 && f.Scaling.Min > 0 && !f.IsPool() {
		c.fail("scaling.min", f.Scaling.Min, "use 0: a function with parameters has workers for each combination of values, once it is called")
	}
	return c.result()
}

// Validate tells everything that is wrong with the config alone, as the driver sees it.
func (c Config) Validate() error {
	var check checker
	check.config(c.WithDefaults())
	return check.result()
}

type checker struct{ fields []FieldError }

func (c *checker) result() error {
	if len(c.fields) == 0 {
		return nil
	}
	return &ValidationError{Fields: c.fields}
}

func (c *checker) fail(field string, value any, mend string, args ...any) {
	c.fields = append(c.fields, FieldError{Field: field, Value: fmt.Sprint(value), Mend: fmt.Sprintf(mend, args...)})
}

func (c *checker) name(field, value string) {
	if !ValidName(value) {
		c.fail(field, value, "use 1 to 63 letters, digits, '-' and '_', starting with a letter or digit")
	}
}

func (c *checker) printable(field, value string, limit int) {
	if len(value) > limit {
		c.fail(field, value, "use at most %d bytes", limit)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return !strconv.IsPrint(r) }) {
		c.fail(field, value, "use printable characters only")
	}
}

func (c *checker) between(field string, value, low, high int) {
	if value < low || value > high {
		c.fail(field, value, "use %d to %d", low, high)
	}
}

func (c *checker) duration(field string, value, low, high Duration) {
	if value < low || value > high {
		c.fail(field, value, "use %s to %s", low, high)
	}
}

func (c *checker) absolute(field, value string) {
	if !path.IsAbs(value) || path.Clean(value) != value {
		c.fail(field, value, "use an absolute path without '..' and doubled slashes")
	}
}

func (c *checker) config(cfg Config) {
	c.handler(cfg)
	checkBuild(c, cfg)
	c.code(cfg)
	c.duration("timeout", cfg.Timeout, Duration(time.Second), MaxTimeout)
	c.duration("startup_timeout", cfg.StartupTimeout, Duration(time.Second), MaxTimeout)
	c.between("concurrency", cfg.Concurrency, 1, MaxConcurrency)
	if cfg.MaxPending < 1 {
		c.fail("max_pending", cfg.MaxPending, "use 1 or more")
	}
	if cfg.MaxRunning < 0 {
		c.fail("max_running", cfg.MaxRunning, "use 1 or more, or 0 for no bound")
	}
	c.duration("queue_timeout", cfg.QueueTimeout, 0, 7*MaxTimeout)
	checkBatching(c, cfg)
	checkRate(c, cfg.Rate)
	checkMethods(c, cfg.Methods)
	checkCallSchedules(c, cfg)
	checkParameters(c, cfg.Parameters)
	c.retries(cfg.Retries)
	checkSecrets(c, cfg)
	checkVolumes(c, cfg)
	c.network(cfg.Network)
	checkWeb(c, cfg)
	c.container(cfg)
}

func (c *checker) handler(cfg Config) {
	if cfg.Handler == nil {
		return
	}
	known := []string{HandlerGo, HandlerPython, HandlerExec, HandlerHTTP, HandlerModal}
	if !slices.Contains(known, cfg.Handler.Type) {
		c.fail("handler.type", cfg.Handler.Type, "use one of %s", strings.Join(known, ", "))
	}
	if cfg.Handler.Type == HandlerHTTP {
		c.between("handler.port", cfg.Handler.Port, 1, 65535)
	} else if cfg.Handler.Port != 0 {
		c.fail("handler.port", cfg.Handler.Port, "remove it: only an http handler listens")
	}
	if cfg.Handler.Type == HandlerPython {
		c.python(cfg)
	}
	c.urlPath("handler.ready", cfg.Handler.Ready)
	c.urlPath("handler.live", cfg.Handler.Live)
}

// python checks what a python handler needs.
func (c *checker) python(cfg Config) {
	if module, name, ok := strings.Cut(cfg.Handler.Entry, ":"); !ok || !dotted(module) || !dotted(name) {
		c.fail("handler.entry", cfg.Handler.Entry, "use module:function or module:Class, such as \"app:answer\"")
	}
	if cfg.Image == "" {
		c.fail("image", cfg.Image, "a python handler needs an image with Python 3.9 or newer: name one")
	}
}

// dotted tells whether a text is names of Python with dots between them.
func dotted(text string) bool {
	for name := range strings.SplitSeq(text, ".") {
		for i, r := range name {
			if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r)) {
				return false
			}
		}
		if name == "" {
			return false
		}
	}
	return true
}

func (c *checker) urlPath(field, value string) {
	if value != "" && !strings.HasPrefix(value, "/") {
		c.fail(field, value, "use a path that begins with '/', such as \"/healthz\"")
	}
}

func (c *checker) code(cfg Config) {
	if cfg.Code == "" {
		if cfg.Handler != nil && cfg.Handler.Type == HandlerGo {
			c.fail("code", cfg.Code, "a go handler needs its program: a blob \"sha256:<hex>\" or an absolute path on the node")
		}
		return
	}
	if digest, ok := strings.CutPrefix(cfg.Code, "sha256:"); ok {
		if !validDigest(digest) {
			c.fail("code", cfg.Code, "use \"sha256:\" and 64 lower-case hex digits")
		}
		return
	}
	c.absolute("code", cfg.Code)
}

func validDigest(digest string) bool {
	return len(digest) == 64 && strings.Trim(digest, "0123456789abcdef") == ""
}

func (c *checker) retries(r Retries) {
	c.between("retries.max", r.Max, 0, 100)
	if !(r.Backoff >= 1 && r.Backoff <= 10) { // written so that NaN fails too
		c.fail("retries.backoff", r.Backoff, "use 1 to 10")
	}
	c.duration("retries.initial", r.Initial, 0, MaxTimeout)
	c.duration("retries.max_delay", r.MaxDelay, 0, MaxTimeout)
	known := []wire.Kind{wire.KindUser, wire.KindTimeout, wire.KindCrash, wire.KindMemory, wire.KindProtocol}
	for i, kind := range r.On {
		if !slices.Contains(known, kind) {
			c.fail(fmt.Sprintf("retries.on[%d]", i), kind, "use one of %s", known)
		}
	}
}

func (c *checker) network(n Network) {
	for i, allow := range n.Allow {
		if !validAllow(allow) {
			c.fail(fmt.Sprintf("network.allow[%d]", i), allow, "use a CIDR with an optional port, such as \"10.0.0.0/8:443\"")
		}
	}
	if len(n.Allow) > 0 && !n.Egress {
		c.fail("network.allow", strings.Join(n.Allow, ","), "set network.egress = true too, or remove the list")
	}
}

func validAllow(allow string) bool {
	if _, err := netip.ParsePrefix(allow); err == nil {
		return true
	}
	at := strings.LastIndexByte(allow, ':')
	if at < 0 {
		return false
	}
	port, err := strconv.ParseUint(allow[at+1:], 10, 16)
	if err != nil || port == 0 {
		return false
	}
	_, err = netip.ParsePrefix(strings.Trim(allow[:at], "[]"))
	return err == nil
}

func (c *checker) env(env map[string]string) {
	for _, name := range sortedNames(env) {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(env[name], 0) {
			c.fail("env."+name, env[name], "use a name without '=' and no NUL byte in either")
		}
	}
}

func (c *checker) resources(r Resources) {
	if r.CPU < 1 {
		c.fail("resources.cpu", r.CPU, "use 1 MHz or more")
	}
	if r.MemoryMB < MinMemoryMB {
		c.fail("resources.memory", r.MemoryMB, "use %d MB or more", MinMemoryMB)
	}
	c.between("resources.gpus", r.GPUs, 0, 64)
	if len(r.GPUKinds) > 0 && r.GPUs == 0 {
		c.fail("resources.gpu_kinds", strings.Join(r.GPUKinds, ","), "set resources.gpus = 1 or more too, or remove the list")
	}
	for i, kind := range r.GPUKinds {
		field := fmt.Sprintf("resources.gpu_kinds[%d]", i)
		switch {
		case !validKind(kind):
			c.fail(field, kind, "use words of the model's name, such as \"a100-80gb\", \"any\", or Nomad's name, such as \"nvidia/gpu\"")
		case slices.Contains(r.GPUKinds[:i], kind):
			c.fail(field, kind, "name each kind once")
		}
	}
}

// validKind tells whether a kind of device is words of a model's name, or a device's name in Nomad.
func validKind(kind string) bool {
	return compiledKind.MatchString(kind) || strings.Contains(kind, "/") && len(kind) <= 128 && !strings.ContainsFunc(kind, unicode.IsControl)
}

// compiledKind is immutable.
var compiledKind = regexp.MustCompile(`^[A-Za-z0-9]+([.-][A-Za-z0-9]+){0,15}$`)
