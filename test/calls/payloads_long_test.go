//go:build long

package calls

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/client"
)

// pattern is bytes without end whose content depends on where they are.
type pattern struct{ at uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	n := len(b) &^ 7
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], p.at)
		p.at++
	}
	return n, nil
}

// resident is the most memory, in bytes, that a process ever had resident.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// programs are the processes of a program with a mark in their command lines.
func programs(t *testing.T, name, mark string) []int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, entry := range entries {
		data, err := os.ReadFile(entry)
		args := strings.Split(string(data), "\x00")
		if err != nil || filepath.Base(args[0]) != name || !strings.Contains(string(data), mark) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(entry, "/proc/%d/", &pid); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// TestFourGiBNeedLittleMemory in gateway and supervisor.
func TestFourGiBNeedLittleMemory(t *testing.T) {
	const most = 64 << 20
	echo := func(size int64) [2][32]byte {
		sent, came := sha256.New(), sha256.New()
		_, out, err := api(t).Open(t.Context(), client.Request{Function: "calls.copy", Reader: io.TeeReader(io.LimitReader(&pattern{}, size), sent)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = out.Close() }()
		if n, err := io.Copy(came, out); err != nil || n != size {
			t.Fatalf("%d bytes of %d, %v", n, size, err)
		}
		return [2][32]byte{[32]byte(sent.Sum(nil)), [32]byte(came.Sum(nil))}
	}
	before := make(map[int]int64)
	measure := func(do func(pid int, peak int64)) {
		pids := append(programs(t, "freshet", "gateway"), programs(t, "freshet-worker", shared.dir)...)
		for _, pid := range pids {
			do(pid, resident(t, pid))
		}
	}
	echo(16 << 20) // all that is made once
	measure(func(pid int, peak int64) { before[pid] = peak })
	if len(before) < 2 {
		t.Fatalf("found %d processes: gateway and supervisor are to be measured", len(before))
	}
	if sums := echo(queue.MaxPayload); sums[0] != sums[1] {
		t.Error("other bytes came back than were sent")
	}
	measure(func(pid int, peak int64) {
		was, known := before[pid]
		t.Logf("process %d: at most %d MiB resident, %d MiB before", pid, peak>>20, was>>20)
		if known && peak-was > most {
			t.Errorf("process %d grew from %d MiB to %d MiB", pid, was>>20, peak>>20)
		}
	})
}
