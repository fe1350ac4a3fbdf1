package jobs

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/oklog/ulid/v2"

	"github.com/freshet-dev/freshet/internal/blobs"
	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

const (
	buildTask = "build"
	// buildPoll is how often a build is looked at.
	buildPoll = 200 * time.Millisecond
	// buildDiskMB is what Nomad reserves for a build's log files and context.
	buildDiskMB = 300
)

// Build is an image to be built by a job of its own.
type Build struct {
	// Namespace is the environment, a Nomad namespace.
	Namespace string
	// Build is what to build; its secrets are those below.
	Build spec.Build
	// Secrets are the build's, by id. They are kept in a variable of Nomad's, which encrypts them, while the job is there.
	Secrets map[string][]byte
	// Resources are what the job reserves.
	Resources spec.Resources
	// NetworkMode is the task's; empty for the driver's default.
	NetworkMode string
}

// RunBuild builds an image on a node and passes on each line that the build says; the last one names the image. A build that fails is a
// *wire.Error. When the context ends, the build is stopped. Nothing of the job stays.
func RunBuild(ctx context.Context, nomad *api.Client, b Build, tell func(line string)) (err error) {
	id := "freshet-build-" + strings.ToLower(ulid.Make().String())
	job, err := b.job(id)
	if err != nil {
		return err
	}
	write := (&api.WriteOptions{Namespace: b.Namespace}).WithContext(context.WithoutCancel(ctx))
	if len(b.Secrets) > 0 {
		if _, _, err := nomad.Variables().Create(b.variable(id), write); err != nil {
			return fmt.Errorf("keep the build's secrets: %w", err)
		}
		defer func() {
			_, forgotten := nomad.Variables().Delete(variablePath(id), write)
			err = errors.Join(err, forgotten)
		}()
	}
	if _, _, err := nomad.Jobs().Register(job, write); err != nil {
		return fmt.Errorf("register job %s: %w", id, err)
	}
	defer func() {
		_, _, stop := nomad.Jobs().Deregister(id, true, write)
		err = errors.Join(err, stop)
	}()
	f := &following{nomad: nomad, read: (&api.QueryOptions{Namespace: b.Namespace}).WithContext(ctx), job: id, tell: tell}
	return f.follow(ctx)
}

func variablePath(id string) string { return "nomad/jobs/" + id }

// ids are those of the secrets, in the order of their names in the variable.
func (b Build) ids() []string { return slices.Sorted(maps.Keys(b.Secrets)) }

func (b Build) variable(id string) *api.Variable {
	items := make(api.VariableItems, len(b.Secrets))
	for i, secret := range b.ids() {
		items["s"+strconv.Itoa(i)] = base64.StdEncoding.EncodeToString(b.Secrets[secret])
	}
	return &api.Variable{Namespace: b.Namespace, Path: variablePath(id), Items: items}
}

// job is a batch job that runs once.
func (b Build) job(id string) (*api.Job, error) {
	var templates []*api.Template
	for i, secret := range b.ids() {
		path := "secrets/build/" + strconv.Itoa(i)
		templates = append(templates, &api.Template{
			DestPath: new(path), ChangeMode: new("noop"), Perms: new("0400"),
			EmbeddedTmpl: new(fmt.Sprintf(`{{ with nomadVar %q }}{{ .s%d.Value | base64Decode }}{{ end }}`, variablePath(id), i)),
		})
		b.Build.Secrets = append(b.Build.Secrets, map[string]string{secret: path})
	}
	data, err := json.Marshal(b.Build)
	if err != nil {
		return nil, fmt.Errorf("encode build: %w", err)
	}
	var build map[string]any
	if err := json.Unmarshal(data, &build); err != nil {
		return nil, fmt.Errorf("encode build: %w", err)
	}
	config := map[string]any{"build": []map[string]any{build}}
	if b.NetworkMode != "" {
		config["network_mode"] = b.NetworkMode
	}
	return &api.Job{
		ID: new(id), Name: new(id), Namespace: new(b.Namespace), Type: new(api.JobTypeBatch), Datacenters: []string{"*"},
		TaskGroups: []*api.TaskGroup{{
			Name: new(buildTask), Count: new(1), EphemeralDisk: &api.EphemeralDisk{SizeMB: new(buildDiskMB)},
			RestartPolicy:    &api.RestartPolicy{Attempts: new(0), Mode: new("fail")},
			ReschedulePolicy: &api.ReschedulePolicy{Attempts: new(0), Unlimited: new(false)},
			Tasks: []*api.Task{{
				Name: buildTask, Driver: Driver, Config: config, Templates: templates,
				LogConfig: &api.LogConfig{Disabled: new(true), MaxFiles: new(10), MaxFileSizeMB: new(10)},
				Resources: &api.Resources{CPU: new(b.Resources.CPU), MemoryMB: new(b.Resources.MemoryMB)},
			}},
		}},
	}, nil
}

