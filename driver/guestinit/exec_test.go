package guestinit_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-dev/freshet/driver/guestinit"
	"github.com/freshet-dev/freshet/internal/eventually"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// command are the settings of a command.
func command(args ...string) guestinit.Settings {
	return guestinit.Settings{Exec: &guestinit.Exec{Command: args}}
}

// script are the settings of a shell script that sees the input's field "x" as $1.
func script(text string) guestinit.Settings { return command("sh", "-c", text, "sh") }

func TestCommandPerCall(t *testing.T) {
	for name, test := range map[string]struct {
		settings           guestinit.Settings
		input              string
		contentType, wants string
	}{
		"input to output":   {command("cat"), `{"a":1}`, "application/json", `{"a":1}`},
		"text":              {command("cat"), "plain", "text/plain; charset=utf-8", "plain"},
		"bytes":             {command("cat"), "\xff\x00", "application/octet-stream", "\xff\x00"},
		"no input":          {script("cat; echo -n end"), "", "text/plain; charset=utf-8", "end"},
		"nothing":           {command("true"), "x", "text/plain; charset=utf-8", ""},
		"variables":         {command("printf", "%s|%s|%s|%s", "{{call}}", "{{method}}", "{{attempt}}", "a{{ input.n.m }}b{{{{x}}$"), `{"n":{"m":1.50}}`, "text/plain; charset=utf-8", "c1|go|1|a1.50b{{x}}$"},
		"never split":       {command("printf", "%s|", "{{input.x}}"), `{"x":"a b'; rm -rf \"$(reboot)\" \n*"}`, "text/plain; charset=utf-8", "a b'; rm -rf \"$(reboot)\" \n*|"},
		"whole input":       {command("printf", "%s", "{{input}}"), `[1,2]`, "application/json", `[1,2]`},
		"objects":           {command("printf", "%s", "{{input.x}}"), `{"x":{"b":[1,null,true]}}`, "application/json", `{"b":[1,null,true]}`},
		"environment":       {script(`echo -n "$FRESHET_CALL $FRESHET_METHOD $FRESHET_ATTEMPT $FRESHET_DEADLINE $FRESHET_APP $FRESHET_ALLOC $OWN $FRESHET_HANDLER"`), "", "text/plain; charset=utf-8", "c1 go 1 2030-03-17T17:46:40Z app first set "},
		"set content type":  {guestinit.Settings{Exec: &guestinit.Exec{Command: []string{"cat"}, ContentType: "image/png"}}, "1", "image/png", "1"},
		"directory":         {guestinit.Settings{Exec: &guestinit.Exec{Command: []string{"pwd"}}, Dir: "/usr"}, "", "text/plain; charset=utf-8", "/usr\n"},
		"user":              {guestinit.Settings{Exec: &guestinit.Exec{Command: []string{"id", "-u"}}, User: &guestinit.User{UID: 1234, GID: 1234}}, "", "application/json", "1234\n"},
		"streams are pipes": {script(`readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 | cut -c1-4 | tr -d '\n'; ls /proc/self/fd | wc -l`), "x", "text/plain; charset=utf-8", "pipepipepipe4\n"},
		"large":             {command("cat"), strings.Repeat("0123456789abcdef", 1<<20), "text/plain; charset=utf-8", strings.Repeat("0123456789abcdef", 1<<20)},
		"input not read":    {command("echo", "done"), strings.Repeat("x", 1<<20), "text/plain; charset=utf-8", "done\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, test.settings, "OWN=set").greet()
			meta := attempt("c1")
			meta.Method = "go"
			result, output, fault := h.call(meta, test.input)
			if fault != nil {
				t.Fatal(fault)
			}
			if output != test.wants || result.ContentType != test.contentType {
				t.Errorf("got %s %.200q, want %s %.200q", result.ContentType, output, test.contentType, test.wants)
			}
		})
	}
}

