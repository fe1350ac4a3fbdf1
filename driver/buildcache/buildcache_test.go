package buildcache_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/driver/buildcache"
)

// TestCollect: the oldest go first, and nothing that a build that runs may need.
func TestCollect(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		cache buildcache.Cache
		stay  string
	}{
		"defaults": {buildcache.Cache{}, "caches/young layers/new.tar layers/week.tar"},
		"an age":   {buildcache.Cache{MaxAge: 48 * time.Hour}, "caches/young layers/new.tar"},
		"a size":   {buildcache.Cache{MaxBytes: 250}, "caches/young layers/new.tar"},
		"no room":  {buildcache.Cache{MaxBytes: 1}, "caches/young layers/new.tar"},
		"ample":    {buildcache.Cache{MaxBytes: 300}, "caches/young layers/new.tar layers/week.tar"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "[builds]")
			for _, file := range []struct {
				path string
				used time.Duration
			}{
				{"default/layers/month.tar", 30 * 24 * time.Hour},
				{"default/layers/week.tar", 7 * 24 * time.Hour},
				{"default/layers/new.tar", time.Minute},
				{"other/caches/old/wheel", 30 * 24 * time.Hour},
				{"other/caches/young/wheel", 23 * time.Hour},
			} {
				at := filepath.Join(dir, file.path)
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(at, make([]byte, 100), 0o600); err != nil {
					t.Fatal(err)
				}
				used := now.Add(-file.used)
				if strings.Contains(file.path, "caches") {
					at = filepath.Dir(at)
				}
				if err := os.Chtimes(at, used, used); err != nil {
					t.Fatal(err)
				}
			}
			c.cache.Dir = dir
			if err := c.cache.Collect(now); err != nil {
				t.Fatal(err)
			}
			var stay []string
			left, err := filepath.Glob(strings.ReplaceAll(dir, "[", `\[`) + "/*/*/*")
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range left {
				stay = append(stay, filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path))
			}
			slices.Sort(stay)
			if got := strings.Join(stay, " "); got != c.stay {
				t.Errorf("what stays is %s, want %s", got, c.stay)
			}
		})
	}
}