// following is a build that is being watched.
type following struct {
	nomad *api.Client
	read  *api.QueryOptions
	job   string
	tell  func(line string)

	offset  int64
	partial string
	last    string // line
	waits   bool   // somebody was told that there is no room
}

// follow passes on what the build says until it has ended.
func (f *following) follow(ctx context.Context) error {
	for began := time.Now(); ; {
		allocs, _, err := f.nomad.Jobs().Allocations(f.job, false, f.read)
		if err != nil {
			return fmt.Errorf("look at job %s: %w", f.job, err)
		}
		if len(allocs) == 0 && time.Since(began) > placeWait && !f.waits {
			f.waits = true
			f.tell("waiting for a node with room for the build")
		}
		for _, alloc := range allocs {
			_ = f.output(ctx, alloc) // what is missing is read the next time
			switch alloc.ClientStatus {
			case api.AllocClientStatusComplete:
				return f.ended(ctx, alloc)
			case api.AllocClientStatusFailed, api.AllocClientStatusLost:
				return f.failed(ctx, alloc)
			}
		}
		if err := f.rest(ctx); err != nil {
			return err
		}
	}
}

// lastWait is how long the end of a log may take to be there: Nomad sometimes ends an answer before that.
const lastWait = 10 * time.Second

// wordWait is how long a build that failed may take to say why: one whose process did not even start never does.
const wordWait = 3 * time.Second

// ended reads on until the build has said its last line.
func (f *following) ended(ctx context.Context, alloc *api.AllocationListStub) error {
	for began := time.Now(); ; {
		err := f.output(ctx, alloc)
		if strings.HasPrefix(f.last, blobs.BuiltLine) {
			return nil
		}
		if time.Since(began) > lastWait {
			return errors.Join(errors.New("read the build's last words: they are not in its log"), err)
		}
		if err := f.rest(ctx); err != nil {
			return err
		}
	}
}

// rest waits until it is time to look again.
func (f *following) rest(ctx context.Context) error {
	select {
	case <-time.After(buildPoll):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("build: %w", context.Cause(ctx))
	}
}

// output passes on the whole lines that are new. What cannot be read now, as before the task has begun, can be the next time.
func (f *following) output(ctx context.Context, alloc *api.AllocationListStub) error {
	text, err := f.logs(ctx, alloc, "stdout", f.offset)
	f.offset += int64(len(text))
	lines := strings.Split(f.partial+text, "\n")
	f.partial = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		f.last = line
		f.tell(line)
	}
	return err
}

// failed says why a build failed: in its own words, which are there when they stay the same, else in Nomad's.
func (f *following) failed(ctx context.Context, alloc *api.AllocationListStub) error {
	said := ""
	for began := time.Now(); ; {
		text, err := f.logs(ctx, alloc, "stderr", 0)
		if err == nil && text != "" && text == said || time.Since(began) > wordWait {
			break
		}
		said = text
		if err := f.rest(ctx); err != nil {
			return err
		}
	}
	if said = strings.TrimSpace(said); said == "" {
		said = lastWords(alloc)
	}
	return &wire.Error{Kind: wire.KindUser, Message: said}
}

// logs reads what there is of a log from an offset on.
func (f *following) logs(ctx context.Context, alloc *api.AllocationListStub, kind string, offset int64) (string, error) {
	cancel := make(chan struct{})
	defer close(cancel)
	frames, failed := f.nomad.AllocFS().Logs(
		&api.Allocation{ID: alloc.ID, NodeID: alloc.NodeID, Namespace: alloc.Namespace}, false, buildTask, kind, api.OriginStart, offset, cancel, f.read)
	var text strings.Builder
	for {
		select {
		case frame, ok := <-frames:
			if !ok {
				return text.String(), nil
			}
			_, _ = text.Write(frame.Data) // to memory
		case err := <-failed:
			return text.String(), err
		case <-ctx.Done():
			return text.String(), context.Cause(ctx)
		}
	}
}