func TestHowACommandFails(t *testing.T) {
	const limit = 1 << 20
	for name, test := range map[string]struct {
		settings guestinit.Settings
		input    string
		want     wire.Error
	}{
		"code":          {script("echo first >&2; echo why >&2; echo ignored; exit 3"), "", wire.Error{Kind: wire.KindUser, Type: "exit", Message: "the command exited with code 3: first\nwhy"}},
		"silent":        {command("false"), "", wire.Error{Kind: wire.KindUser, Type: "exit", Message: "the command exited with code 1"}},
		"signal":        {script("echo last words >&2; kill -SEGV $$"), "", wire.Error{Kind: wire.KindUser, Type: "signal", Message: "the command was killed by signal 11 (SIGSEGV): last words"}},
		"too much":      {command("cat", "/dev/zero"), "", wire.Error{Kind: wire.KindUser, Type: "output", Message: "the command wrote more than 1048576 bytes to standard output, which is the limit of a result"}},
		"missing field": {command("echo", "{{input.a.b}}"), `{"a":{}}`, wire.Error{Kind: wire.KindInput, Message: `the input has no field "a.b", which the command needs`}},
		"no JSON":       {command("echo", "{{input.a}}"), `{`, wire.Error{Kind: wire.KindInput, Message: "the input is not JSON, which the command takes fields from: unexpected EOF"}},
		"NUL":           {command("echo", "{{input}}"), "a\x00b", wire.Error{Kind: wire.KindInput, Message: "argument 1 of the command would hold a NUL byte"}},
		"long argument": {command("echo", "{{input}}"), strings.Repeat("x", 128<<10), wire.Error{Kind: wire.KindInput, Message: "argument 1 of the command would have 131072 bytes, more than 131071: let it read standard input"}},
		"no directory":  {guestinit.Settings{Exec: &guestinit.Exec{Command: []string{"true"}}, Dir: "/nowhere"}, "", wire.Error{Kind: wire.KindUser, Type: "start", Message: "start /usr/bin/true: no such file or directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, test.settings)
			h.hello(limit)
			h.next(wire.TypeReady)
			_, _, fault := h.call(attempt("c1"), test.input)
			if fault == nil || *fault != test.want {
				t.Errorf("got %+v, want %+v", fault, test.want)
			}
			if name == "code" && (!h.logged(1, "first") || !h.logged(1, "why")) {
				t.Errorf("standard error is not the call's log: %v", h.logs)
			}
		})
	}
}

