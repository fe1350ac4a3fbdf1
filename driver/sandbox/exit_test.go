package sandbox_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/freshet-dev/freshet/driver/sandbox"
	"github.com/freshet-dev/freshet/internal/eventually"
)

func TestEndsAreToldApart(t *testing.T) {
	root := shellRoot(t)
	for name, test := range map[string]struct {
		script string
		do     func(*testing.T, *box)
		want   sandbox.Exit
	}{
		"success":             {script: "exit 0"},
		"code":                {script: "exit 137", want: sandbox.Exit{Code: 137}},
		"its own signal":      {script: "kill -SEGV $$; sleep 1000", want: sandbox.Exit{Signal: 11}},
		"a signal sent to it": {script: "sleep 1000", do: func(t *testing.T, b *box) { must(t, b.Signal(unix.SIGKILL)) }, want: sandbox.Exit{Signal: 9}},
		"killed":              {script: "sleep 1000", do: func(t *testing.T, b *box) { must(t, b.Kill()) }, want: sandbox.Exit{Signal: 9, Lost: sandbox.LostKilled}},
		"sentry failed": {script: "sleep 1000", do: func(t *testing.T, b *box) {
			// No more memory for it from the host, and then something to do.
			must(t, unix.Prlimit(b.PIDs()[0], unix.RLIMIT_AS, &unix.Rlimit{Cur: 1, Max: 1}, nil))
			_, _ = b.Exec(t.Context(), sandbox.ExecConfig{Args: sh("dd if=/dev/zero of=/tmp/x bs=1M count=300")})
		}, want: sandbox.Exit{Code: 2, Lost: sandbox.LostFailed}},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, shell(t, root, test.script))
			if test.do != nil {
				test.do(t, b)
			}
			exit, err := b.Wait()
			if err != nil {
				t.Fatal(err)
			}
			if test.want.Lost == sandbox.LostFailed && !strings.HasPrefix(exit.Detail, "panic: ") && !strings.HasPrefix(exit.Detail, "fatal error: ") {
				t.Errorf("the failure says %q", exit.Detail)
			}
			t.Log(exit)
			exit.Detail = ""
			if exit != test.want {
				t.Errorf("got %+v, want %+v", exit, test.want)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSignals(t *testing.T) {
	const script = `
		for s in HUP INT QUIT USR1 USR2 TERM CONT WINCH ALRM TSTP; do trap "echo got $s" $s; done
		trap 'echo bye; exit 3' TRAP
		echo ready
		while :; do sleep 0.05; done`
	b := start(t, shell(t, shellRoot(t), script))
	saw := func(what string) {
		t.Helper()
		eventually.True(t, what, func() bool { return strings.Contains(b.output(), what) })
	}
	saw("ready")
	for name, sig := range map[string]unix.Signal{
		"HUP": unix.SIGHUP, "INT": unix.SIGINT, "QUIT": unix.SIGQUIT, "USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2,
		"TERM": unix.SIGTERM, "CONT": unix.SIGCONT, "WINCH": unix.SIGWINCH, "ALRM": unix.SIGALRM, "TSTP": unix.SIGTSTP,
	} {
		must(t, b.Signal(sig))
		saw("got " + name + "\n")
	}
	if err := b.Signal(unix.Signal(900)); err == nil {
		t.Error("a signal that there is not was sent")
	}
	must(t, b.Signal(unix.SIGTRAP))
	saw("bye")
	if exit, err := b.Wait(); err != nil || exit != (sandbox.Exit{Code: 3}) {
		t.Errorf("ended with %+v, %v", exit, err)
	}
	if err := b.Signal(unix.SIGTERM); err == nil {
		t.Error("a guest that ended took a signal")
	}
}

func TestSignalAllReachesEveryProcess(t *testing.T) {
	b := start(t, shell(t, shellRoot(t), `
		trap 'echo parent' USR1
		(trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.05; done) &
		wait; wait; echo over`))
	eventually.True(t, "ready", func() bool { return strings.Contains(b.output(), "ready") })
	must(t, b.SignalAll(unix.SIGUSR1))
	if exit, err := b.Wait(); err != nil || exit.Code != 0 {
		t.Errorf("ended with %+v, %v", exit, err)
	}
	b.copied.Wait()
	for _, want := range []string{"parent", "child", "over"} {
		if !strings.Contains(b.output(), want) {
			t.Errorf("no %q in %q", want, b.output())
		}
	}
}

func TestStats(t *testing.T) {
	b := start(t, shell(t, shellRoot(t), "dd if=/dev/zero of=/tmp/32 bs=1M count=32 2>/dev/null; echo written; while :; do :; done"))
	eventually.True(t, "written", func() bool { return strings.Contains(b.output(), "written") })
	before, err := b.Stats()
	must(t, err)
	if before.Memory < 32<<20 || before.Memory > 256<<20 || before.Processes != 1 {
		t.Errorf("got %+v; want over 32 MiB and one process", before)
	}
	eventually.True(t, "CPU time", func() bool {
		now, err := b.Stats()
		return err == nil && now.CPU > before.CPU+200*time.Millisecond
	})
}
