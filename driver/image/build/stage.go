package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/freshet-dev/freshet/driver/image"
)

// counts are the steps of a build that make layers, and those that were made before.
type counts struct{ steps, cached atomic.Int64 }

// stage is a stage in the making.
type stage struct {
	run    *run
	index  int
	name   string
	config Config
	// args are the ARGs in scope.
	args map[string]string
	// image is what there is so far; nil: nothing.
	image *image.Image
	// empty is the root that stands for nothing.
	empty string
	// key says by what steps the stage came to be.
	key string
	// cmdSet tells whether this stage has a CMD of its own, which an ENTRYPOINT leaves alone.
	cmdSet bool
}

// stage builds one stage.
func (r *run) stage(ctx context.Context, index int) (*stage, error) {
	def := r.file.stages[index]
	s := &stage{run: r, index: index, name: nameOf(def, index)}
	var err error
	if s.empty, err = r.scratch.dir(r.builder); err != nil {
		return nil, err
	}
	if err := s.begin(ctx, def); err != nil {
		return nil, r.file.wrong(lineOf(def.Location), err)
	}
	for _, command := range def.Commands {
		if err := s.do(ctx, command); err != nil {
			return nil, r.file.wrong(lineOf(command.Location()), err)
		}
	}
	return s, nil
}

// begin takes over what the stage is based on.
func (s *stage) begin(ctx context.Context, def instructions.Stage) error {
	if base, ok := s.run.file.baseStage(s.index); ok {
		other, err := s.run.await(ctx, base)
		if err != nil {
			return err
		}
		s.image, s.key, s.config, s.args = other.image, other.key, other.config.clone(), maps.Clone(other.args)
		return nil
	}
	s.args = make(map[string]string)
	if def.BaseName == scratchName {
		s.key = keyOf(scratchName)
		return nil
	}
	base, err := s.run.base(ctx, def.BaseName)
	if err != nil {
		return err
	}
	s.image, s.config, s.key = base, Config{Defaults: base.Defaults}.clone(), keyOf("image", base.Content, base.Defaults)
	return nil
}

// base brings an image from elsewhere.
func (r *run) base(ctx context.Context, reference string) (*image.Image, error) {
	if path, ok := image.HostPath(reference); ok && !r.req.HostPaths {
		return nil, fmt.Errorf("%s is a file of the node, and this node allows none: name an image of a registry", path)
	}
	request := image.Request{Task: r.req.Task, Reference: reference, Auth: r.req.Auth}
	base, err := r.builder.Images.Image(ctx, request)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bases = append(r.bases, request)
	return base, nil
}

// root is the stage's root on the host as it is now, never to be written to.
func (s *stage) root() string {
	if s.image == nil {
		return s.empty
	}
	return s.image.Root
}

// values are the variables that an instruction sees: ENV has the last word.
func (s *stage) values() map[string]string {
	values := maps.Clone(s.args)
	maps.Copy(values, s.config.env())
	return values
}

// do does one instruction.
func (s *stage) do(ctx context.Context, command instructions.Command) error {
	if expandable, ok := command.(instructions.SupportsSingleWordExpansion); ok {
		if err := expandable.Expand(s.run.file.expander(s.values())); err != nil {
			return err
		}
	}
	switch c := command.(type) {
	case *instructions.RunCommand:
		return s.doRun(ctx, c)
	case *instructions.CopyCommand:
		return s.doCopy(ctx, c)
	case *instructions.AddCommand:
		return s.doAdd(ctx, c)
	case *instructions.WorkdirCommand:
		return s.doWorkdir(ctx, c)
	}
	return s.configure(command)
}

// configure does what only changes how the image is run.
func (s *stage) configure(command instructions.Command) error {
	config := &s.config
	switch c := command.(type) {
	case *instructions.ArgCommand:
		s.declare(c)
	case *instructions.EnvCommand:
		for _, pair := range c.Env {
			config.setEnv(pair.Key, pair.Value)
		}
	case *instructions.LabelCommand:
		for _, pair := range c.Labels {
			config.label(pair.Key, pair.Value)
		}
	case *instructions.MaintainerCommand:
		config.label("maintainer", c.Maintainer)
	case *instructions.UserCommand:
		config.User = c.User
	case *instructions.CmdCommand:
		config.Cmd, s.cmdSet = config.commandLine(c.ShellDependantCmdLine), true
	case *instructions.EntrypointCommand:
		config.Entrypoint = config.commandLine(c.ShellDependantCmdLine)
		if !s.cmdSet {
			config.Cmd = nil // the base's were for its own entrypoint
		}
	case *instructions.ShellCommand:
		config.Shell = slices.Clone(c.Shell)
	case *instructions.ExposeCommand:
		ports, err := portsOf(c.Ports)
		if err != nil {
			return err
		}
		config.ExposedPorts = addSorted(config.ExposedPorts, ports...)
	case *instructions.VolumeCommand:
		config.Volumes = addSorted(config.Volumes, c.Volumes...)
	case *instructions.StopSignalCommand:
		config.StopSignal = c.Signal
	case *instructions.HealthCheckCommand: // a function's handler says how its server is asked
	default:
		return fmt.Errorf("%s is not offered", strings.ToUpper(command.Name()))
	}
	return nil
}

