package spec

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The types of parameters.
const (
	ParameterString = "string"
	ParameterInt    = "int"
	ParameterBool   = "bool"
	// ParameterBytes is written in base64 wherever text is wanted.
	ParameterBytes = "bytes"
)

const (
	// MaxParameters bounds the parameters of a class.
	MaxParameters = 64
	// MaxArguments bounds the values of all parameters of a call, as JSON in bytes.
	MaxArguments = 16 << 10
	// ArgumentsEnv is the variable in which a guest finds the values of its parameters: a JSON object with every one of them.
	ArgumentsEnv = "FRESHET_PARAMETERS"
	// poolMark stands between a function's name and the digest of a combination of values; no name has it.
	poolMark = "~"
	// poolDigest is the length of that digest in hex digits.
	poolDigest = 16
)

// Parameter is something that a class is made with, before its enter hook.
type Parameter struct {
	// Name is as app names are.
	Name string `json:"name"`
	// Type is one of the Parameter constants.
	Type string `json:"type"`
	// Default is the value of calls that give none, written as a query's parameter has it. Without one each call must give a value.
	Default *string `json:"default,omitempty"`
}

// Arguments are the values of a function's parameters: string, int64, bool or, for bytes, base64 text.
type Arguments map[string]any

// parse reads a value as a query or a default has it.
func (p Parameter) parse(text string) (any, error) {
	fail := func(mend string) error { return FieldError{Field: "param." + p.Name, Value: shorten(text), Mend: mend} }
	switch p.Type {
	case ParameterInt:
		value, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fail("use a whole number of 64 bits")
		}
		return value, nil
	case ParameterBool:
		if text != "true" && text != "false" {
			return nil, fail("use true or false")
		}
		return text == "true", nil
	case ParameterBytes:
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fail("use base64")
		}
		return base64.StdEncoding.EncodeToString(data), nil
	}
	if !utf8.ValidString(text) {
		return nil, fail("use UTF-8, or a parameter of type bytes")
	}
	return text, nil
}

// read takes a value as JSON has it.
func (p Parameter) read(raw json.RawMessage) (any, error) {
	var value any
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return nil, FieldError{Field: "param." + p.Name, Value: shorten(string(raw)), Mend: "write JSON"}
	}
	switch v := value.(type) {
	case string:
		if p.Type == ParameterString || p.Type == ParameterBytes {
			return p.parse(v)
		}
	case json.Number:
		if p.Type == ParameterInt {
			return p.parse(v.String())
		}
	case bool:
		if p.Type == ParameterBool {
			return v, nil
		}
	}
	return nil, FieldError{Field: "param." + p.Name, Value: shorten(string(raw)), Mend: "write a " + p.Type}
}

func shorten(text string) string {
	const shown = 200
	if len(text) > shown {
		return text[:shown] + "…"
	}
	return text
}

// Arguments reads the values of a call, given as texts (of a query) and as a JSON object (of a header or a body; nil for none), and
// adds the defaults. It fails with a FieldError that names the parameter: one that is unknown, given twice, missing or of
// another type, and values that are too large together.
func (c Config) Arguments(texts map[string]string, object []byte) (Arguments, error) {
	given := map[string]json.RawMessage{}
	if len(object) > 0 {
		if err := json.Unmarshal(object, &given); err != nil {
			return nil, FieldError{Field: "param", Value: shorten(string(object)), Mend: "write a JSON object with a value for each parameter"}
		}
	}
	known := make(map[string]Parameter, len(c.Parameters))
	values := make(Arguments, len(c.Parameters))
	for _, p := range c.Parameters {
		known[p.Name] = p
		text, asText := texts[p.Name]
		raw, asJSON := given[p.Name]
		var err error
		switch {
		case asText && asJSON:
			err = FieldError{Field: "param." + p.Name, Value: shorten(text), Mend: "give it once"}
		case asText:
			values[p.Name], err = p.parse(text)
		case asJSON:
			values[p.Name], err = p.read(raw)
		case p.Default != nil:
			values[p.Name], err = p.parse(*p.Default)
		default:
			err = FieldError{Field: "param." + p.Name, Value: "", Mend: "give a value of type " + p.Type + ": it has no default"}
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(texts)), slices.Sorted(maps.Keys(given))) {
		if _, ok := known[name]; !ok {
			return nil, FieldError{Field: "param." + shorten(name), Value: "", Mend: fmt.Sprintf("no such parameter; there are %q", c.parameterNames())}
		}
	}
	data, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("encode parameters: %w", err)
	}
	if len(data) > MaxArguments {
		return nil, FieldError{Field: "param", Value: fmt.Sprintf("%d bytes", len(data)), Mend: fmt.Sprintf("use at most %d bytes for all parameters together", MaxArguments)}
	}
	return values, nil
}

