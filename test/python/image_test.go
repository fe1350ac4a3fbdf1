package python

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// TestDeployBuildsTheImage of a Dockerfile beside the file, once: another line of code is no other image, another line of the Dockerfile
// runs the steps from there on.
func TestDeployBuildsTheImage(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const dockerfile = "COPY data /data\nRUN [\"python3\", \"-c\", \"open('/upper', 'w').write(open('/data').read().upper())\"]\n"
	write("Dockerfile", "FROM "+imageReference(t)+"\n"+dockerfile)
	write("data", "from the image")
	code := func(mark string) {
		t.Helper()
		write("app.py", "import freshet\nfreshet.app('imaged', image='dockerfile:Dockerfile')\n\n@freshet.function()\ndef read():\n    return open('/upper').read() + '"+mark+"'\n")
	}
	deploy := func(want string, steps ...string) {
		t.Helper()
		began := time.Now()
		out, err := cluster.Freshet(t.Context(), "deploy", filepath.Join(dir, "app.py"))
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Logf("deployed in %s", time.Since(began))
		for _, step := range steps {
			if !strings.Contains(out, step) {
				t.Errorf("it did not say %q: %s", step, out)
			}
		}
		if len(steps) == 0 && strings.Contains(out, "starting a build") {
			t.Errorf("it built an image: %s", out)
		}
		cluster.Known(t, "imaged.read")
		eventually.True(t, "the deploy answers "+want, func() bool { // a worker of the one before may be there still
			got, err := cluster.Call(t, "imaged.read", "", "")
			return err == nil && string(got.Body) == want
		})
	}
	code("!")
	deploy("FROM THE IMAGE!", "2 steps, 0 of them done before")
	code("?")
	deploy("FROM THE IMAGE?")
	write("Dockerfile", "FROM "+imageReference(t)+"\n"+strings.Replace(dockerfile, ".upper()", ".title()", 1))
	deploy("From The Image?", "2 steps, 1 of them done before")
	write("Dockerfile", "FROM "+imageReference(t)+"\nRUN [\"false\"]\n")
	if out, err := cluster.Freshet(t.Context(), "deploy", filepath.Join(dir, "app.py")); err == nil || !strings.Contains(out, "image of function read: build image: Dockerfile:2: ") {
		t.Errorf("a Dockerfile that fails: %v: %s", err, out)
	}
}
