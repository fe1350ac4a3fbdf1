package spec_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/freshet-dev/freshet/sdk/spec"
)

func parameters() spec.Config {
	return spec.Config{Parameters: []spec.Parameter{
		{Name: "size", Type: spec.ParameterString},
		{Name: "layers", Type: spec.ParameterInt, Default: new("3")},
		{Name: "fast", Type: spec.ParameterBool, Default: new("false")},
		{Name: "seed", Type: spec.ParameterBytes, Default: new("")},
	}}
}

func TestArgumentsNameWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		texts  map[string]string
		object string
		field  string
	}{
		"missing":             {nil, ``, "param.size"},
		"unknown":             {map[string]string{"size": "a", "sice": "b"}, ``, "param.sice"},
		"unknown in JSON":     {map[string]string{"size": "a"}, `{"sice":1}`, "param.sice"},
		"twice":               {map[string]string{"size": "a"}, `{"size":"a"}`, "param.size"},
		"no number":           {map[string]string{"size": "a", "layers": "many"}, ``, "param.layers"},
		"a fraction":          {nil, `{"size":"a","layers":1.5}`, "param.layers"},
		"a number too large":  {nil, `{"size":"a","layers":9223372036854775808}`, "param.layers"},
		"text for a number":   {nil, `{"size":"a","layers":"3"}`, "param.layers"},
		"a number for text":   {nil, `{"size":3}`, "param.size"},
		"null":                {nil, `{"size":null}`, "param.size"},
		"a list":              {nil, `{"size":["a"]}`, "param.size"},
		"no truth":            {map[string]string{"size": "a", "fast": "yes"}, ``, "param.fast"},
		"no base64":           {map[string]string{"size": "a", "seed": "!"}, ``, "param.seed"},
		"no object":           {nil, `["a"]`, "param"},
		"too large":           {map[string]string{"size": strings.Repeat("x", spec.MaxArguments)}, ``, "param"},
		"a long name":         {map[string]string{"size": "a", strings.Repeat("x", 3000): "b"}, ``, "param." + strings.Repeat("x", 200) + "…"},
		"a large wrong value": {map[string]string{"size": "a", "layers": strings.Repeat("x", 3000)}, ``, "param.layers"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parameters().Arguments(test.texts, []byte(test.object))
			var wrong spec.FieldError
			if !errors.As(err, &wrong) || wrong.Field != test.field || len(err.Error()) > 1000 {
				t.Errorf("got %v, want one about %s", err, test.field)
			}
		})
	}
}

// TestSameValuesAreOnePool however they are given, and others are another one.
func TestSameValuesAreOnePool(t *testing.T) {
	pool := func(texts map[string]string, object string) spec.Function {
		config := parameters()
		values, err := config.Arguments(texts, []byte(object))
		if err != nil {
			t.Fatal(err)
		}
		config.Handler, config.Code = &spec.Handler{Type: spec.HandlerGo}, "/srv/x"
		f, err := spec.Function{App: "a", Name: "model", Config: config}.Pool(values)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Validate(); err != nil {
			t.Errorf("the pool %s is not valid: %v", f.Name, err)
		}
		return f
	}
	same := pool(map[string]string{"size": "a"}, "")
	for _, other := range []spec.Function{
		pool(nil, `{"size":"a"}`), pool(nil, `{"fast":false,"size":"a","layers":3}`), pool(map[string]string{"layers": "03"}, `{"size":"a","seed":""}`),
	} {
		if other.Name != same.Name {
			t.Errorf("%s and %s are not one", same.Env, other.Env)
		}
	}
	if other := pool(map[string]string{"size": "b"}, ""); other.Name == same.Name || spec.BaseName(other.Name) != "model" || !other.IsPool() {
		t.Errorf("%s and %s", same.Name, other.Name)
	}
}

// FuzzArguments: whatever a caller sends is refused by a field's name, or makes values that read again are the same.
func FuzzArguments(f *testing.F) {
	f.Add("a", "1", `{"fast":true}`)
	f.Add("", "x", `{"seed":"AQI="}`)
	f.Add("\xff", "9", `{`)
	f.Fuzz(func(t *testing.T, size, layers, object string) {
		values, err := parameters().Arguments(map[string]string{"size": size, "layers": layers}, []byte(object))
		if err != nil {
			var wrong spec.FieldError
			if !errors.As(err, &wrong) || !strings.HasPrefix(wrong.Field, "param") {
				t.Fatalf("refused without a field: %v", err)
			}
			return
		}
		data, err := json.Marshal(values)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parameters().Arguments(nil, data)
		if err != nil {
			t.Fatalf("%s is refused: %v", data, err)
		}
		if more, _ := json.Marshal(again); string(more) != string(data) {
			t.Fatalf("%s became %s", data, more)
		}
	})
}
