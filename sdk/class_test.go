package freshet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-dev/freshet/sdk/spec"
	"github.com/freshet-dev/freshet/sdk/wire"
)

// model has every kind of parameter and every hook.
type model struct {
	Size   string `param:"size"`
	Layers int    `param:"layers" default:"3"`
	Wide   int64  `param:"wide"   default:"-9223372036854775808"`
	Fast   bool   `param:"fast"   default:"true"`
	Seed   []byte `param:"seed"   default:"AQI="`

	loaded string
	hooks  []string
}

func (m *model) Enter(context.Context) error {
	m.loaded = fmt.Sprint(m.Size, m.Layers, m.Wide, m.Fast, len(m.Seed), m.Seed[1])
	m.hooks = append(m.hooks, "enter")
	return nil
}

func (m *model) BeforeFreeze(context.Context) error { m.hooks = append(m.hooks, "freeze"); return nil }

func (m *model) AfterThaw(context.Context) error { m.hooks = append(m.hooks, "thaw"); return nil }

func (m *model) Exit(ctx context.Context) error {
	Logger(ctx).Info("exit hook ran")
	return nil
}

func (m *model) describe(_ context.Context, suffix string) (string, error) {
	return m.loaded + suffix, nil
}

func (m *model) hooked(context.Context, string) ([]string, error) { return m.hooks, nil }

func newClassApp() *App {
	app := New("test")
	class := Class[model](app, "model", Snapshot(false))
	Method(class, "describe", (*model).describe)
	Method(class, "hooks", (*model).hooked)
	return app
}

func TestClassIsInTheManifest(t *testing.T) {
	manifest, err := newClassApp().Manifest()
	if err != nil {
		t.Fatal(err)
	}
	f := manifest.Functions[0]
	if !slices.Equal(f.Methods, []string{"describe", "hooks"}) || len(f.Parameters) != 5 || f.Parameters[0].Default != nil || *f.Parameters[1].Default != "3" {
		t.Errorf("got methods %v, parameters %+v", f.Methods, f.Parameters)
	}
}

func TestClassHasItsParametersBeforeItEnters(t *testing.T) {
	values, err := spec.Config{Parameters: must(newClassApp().Manifest()).Functions[0].Parameters}.Arguments(map[string]string{"size": "large"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := spec.Function{App: "test", Name: "model"}.Pool(values)
	if err != nil {
		t.Fatal(err)
	}
	app := newClassApp()
	h := serve(t, app, pool.Env[spec.ArgumentsEnv]).greet("model")
	call := attempt("a")
	call.Method = "describe"
	h.send(wire.TypeCall, 1, call, `"!"`)
	if msg := h.next(wire.TypeResult); string(msg.Payload) != "large3 -9223372036854775808 true 2 2!" {
		t.Errorf("got %s", msg.Payload)
	}
	h.send(wire.TypeFreeze, 0, nil, "")
	h.next(wire.TypeFrozen)
	h.send(wire.TypeThawed, 0, wire.Thawed{Time: time.Now(), Entropy: make([]byte, 32)}, "")
	h.next(wire.TypeReady)
	call.Method = "hooks"
	h.send(wire.TypeCall, 2, call, `""`)
	if msg := h.next(wire.TypeResult); string(msg.Payload) != `["enter","freeze","thaw"]` {
		t.Errorf("hooks: %s", msg.Payload)
	}
	call.Method = "deskribe"
	h.send(wire.TypeCall, 3, call, `""`)
	if fault := h.fault(wire.TypeFailure); fault.Kind != wire.KindInput || !strings.Contains(fault.Message, "describe") {
		t.Errorf("an unknown method: %+v", fault)
	}
	h.send(wire.TypeDrain, 0, nil, "")
	h.next(wire.TypeDrained)
	if len(h.log) != 1 || !strings.Contains(string(h.log[0].Payload), "exit hook ran") {
		t.Errorf("the exit hook left %d lines", len(h.log))
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func TestClassWithAWrongParameterIsNotDeployed(t *testing.T) {
	app := New("test")
	class := Class[struct {
		Rate float64 `param:"rate"`
		Size int     `param:"size" default:"large"`
	}](app, "model")
	Method(class, "run", func(_ *struct {
		Rate float64 `param:"rate"`
		Size int     `param:"size" default:"large"`
	}, _ context.Context, in string,
	) (string, error) {
		return in, nil
	})
	_, err := app.Manifest()
	for _, name := range []string{"Rate", "default", "large"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want it to name %s", err, name)
		}
	}
}