func TestSettingsThatAreWrong(t *testing.T) {
	for name, test := range map[string]struct{ settings, want string }{
		"none":               {`{}`, `handler.type: ""`},
		"both":               {`{"exec":{"command":["a"]},"http":{"command":["a"],"port":1}}`, `handler.type: ""`},
		"unknown":            {`{"exec":{"comand":["a"]}}`, `unknown field "comand"`},
		"no command":         {`{"exec":{"command":[]}}`, `command: ""`},
		"unknown variable":   {`{"exec":{"command":["a","{{cal}}"]}}`, `command[1]: "{{cal}}": there is no variable "cal"`},
		"open variable":      {`{"exec":{"command":["a","{{call"]}}`, "close the variable"},
		"empty field":        {`{"exec":{"command":["a","{{input.}}"]}}`, `there is no variable "input."`},
		"variable program":   {`{"exec":{"command":["{{input.x}}"]}}`, "name the program itself"},
		"variable in script": {`{"exec":{"command":["/bin/sh","-ec","echo {{input.x}}"]}}`, "a shell would run what a caller sends"},
		"relative directory": {`{"dir":"a","exec":{"command":["a"]}}`, `handler.dir: "a"`},
		"negative grace":     {`{"grace":"-1s","exec":{"command":["a"]}}`, `handler.grace: "-1s"`},
		"no port":            {`{"http":{"command":["a"]}}`, `handler.port: "0"`},
		"relative path":      {`{"http":{"command":["a"],"port":1,"ready":"x"}}`, `handler.ready: "x"`},
		"often":              {`{"http":{"command":["a"],"port":1,"every":"1ms"}}`, `handler.every: "1ms"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := guestinit.ParseSettings(test.settings); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestProgramThatIsNotThereFailsTheStart(t *testing.T) {
	h := start(t, command("no-such-program"))
	h.hello(0)
	if fault := h.fault(); fault.Kind != wire.KindUser || !strings.Contains(fault.Message, `command[0]: "no-such-program"`) {
		t.Errorf("got %+v", fault)
	}
	if code := h.exitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
}

// alive tells a running process from one that is gone.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// pids reads the process numbers that a command wrote, one a line, when there are so many.
func pids(t *testing.T, file string, count int) []int {
	t.Helper()
	var found []int
	eventually.True(t, "the command wrote its process numbers", func() bool {
		data, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		found = nil
		for _, line := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(line)
			if err != nil {
				return false
			}
			found = append(found, pid)
		}
		return len(found) == count
	})
	return found
}

func gone(t *testing.T, numbers []int) {
	t.Helper()
	for _, pid := range numbers {
		eventually.True(t, fmt.Sprintf("process %d is gone", pid), func() bool { return !alive(pid) })
	}
}

// hostile are scripts that leave two processes behind, each in its own way; they write their numbers to $1.
func hostile() map[string]string {
	return map[string]string{
		"background":         `sleep 1000 & echo $! >>$1; sleep 1000 & echo $! >>$1; echo started`,
		"holds the output":   `(sleep 1000; echo late) & echo $! >>$1; sleep 1001 & echo $! >>$1; echo started`,
		"own session":        `setsid sh -c 'echo $$ >>$1; exec sleep 1000' sh $1 & setsid sh -c 'echo $$ >>$1; exec sleep 1000' sh $1 & until [ $(cat $1 $1.none 2>/dev/null | wc -l) -ge 2 ]; do sleep 0.01; done; echo started`,
		"double fork":        `(setsid sh -c 'echo $$ >>$1; sleep 1000 & echo $! >>$1; wait' sh $1 &) ; until [ $(cat $1 $1.none 2>/dev/null | wc -l) -ge 2 ]; do sleep 0.01; done; echo started`,
		"ignores everything": `trap '' TERM HUP INT; (trap '' TERM; sleep 1000) & echo $! >>$1; (exec >/dev/null 2>&1 </dev/null; sleep 1000) & echo $! >>$1; echo started`,
	}
}

func TestNothingOutlivesItsCall(t *testing.T) {
	for name, text := range hostile() {
		for _, ending := range []string{"by itself", "cancelled"} {
			t.Run(name+" "+ending, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "pids")
				if ending == "cancelled" {
					text += "; while :; do sleep 1; done"
				}
				settings := command("sh", "-c", text, "sh", file)
				settings.Grace = spec.Duration(50 * time.Millisecond)
				h := start(t, settings).greet()
				number, answer := h.begin(attempt("c1"), "")
				left := pids(t, file, 2)
				if ending == "cancelled" {
					h.send(wire.TypeCancel, number, wire.Cancel{Kind: wire.KindTimeout}, nil)
				}
				_, output, fault := h.await(answer)
				if ending == "cancelled" && (fault == nil || fault.Kind != wire.KindTimeout) || ending != "cancelled" && output != "started\n" {
					t.Errorf("got %q, %v", output, fault)
				}
				gone(t, left)
			})
		}
	}
}

// TestCallsDoNotEndTheirNeighbours: what one call leaves behind is swept, what another still runs is not.
func TestCallsDoNotEndTheirNeighbours(t *testing.T) {
	dir := t.TempDir()
	stays := filepath.Join(dir, "stays")
	h := start(t, command("sh", "-c", `if [ $FRESHET_CALL = long ]; then
		setsid sh -c 'echo $$ >$1; while [ ! -e $1.go ]; do sleep 0.01; done; echo from the daemon' sh $1 & setsid -w sh -c 'while [ ! -e $1.go ]; do sleep 0.01; done' sh $1; wait
	else setsid sleep 1000 & echo short; fi`, "sh", stays)).greet()
	_, long := h.begin(attempt("long"), "")
	left := pids(t, stays, 1)
	for i := range 20 {
		if _, output, fault := h.call(attempt(fmt.Sprint("short", i)), ""); output != "short\n" {
			t.Fatalf("got %q, %v", output, fault)
		}
	}
	if !alive(left[0]) {
		t.Fatal("the call's process was killed with its neighbours")
	}
	if err := os.WriteFile(stays+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, output, fault := h.await(long); output != "from the daemon\n" {
		t.Errorf("got %q, %v", output, fault)
	}
}

func TestManyCallsAtOnce(t *testing.T) {
	h := start(t, command("sh", "-c", `cat; echo $FRESHET_CALL; echo log $FRESHET_CALL >&2`)).greet()
	const calls = 100
	var answers []<-chan wire.Message
	for i := range calls {
		_, answer := h.begin(attempt(fmt.Sprint("c", i)), fmt.Sprint(i, " "))
		answers = append(answers, answer)
	}
	for i, answer := range answers {
		if _, output, fault := h.await(answer); output != fmt.Sprintf("%d c%d\n", i, i) {
			t.Fatalf("call %d: %q, %v", i, output, fault)
		}
		if !h.logged(uint64(i+1), fmt.Sprint("log c", i)) {
			t.Errorf("call %d: log %q", i, h.logs[uint64(i+1)])
		}
	}
}

func TestDrainLetsCallsFinish(t *testing.T) {
	file := filepath.Join(t.TempDir(), "go")
	h := start(t, command("sh", "-c", `while [ ! -e $1 ]; do sleep 0.01; done; echo finished`, "sh", file)).greet()
	_, running := h.begin(attempt("c1"), "")
	h.send(wire.TypeDrain, 0, nil, nil)
	if _, _, fault := h.call(attempt("late"), ""); fault == nil || fault.Kind != wire.KindCancelled {
		t.Errorf("a call after the drain: %v", fault)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, output, fault := h.await(running); output != "finished\n" {
		t.Errorf("got %q, %v", output, fault)
	}
	h.next(wire.TypeDrained)
	if code := h.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestDrainWhileAServerStarts(t *testing.T) {
	h := start(t, guestinit.Settings{HTTP: &guestinit.HTTP{Command: []string{"sleep", "1000"}, Port: freePort(t)}})
	h.hello(0)
	h.send(wire.TypeDrain, 0, nil, nil)
	h.next(wire.TypeDrained)
	if code := h.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestACommandThatPrintsForever(t *testing.T) {
	h := start(t, command("sh", "-c", "yes >&2 & yes"))
	h.hello(1 << 20)
	h.next(wire.TypeReady)
	if _, _, fault := h.call(attempt("c1"), ""); fault == nil || fault.Type != "output" {
		t.Errorf("got %v", fault)
	}
	if kb := residentKB(t, h.pid); kb > 200<<10 { // the race detector is in it
		t.Errorf("init holds %d kB", kb)
	}
}

func TestACommandThatClosesItsStreamsAndGoesOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	h := start(t, command("sh", "-c", `echo early; exec >&- 2>&- <&-; sleep 0.1; : >$1`, "sh", file)).greet()
	if _, output, fault := h.call(attempt("c1"), "x"); output != "early\n" {
		t.Errorf("got %q, %v", output, fault)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("the call ended before its command did")
	}
}

func TestFreezeWaitsForCallsAndThawBringsANewIdentity(t *testing.T) {
	h := start(t, script(`echo -n $FRESHET_ALLOC`)).greet()
	h.send(wire.TypeFreeze, 0, nil, nil)
	h.next(wire.TypeFrozen)
	h.send(wire.TypeThawed, 0, wire.Thawed{Identity: wire.Identity{Alloc: "second"}}, nil)
	h.next(wire.TypeReady)
	if _, output, fault := h.call(attempt("c1"), ""); output != "second" {
		t.Errorf("got %q, %v", output, fault)
	}
}

func TestSignalsArePassedOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pids")
	h := start(t, command("sh", "-c", `trap 'echo got it; exit 0' USR1; echo $$ >$1; while :; do sleep 0.01; done`, "sh", file)).greet()
	_, answer := h.begin(attempt("c1"), "")
	pids(t, file, 1)
	if err := syscall.Kill(h.pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if _, output, fault := h.await(answer); output != "got it\n" {
		t.Errorf("got %q, %v", output, fault)
	}
}

func TestEndOfTheHostEndsEverything(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pids")
	h := start(t, command("sh", "-c", hostile()["double fork"]+`; while :; do sleep 1; done`, "sh", file)).greet()
	h.begin(attempt("c1"), "")
	left := pids(t, file, 2)
	if err := h.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if code := h.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	gone(t, left)
}

// TestPrintingOnTheDescriptorsOfTheFirstProcess is what images do that log to a container's output.
func TestPrintingOnTheDescriptorsOfTheFirstProcess(t *testing.T) {
	h := start(t, script(`echo noise >/proc/$PPID/fd/1; echo noise >/proc/$PPID/fd/2; echo fine`)).greet()
	for range 3 {
		if _, output, fault := h.call(attempt("c1"), ""); output != "fine\n" {
			t.Fatalf("got %q, %v", output, fault)
		}
	}
}

func TestAHostThatBreaksTheProtocol(t *testing.T) {
	for name, send := range map[string]func(h *host){
		"call before hello": func(h *host) { h.send(wire.TypeCall, 1, attempt("c"), nil) },
		"call before ready": func(h *host) { h.hello(0); h.send(wire.TypeFreeze, 0, nil, nil) },
		"hello twice": func(h *host) {
			h.greet()
			h.send(wire.TypeHello, 0, wire.Hello{MinVersion: 1, Version: 1}, nil)
		},
		"no frames": func(h *host) {
			h.write = wire.NewWriter(h.stdin.(interface{ Write([]byte) (int, error) }))
			_, _ = h.stdin.(interface{ Write([]byte) (int, error) }).Write([]byte("this is not a frame"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			settings := command("true")
			if name == "call before ready" {
				settings = guestinit.Settings{HTTP: &guestinit.HTTP{Command: []string{"sleep", "1000"}, Port: freePort(t)}}
			}
			h := start(t, settings)
			send(h)
			if code := h.exitCode(); code != 1 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestAnyCommandLineIsTakenOrRefused: reading settings ends in settings that are right, or in an error that names the argument.
func TestAnyCommandLineIsTakenOrRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		args := rapid.SliceOf(rapid.StringMatching(`([a-z.-]|\{|\}|\{\{(call|input|input\.x)\}\})*`)).Draw(t, "command")
		text, err := json.Marshal(command(args...))
		if err != nil {
			t.Fatal(err)
		}
		settings, err := guestinit.ParseSettings(string(text))
		if err == nil {
			err = settings.Validate()
		} else if strings.HasPrefix(err.Error(), "command") {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
	})
}
