// Package busyboxtest finds a shell and its tools for the roots that tests make.
package busyboxtest

import (
	"os/exec"
	"testing"
)

// Path is the path of a static busybox: a shell and its tools in one file that needs nothing of a root. Where there is none it is
// installed, from Debian's package.
func Path(t testing.TB) string {
	t.Helper()
	const name = "busybox"
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, args := range [][]string{{"update"}, {"install", "-y", "busybox-static"}} {
		if out, err := exec.Command("apt-get", args...).CombinedOutput(); err != nil {
			t.Fatalf("apt-get %s: %v\n%s", args[0], err, out)
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