// declare brings ARGs into scope: with the value that was given, that of before the first FROM, or their default.
func (s *stage) declare(command *instructions.ArgCommand) {
	for _, arg := range command.Args {
		given, isGiven := s.run.req.Args[arg.Key]
		global, isGlobal := s.run.file.global[arg.Key]
		switch {
		case isGiven:
			s.args[arg.Key] = given
		case arg.Value != nil:
			s.args[arg.Key] = *arg.Value
		case isGlobal:
			s.args[arg.Key] = global
		}
	}
}

// portsOf are ports as images name them: "80" is "80/tcp", "7000-7001" is two.
func portsOf(words []string) ([]string, error) {
	var list []string
	for _, word := range words {
		numbers, protocol, found := strings.Cut(word, "/")
		if !found {
			protocol = "tcp"
		}
		first, last, ranged := strings.Cut(numbers, "-")
		if !ranged {
			last = first
		}
		low, err := strconv.ParseUint(first, 10, 16)
		high, err2 := strconv.ParseUint(last, 10, 16)
		if errors.Join(err, err2) != nil || low > high {
			return nil, fmt.Errorf("%q is no port: use one such as 80, 53/udp or 7000-7010", word)
		}
		for port := low; port <= high; port++ {
			list = append(list, strconv.FormatUint(port, 10)+"/"+strings.ToLower(protocol))
		}
	}
	return list, nil
}

// doWorkdir changes the directory, and makes it where it is missing.
func (s *stage) doWorkdir(ctx context.Context, c *instructions.WorkdirCommand) error {
	dir := c.Path
	if !path.IsAbs(dir) {
		dir = path.Join(s.config.workDir(), dir)
	}
	s.config.WorkingDir = path.Clean(dir)
	dest, err := s.destination(s.config.WorkingDir+"/", true)
	if err != nil {
		return err
	}
	items := newItems(s, ownership{})
	if err := items.parents(dest.path + "/."); err != nil {
		return err
	}
	return s.write(ctx, c, items)
}

// step makes a layer, or takes it from an earlier build.
func (s *stage) step(ctx context.Context, command instructions.Command, key string, make func(*layerWriter) error) error {
	event := Event{Stage: s.name, Step: fmt.Sprint(command), Line: lineOf(command.Location())}
	s.run.count.steps.Add(1)
	began := time.Now()
	b := s.run.builder
	s.key = key
	m, found := made{}, false
	if !s.run.req.NoCache {
		m, found = b.lookup(key)
	}
	if found {
		s.run.count.cached.Add(1)
		event.Kind = StepCached
		s.run.tell(event)
		return s.apply(ctx, m)
	}
	event.Kind = StepBegan
	s.run.tell(event)
	dir, err := s.run.scratch.dir(b)
	if err != nil {
		return err
	}
	l, err := newLayerWriter(dir)
	if err != nil {
		return err
	}
	if err := make(l); err != nil {
		_ = l.file.Close() // what is in it is for nobody
		return err
	}
	if m, err = b.keep(key, l); err != nil {
		return err
	}
	event.Kind, event.Took = StepEnded, time.Since(began)
	s.run.tell(event)
	return s.apply(ctx, m)
}

// apply puts a layer on top.
func (s *stage) apply(ctx context.Context, m made) error {
	if m.DiffID == "" {
		return nil
	}
	made, err := s.run.builder.Images.Extend(ctx, s.run.req.Task, s.image, s.run.builder.layer(m), s.config.defaults())
	if err != nil {
		return err
	}
	s.image = made
	return nil
}

// keyOf is the digest of all that makes a step what it is.
func keyOf(parts ...any) string {
	data, err := json.Marshal(parts)
	if err != nil { // strings, numbers and structs of them are all there is
		panic(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
