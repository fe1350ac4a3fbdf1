package freshet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// GuestEnv set to "1" makes a program serve calls on its standard streams. Workers set it.
const GuestEnv = "FRESHET_GUEST"

// App is functions that are deployed together, under one version.
type App struct {
	name      string
	functions []*function
}

// function is one of an app's functions: its spec and its code.
type function struct {
	spec  spec.Function
	hooks hooks
	plain method
	// generate is set in place of plain for a function that yields values.
	generate generator
	// together is set in place of plain for a function that takes calls in batches.
	together batcher
	// server is set beside plain for a function that takes requests.
	server func(context.Context, net.Listener) error
	// methods are set in place of plain for a class.
	methods map[string]method
	// instance makes what a guest of a class holds, by the values of its parameters, and its hooks; nil for what is no class.
	instance func(arguments string) (self any, own hooks)
	// broken is what is wrong with the function's code, for the deploy to tell.
	broken error
	// snapshot says that the Snapshot option was given.
	snapshot bool
}

// hooks run in turns of a guest's life.
type hooks struct {
	set          func() error // the values of a class's parameters, before enter
	enter        func(context.Context) error
	beforeFreeze func(context.Context) error
	afterThaw    func(context.Context) error
	exit         func(context.Context) error
}

// over are the hooks, and the others where there is none.
func (h hooks) over(others hooks) hooks {
	for _, hook := range []struct{ own, other *func(context.Context) error }{
		{&h.enter, &others.enter}, {&h.beforeFreeze, &others.beforeFreeze}, {&h.afterThaw, &others.afterThaw}, {&h.exit, &others.exit},
	} {
		if *hook.own == nil {
			*hook.own = *hook.other
		}
	}
	h.set = others.set
	return h
}

// handler runs the user's code for one call.
type handler func(ctx context.Context, contentType string, input []byte) (outType string, output []byte, err error)

// method is a handler that may take its input as an io.Reader.
type method struct {
	run   handler
	reads bool
}

// generator runs the user's code for one call and gives each value to yield, whose error ends it.
type generator func(ctx context.Context, contentType string, input []byte, yield func(outType string, value []byte) error) error

// New makes an app. Its name matches [A-Za-z0-9][A-Za-z0-9_-]{0,62}; Main refuses another.
func New(name string) *App { return &App{name: name} }

// Func adds a function to the app under a name. Inputs and outputs travel as the package's documentation says.
//
// An error becomes the caller's error with its Go type and message, and is retried as [Retries] says; [InputError] says that
// the input is at fault. A panic is an error too, with its stack.
//
// The handle that it returns is for typed calls of the function, by client.Of.
func Func[In, Out any](app *App, name string, fn func(context.Context, In) (Out, error), options ...Option) Handle[In, Out] {
	f := &function{plain: method{run: adapt(fn), reads: reads[In]()}}
	f.broken = errors.Join(missing(fn == nil), travels[In, Out]())
	app.add(name, f, options)
	return Handle[In, Out]{function: app.name + "." + name}
}

// missing is what is wrong with a function of which there is no code.
func missing(is bool) error {
	if !is {
		return nil
	}
	return errors.New("its code is nil: give it a function")
}

// Generate adds a function that yields values while it runs: a caller who asks for a stream gets each as it comes, any other one gets
// them all as a JSON array. An error that it yields ends the call. When the caller goes away the context ends, and so should fn.
// A call that is tried again begins anew; values that the caller has are not sent again.
//
// The handle that it returns is for typed streams of the function, by client.StreamOf.
func Generate[In, Out any](app *App, name string, fn func(context.Context, In) iter.Seq2[Out, error], options ...Option) StreamHandle[In, Out] {
	f := &function{generate: adaptGenerator(fn)}
	f.broken = errors.Join(missing(fn == nil), travels[In, Out](), wholeOnly[In, Out]("a generator"))
	app.add(name, f, options)
	return StreamHandle[In, Out]{function: app.name + "." + name}
}

// wholeOnly refuses types that are read as they come where there is no stream for them.
func wholeOnly[In, Out any](what string) error {
	if !streamed[In]() && !streamed[Out]() {
		return nil
	}
	return fmt.Errorf("%s has its inputs and outputs in memory: take and return []byte in place of readers, or add the function with freshet.Func", what)
}

func (a *App) add(name string, f *function, options []Option) {
	f.spec.App, f.spec.Name = a.name, name
	f.spec.Handler = &spec.Handler{Type: spec.HandlerGo, Entry: name}
	for _, option := range options {
		option(f)
	}
	loads := f.hooks.enter != nil
	if f.instance != nil {
		_, own := f.instance("")
		loads = loads || own.enter != nil
	}
	if loads && !f.snapshot {
		f.spec.Snapshot.Enabled = true
	}
	a.functions = append(a.functions, f)
}

// Main is the program's main: it serves calls in a worker, tells a deploy about the app's functions, and otherwise says how
// to use the program. It does not return.
func (a *App) Main() {
	os.Exit(a.main())
}

func (a *App) main() int {
	switch {
	case os.Getenv(spec.ManifestEnv) == "1":
		return report(a.printManifest())
	case os.Getenv(GuestEnv) == "1":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		return report(a.serveStdio(ctx, os.Getenv(spec.ArgumentsEnv)))
	}
	fmt.Fprintf(os.Stderr, "This program is the freshet app %q. Deploy it with:\n\n  freshet deploy DIR\n\nwhere DIR is the folder of its main package. Its functions:\n", a.name)
	for _, f := range a.functions {
		fmt.Fprintf(os.Stderr, "  %s\n", f.spec.JobID())
	}
	return 2
}

func report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// Manifest is what a deploy needs to know of the app, checked. The errors name field, value and mend.
func (a *App) Manifest() (spec.Manifest, error) {
	manifest := spec.Manifest{Format: spec.ManifestVersion, App: a.name}
	if len(a.functions) == 0 {
		return manifest, fmt.Errorf("app %s has no functions: add one with freshet.Func before app.Main", a.name)
	}
	seen := make(map[string]bool)
	var wrong []error
	for _, f := range a.functions {
		if seen[f.spec.Name] {
			wrong = append(wrong, fmt.Errorf("function %s: the app has two of this name: rename one", f.spec.Name))
		}
		seen[f.spec.Name] = true
		if err := f.check(); err != nil {
			wrong = append(wrong, fmt.Errorf("function %s: %w", f.spec.Name, err))
		}
		manifest.Functions = append(manifest.Functions, f.spec)
	}
	return manifest, errors.Join(wrong...)
}

// check validates the spec as it will be once the deploy has set the code.
func (f *function) check() error {
	complete := f.spec
	complete.Code = "sha256:" + emptyDigest
	wrong := errors.Join(f.broken, complete.Validate())
	if f.methods != nil && len(f.methods) == 0 {
		wrong = errors.Join(wrong, errors.New("the class has no methods: add one with freshet.Method"))
	}
	return wrong
}

// emptyDigest stands for the program's digest, which only the deploy knows.
const emptyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func (a *App) printManifest() error {
	manifest, err := a.Manifest()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(manifest); err != nil {
		return fmt.Errorf("print manifest: %w", err)
	}
	return nil
}

// find is the function with this name.
func (a *App) find(name string) (*function, bool) {
	for _, f := range a.functions {
		if f.spec.Name == name {
			return f, true
		}
	}
	return nil, false
}
