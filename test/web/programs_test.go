package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/internal/eventually"
)

// loadFor is how long the load programs run.
const loadFor = 2 * time.Second

// programs sends what people measure and upload with.
func programs(t *testing.T, address string) {
	t.Run("curl", func(t *testing.T) { upload(t, address) })
	t.Run("wrk", func(t *testing.T) {
		out := program(t, "wrk", "-t2", "-c16", fmt.Sprintf("-d%ds", int(loadFor.Seconds())), address+"/echo/")
		if strings.Contains(out, "Non-2xx") || strings.Contains(out, "Socket errors") || !regexp.MustCompile(`[1-9]\d* requests in`).MatchString(out) {
			t.Errorf("wrk: %s", out)
		}
		t.Log(out)
	})
	t.Run("h2load", func(t *testing.T) {
		out := program(t, "h2load", "-c4", "-m8", "-n2000", address+"/echo/")
		if !strings.Contains(out, "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout") || !strings.Contains(out, "status codes: 2000 2xx") {
			t.Errorf("h2load: %s", out)
		}
		t.Log(out)
	})
	eventually.True(t, "all slots are free", func() bool { return busy(t, address) == 0 })
}

func program(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}

// uploadSize is 64 MiB; LONG takes 2 GiB.
func uploadSize() int64 {
	if os.Getenv("LONG") != "" {
		return 2 << 30
	}
	return 64 << 20
}

// upload sends a file with curl, in a length that is known and in chunks, over both versions of HTTP, and watches the memory of all
// that it passes through.
func upload(t *testing.T, address string) {
	size := uploadSize()
	path := filepath.Join(t.TempDir(), "upload")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(file, sum), rand.NewChaCha8([32]byte{2}), size); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%d %s", size, hex.EncodeToString(sum.Sum(nil)))
	for name, args := range map[string][]string{
		"a known length": {"--upload-file", path, "--request", "POST"},
		"chunks":         {"--upload-file", path, "--request", "POST", "--header", "Transfer-Encoding: chunked"},
		"HTTP/2":         {"--upload-file", path, "--request", "POST", "--http2-prior-knowledge"},
	} {
		t.Run(name, func(t *testing.T) {
			before, began := peaks(t), time.Now()
			if got := program(t, "curl", append(args, "--silent", "--show-error", "--fail-with-body", address+"/sum")...); got != want {
				t.Errorf("curl: %s, want %s", got, want)
			}
			for process, peak := range peaks(t) {
				t.Logf("%s: at most %d MiB, %d before; %d MiB in %s", process, peak>>20, before[process]>>20, size>>20, time.Since(began).Round(time.Millisecond))
				if peak > before[process]+maxGrowth {
					t.Errorf("%s grew from %d to %d MiB", process, before[process]>>20, peak>>20)
				}
			}
		})
	}
}

// maxGrowth is how much more memory a process may need at most while an upload of any size passes through it.
const maxGrowth = 32 << 20

// peaks are the largest resident sizes so far of the gateway and the supervisors, in bytes.
func peaks(t *testing.T) map[string]int64 {
	t.Helper()
	found := make(map[string]int64)
	for _, name := range []string{"freshet-worker", "freshet\x00gateway"} {
		for _, pid := range processes(t, name) {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err != nil {
				continue // it ended
			}
			_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
			var kib int64
			if _, err := fmt.Sscan(string(rest), &kib); err != nil {
				t.Fatalf("read the memory of %s: %v", name, err)
			}
			found[fmt.Sprintf("%s %d", strings.ReplaceAll(name, "\x00", " "), pid)] = kib << 10
		}
	}
	return found
}
