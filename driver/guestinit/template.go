package guestinit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/freshet-dev/freshet/sdk/wire"
)

// maxArg is the longest argument that Linux takes, in bytes.
const maxArg = 128<<10 - 1

// template is a command line with variables. They are written {{name}}: Nomad replaces ${name} in a task's config by values of its own,
// and refuses a task with names that it does not know. Each value becomes part of exactly one argument, whatever it holds.
type template struct {
	args [][]part
	// fields says that a variable reads a field of the input.
	fields bool
}

// part is literal text or a variable.
type part struct {
	text string
	// name is a variable's; path is where in the input it reads, for input.…
	name string
	path []string
}

// variables are the names of what a call is known by.
func variables() []string {
	return []string{"call", "method", "attempt", "deadline", "content_type", "traceparent", "input"}
}

// parseTemplate reads a command line; its errors name the argument.
func parseTemplate(command []string) (template, error) {
	var t template
	for i, arg := range command {
		parts, err := parseArg(arg)
		field := fmt.Sprintf("command[%d]", i)
		if err != "" {
			return template{}, fieldError(field, arg, "%s", err)
		}
		varies := slices.ContainsFunc(parts, func(p part) bool { return p.name != "" })
		if varies && i == 0 {
			return template{}, fieldError(field, arg, "name the program itself; variables belong into its arguments")
		}
		if varies && i > 0 && isScript(command[:i]) {
			return template{}, fieldError(field, arg, "a shell would run what a caller sends: use \"$1\" in the script, and give the variable as an argument after it: [\"sh\", \"-c\", \"echo \\\"$1\\\"\", \"sh\", \"{{input.name}}\"]")
		}
		for _, p := range parts {
			t.fields = t.fields || len(p.path) > 0
		}
		t.args = append(t.args, parts)
	}
	return t, nil
}

// isScript tells whether the next argument is a program text for a shell.
func isScript(before []string) bool {
	shells := []string{"sh", "bash", "dash", "ash", "zsh", "ksh"}
	isShell := func(arg string) bool { return slices.Contains(shells, path.Base(arg)) }
	last := before[len(before)-1]
	return slices.ContainsFunc(before, isShell) && strings.HasPrefix(last, "-") && !strings.HasPrefix(last, "--") && strings.HasSuffix(last, "c")
}

// parseArg splits an argument at its variables; the text is what is wrong, empty when nothing is.
func parseArg(arg string) (parts []part, wrong string) {
	text := ""
	for {
		at := strings.Index(arg, "{{")
		if at < 0 {
			return append(parts, part{text: text + arg}), ""
		}
		if strings.HasPrefix(arg[at:], "{{{{") { // stands for {{
			text += arg[:at] + "{{"
			arg = arg[at+4:]
			continue
		}
		end := strings.Index(arg[at:], "}}")
		if end < 0 {
			return nil, "close the variable with }}, or write {{{{ for the text {{"
		}
		name := strings.TrimSpace(arg[at+2 : at+end])
		base, fields, nested := strings.Cut(name, ".")
		variable := part{name: base}
		if nested {
			variable.path = strings.Split(fields, ".")
		}
		if !slices.Contains(variables(), base) || nested && (base != "input" || slices.Contains(variable.path, "")) {
			return nil, fmt.Sprintf("there is no variable %q: use one of %s or input.FIELD, or write {{{{ for the text {{", name, strings.Join(variables(), ", "))
		}
		parts = append(parts, part{text: text + arg[:at]}, variable)
		text, arg = "", arg[at+end+2:]
	}
}

// expand makes a call's command line. Its errors are the caller's.
func (t template) expand(call wire.Call, input []byte) ([]string, error) {
	var fields any
	if call.Large > 0 && t.input() {
		return nil, inputError("the input of %d bytes is too large for the command line: let the command read standard input", call.Large)
	}
	if t.fields {
		decoder := json.NewDecoder(bytes.NewReader(input))
		decoder.UseNumber()
		if err := decoder.Decode(&fields); err != nil {
			return nil, inputError("the input is not JSON, which the command takes fields from: %v", err)
		}
	}
	args := make([]string, len(t.args))
	for i, parts := range t.args {
		var arg strings.Builder
		for _, p := range parts {
			value, err := p.value(call, input, fields)
			if err != nil {
				return nil, err
			}
			arg.WriteString(value)
		}
		args[i] = arg.String()
		if strings.IndexByte(args[i], 0) >= 0 {
			return nil, inputError("argument %d of the command would hold a NUL byte", i)
		}
		if len(args[i]) > maxArg {
			return nil, inputError("argument %d of the command would have %d bytes, more than %d: let it read standard input", i, len(args[i]), maxArg)
		}
	}
	return args, nil
}

// input tells whether the input stands in the command line.
func (t template) input() bool {
	return slices.ContainsFunc(t.args, func(parts []part) bool {
		return slices.ContainsFunc(parts, func(p part) bool { return p.name == "input" })
	})
}

func (p part) value(call wire.Call, input []byte, fields any) (string, error) {
	switch p.name {
	case "":
		return p.text, nil
	case "call":
		return call.ID, nil
	case "method":
		return call.Method, nil
	case "attempt":
		return fmt.Sprint(call.Attempt), nil
	case "deadline":
		return deadlineText(call), nil
	case "content_type":
		return call.ContentType, nil
	case "traceparent":
		return call.Traceparent, nil
	}
	if len(p.path) == 0 {
		return string(input), nil
	}
	return field(fields, p.path)
}

// field reads a field of the input: text as it is, everything else as JSON.
func field(value any, path []string) (string, error) {
	for _, name := range path {
		object, _ := value.(map[string]any)
		inner, ok := object[name]
		if !ok {
			return "", inputError("the input has no field %q, which the command needs", strings.Join(path, "."))
		}
		value = inner
	}
	if text, ok := value.(string); ok {
		return text, nil
	}
	data, err := json.Marshal(value)
	if err != nil {
		return "", inputError("field %q of the input: %v", strings.Join(path, "."), err)
	}
	return string(data), nil
}

// deadlineText is a call's deadline for programs.
func deadlineText(call wire.Call) string { return call.Deadline.UTC().Format(time.RFC3339Nano) }

func inputError(format string, args ...any) error {
	return &wire.Error{Kind: wire.KindInput, Message: fmt.Sprintf(format, args...)}
}
