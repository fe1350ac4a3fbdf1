package driver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
)

func TestSharingIsCheckedBeforeItIsNeeded(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	if err := errors.Join(
		os.WriteFile(good, []byte("one MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"), 0o600),
		os.WriteFile(bad, []byte("one short\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	whole := func() Config {
		return Config{Blobs: "file:///blobs", Snapshots: SnapshotsConfig{KeyFile: good, FetchTimeout: "30s", SharedMaxBytes: 5, SharedMaxAge: "720h"}}
	}
	share, err := shareSnapshots(whole())
	if err != nil || share.KeyFile != good || share.Blobs != "file:///blobs" || share.FetchTimeout != 30*time.Second || share.MaxAge != 720*time.Hour || share.MaxBytes != 5 {
		t.Fatalf("got %+v, %v", share, err)
	}
	if share, err := shareSnapshots(Config{}); share != nil || err != nil {
		t.Errorf("without a key: %+v, %v", share, err)
	}
	for field, change := range map[string]func(*Config){
		"snapshots.key_file":       func(c *Config) { c.Snapshots.KeyFile = "relative" },
		"snapshot key":             func(c *Config) { c.Snapshots.KeyFile = bad },
		"snapshots.fetch_timeout":  func(c *Config) { c.Snapshots.FetchTimeout = "0s" },
		"snapshots.shared_max_age": func(c *Config) { c.Snapshots.SharedMaxAge = "a month" },
	} {
		config := whole()
		change(&config)
		_, err := shareSnapshots(config)
		var wrong spec.FieldError
		if !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	config := whole()
	config.Blobs = ""
	if _, err := shareSnapshots(config); err == nil {
		t.Error("a key without a blob store was taken")
	}
	config = whole()
	config.Snapshots.KeyFile = filepath.Join(dir, "missing")
	if _, err := shareSnapshots(config); err == nil {
		t.Error("a key file that is not there was taken")
	}
}