func (c Config) parameterNames() []string {
	names := make([]string, len(c.Parameters))
	for i, p := range c.Parameters {
		names[i] = p.Name
	}
	return names
}

// Pool is the function whose workers have these values of its parameters: a copy with a name and an environment of its own. It is
// registered and called like any other.
func (f Function) Pool(values Arguments) (Function, error) {
	data, err := json.Marshal(values) // maps are written in the order of their keys
	if err != nil {
		return Function{}, fmt.Errorf("encode parameters: %w", err)
	}
	sum := sha256.Sum256(data)
	f.Name += poolMark + hex.EncodeToString(sum[:])[:poolDigest]
	f.Env = maps.Clone(f.Env)
	if f.Env == nil {
		f.Env = make(map[string]string)
	}
	f.Env[ArgumentsEnv] = string(data)
	return f, nil
}

// IsPool tells whether the function is one that Pool made.
func (f Function) IsPool() bool { return strings.Contains(f.Name, poolMark) }

// BaseName is the name of the function that a pool belongs to; any other name is its own.
func BaseName(name string) string {
	base, _, _ := strings.Cut(name, poolMark)
	return base
}

// ValidFunctionName tells whether a name may be a function's, be it one that Pool made.
func ValidFunctionName(name string) bool {
	base, digest, pool := strings.Cut(name, poolMark)
	return ValidName(base) && (!pool || validPool(digest))
}

func validPool(digest string) bool {
	return len(digest) == poolDigest && strings.Trim(digest, "0123456789abcdef") == ""
}

// checkFunctionName takes the names that Pool makes too, with the values that they stand for.
func checkFunctionName(c *checker, f Function) {
	base, digest, pool := strings.Cut(f.Name, poolMark)
	c.name("name", base)
	if !pool {
		return
	}
	if !validPool(digest) {
		c.fail("name", f.Name, "use a name without %q: it stands before the digest of parameters", poolMark)
	}
	if len(f.Parameters) == 0 || f.Env[ArgumentsEnv] == "" {
		c.fail("env."+ArgumentsEnv, f.Env[ArgumentsEnv], "a function of this name has parameters, and their values here")
	}
}

func checkParameters(c *checker, parameters []Parameter) {
	if len(parameters) > MaxParameters {
		c.fail("parameter", len(parameters), "use at most %d", MaxParameters)
	}
	types := []string{ParameterString, ParameterInt, ParameterBool, ParameterBytes}
	for i, p := range parameters {
		field := fmt.Sprintf("parameter[%d]", i)
		c.name(field+".name", p.Name)
		if slices.ContainsFunc(parameters[:i], func(other Parameter) bool { return other.Name == p.Name }) {
			c.fail(field+".name", p.Name, "name each parameter once")
		}
		if !slices.Contains(types, p.Type) {
			c.fail(field+".type", p.Type, "use one of %s", strings.Join(types, ", "))
		} else if p.Default != nil {
			if _, err := p.parse(*p.Default); err != nil {
				c.fail(field+".default", *p.Default, "use a %s", p.Type)
			}
		}
	}
}
