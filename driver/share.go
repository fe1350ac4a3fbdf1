package driver

import (
	"os"
	"path/filepath"
	"time"

	"github.com/freshet-dev/freshet/driver/snapshot"
	"github.com/freshet-dev/freshet/internal/handoff"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// shareSnapshots reads how snapshots are shared, and checks it all before a worker needs it; nil without a key.
func shareSnapshots(config Config) (*handoff.Share, error) {
	c := config.Snapshots
	if c.KeyFile == "" {
		return nil, nil
	}
	if !filepath.IsAbs(c.KeyFile) {
		return nil, spec.FieldError{Field: "snapshots.key_file", Value: c.KeyFile, Mend: "use an absolute path"}
	}
	if config.Blobs == "" {
		return nil, spec.FieldError{Field: "snapshots.key_file", Value: c.KeyFile, Mend: "set blobs too: that is where snapshots are pushed to"}
	}
	data, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, spec.FieldError{Field: "snapshots.key_file", Value: c.KeyFile, Mend: "name a file that can be read: " + err.Error()}
	}
	if _, err := snapshot.ParseKeys(data); err != nil {
		return nil, err
	}
	share := &handoff.Share{Blobs: config.Blobs, KeyFile: c.KeyFile, MaxBytes: c.SharedMaxBytes}
	if share.FetchTimeout, err = positive("snapshots.fetch_timeout", c.FetchTimeout); err != nil {
		return nil, err
	}
	if share.MaxAge, err = positive("snapshots.shared_max_age", c.SharedMaxAge); err != nil {
		return nil, err
	}
	return share, nil
}

func positive(field, text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, spec.FieldError{Field: field, Value: text, Mend: `write a duration above zero, such as "30s"`}
	}
	return d, nil
}
