//go:build long

package images

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLibrariesThaw: what people load answers the same after a thaw as after a cold start. It prints the table of docs/images.md.
func TestLibrariesThaw(t *testing.T) {
	image := pythonImage(t, "numpy scipy scikit-learn joblib threadpoolctl cloudpickle onnxruntime flatbuffers protobuf packaging tokenizers narwhals",
		"python3", "python3-minimal", "libstdc++6")
	libraries := []string{"Unpacked", "Plain", "Numpy", "Sklearn", "Onnxruntime", "Tokenizers"}
	deploy(t, copied(t, "testdata/libraries", image), "libraries.Plain", "libraries.Tokenizers")
	for _, library := range libraries {
		function := "libraries." + library
		first, cold := call(t, function, 7)
		thawed := cold
		for range 3 {
			cluster.AwaitIdle(t, "libraries", library)
			second, took := call(t, function, 7)
			thawed = min(thawed, took)
			if !bytes.Equal(first, second) {
				t.Errorf("%s: thawed it answered %s, cold %s", library, second, first)
			}
		}
		t.Logf("| %s | %.2f s | %.2f s | %.1f | %d MB |", library, cold.Seconds(), thawed.Seconds(), cold.Seconds()/thawed.Seconds(), snapshotBytes(t, library)>>20)
	}
}

// snapshotBytes is the disk that a function's snapshot takes on the node.
func snapshotBytes(t *testing.T, function string) (sum int64) {
	t.Helper()
	manifests, err := filepath.Glob(filepath.Join(cluster.Dir, "driver", "snapshots", "*", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range manifests {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var manifest struct{ Inputs struct{ Function string } }
		if err := json.Unmarshal(data, &manifest); err != nil {
			t.Fatal(err)
		}
		if manifest.Inputs.Function != function {
			continue
		}
		err = filepath.WalkDir(filepath.Dir(path), func(path string, entry fs.DirEntry, err error) error {
			var info unix.Stat_t
			if err == nil && entry.Type().IsRegular() {
				err = unix.Stat(path, &info)
				sum += info.Blocks * 512
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sum
}
