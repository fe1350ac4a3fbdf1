package freshet

import (
	"context"
	"io"
	"iter"
	"math/big"
	"strings"
	"testing"
	"time"
)

// node is a list, which ends somewhere.
type node struct {
	Next  *node
	Value int
}

type endless *endless

type base struct{ Name string }

// fine has all that travels.
type fine struct {
	base
	Time     time.Time
	Big      *big.Int
	List     *node
	Anything any
	ByDay    map[time.Weekday][]string
	ByTime   map[time.Time]int
	Left     func() `json:"-"`
	_        chan int
	Bytes    []byte
	None     struct{}
}

func accept[T any](app *App) {
	Func(app, "f", func(context.Context, T) (string, error) { return "", nil })
}

func give[T any](app *App) {
	Func(app, "f", func(context.Context, string) (out T, _ error) { return out, nil })
}

func TestTypesThatCannotTravelAreRefusedWhenDeployed(t *testing.T) {
	type config struct{ Callback func() }
	type hidden struct{ _ int }
	for name, test := range map[string]struct {
		add func(*App)
		// says is what the error has; nothing where there is none.
		says []string
	}{
		"all that travels":     {accept[fine], nil},
		"and comes back":       {give[*fine], nil},
		"readers":              {give[io.ReadCloser], nil},
		"an input's function":  {accept[struct{ Config config }], []string{"function f: ", "In.Config.Callback", "func()", `json:"-"`}},
		"an output's channel":  {give[[]struct{ C chan int }], []string{"Out[].C", "chan int", "freshet.Generate"}},
		"a complex number":     {accept[map[string]complex128], []string{"In[]", "complex128", "two numbers"}},
		"a map's keys":         {accept[struct{ M map[node]int }], []string{"In.M", "map[freshet.node]int", "keys"}},
		"keys in one way only": {accept[map[[2]int]int], []string{"In:", "keys"}},
		"an interface":         {accept[struct{ R io.Reader }], []string{"In.R", "io.Reader", "concrete"}},
		"an error as output":   {give[struct{ Err error }], []string{"Out.Err", "error"}},
		"unexported fields":    {give[struct{ P *hidden }], []string{"Out.P", "freshet.hidden", "export"}},
		"a pointer to itself":  {accept[endless], []string{"In", "endless"}},
		"a closer as input":    {accept[io.ReadCloser], []string{"In", "io.Reader"}},
		"no code":              {func(app *App) { Func[string, string](app, "f", nil) }, []string{"function f: ", "nil"}},
		"a generator's values": {func(app *App) {
			Generate(app, "f", func(context.Context, string) iter.Seq2[chan int, error] { return nil })
		}, []string{"Out", "chan int"}},
		"a generator of readers": {func(app *App) {
			Generate(app, "f", func(context.Context, string) iter.Seq2[io.Reader, error] { return nil })
		}, []string{"[]byte"}},
		"a batch's inputs": {func(app *App) {
			Batched(app, "f", 2, 0, func(context.Context, []func()) ([]int, error) { return nil, nil })
		}, []string{"In", "func()"}},
		"a method's input": {func(app *App) {
			Method(Class[node](app, "c"), "m", func(*node, context.Context, config) (string, error) { return "", nil })
		}, []string{"function c: method m: In.Callback"}},
		"two methods of a name": {func(app *App) {
			class := Class[node](app, "c")
			for range 2 {
				Method(class, "m", func(*node, context.Context, string) (string, error) { return "", nil })
			}
		}, []string{"function c: method m: ", "rename"}},
		"a class of nothing": {func(app *App) { Class[node](app, "c") }, []string{"function c: ", "freshet.Method"}},
		"a name":             {func(app *App) { Func(app, "a b", func(context.Context, string) (string, error) { return "", nil }) }, []string{`"a b"`, "letters"}},
	} {
		t.Run(name, func(t *testing.T) {
			app := New("test")
			test.add(app)
			_, err := app.Manifest()
			if (err == nil) != (test.says == nil) {
				t.Fatalf("got %v", err)
			}
			for _, part := range test.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}
