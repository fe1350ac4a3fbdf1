package snapshot

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKeyDependsOnEveryInput changes each field there is, those of the mounts too, and wants a key of its own for each.
func TestKeyDependsOnEveryInput(t *testing.T) {
	seen := map[string]string{keyOf(t, Inputs{}): "nothing"}
	for _, index := range reflect.VisibleFields(reflect.TypeFor[Inputs]()) {
		for name, value := range valuesOf(t, index.Type) {
			var inputs Inputs
			reflect.ValueOf(&inputs).Elem().FieldByIndex(index.Index).Set(value)
			key := keyOf(t, inputs)
			if other, there := seen[key]; there {
				t.Errorf("%s %s has the key of %s", index.Name, name, other)
			}
			seen[key] = index.Name + " " + name
			list, err := Why(Inputs{}, inputs)
			if err != nil || len(list) == 0 {
				t.Errorf("%s %s: why says %v, %v", index.Name, name, list, err)
			}
		}
	}
}

func keyOf(t *testing.T, inputs Inputs) string {
	t.Helper()
	key, err := inputs.Key()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// valuesOf are values of a type other than its zero.
func valuesOf(t *testing.T, typ reflect.Type) map[string]reflect.Value {
	t.Helper()
	one := reflect.New(typ).Elem()
	switch typ.Kind() {
	case reflect.String:
		one.SetString("x")
	case reflect.Int, reflect.Int64:
		one.SetInt(7)
	case reflect.Bool:
		one.SetBool(true)
	case reflect.Map:
		return map[string]reflect.Value{
			"one":   reflect.ValueOf(map[string]string{"a": "b"}),
			"other": reflect.ValueOf(map[string]string{"a": "c"}),
			"two":   reflect.ValueOf(map[string]string{"a": "b", "c": ""}),
		}
	case reflect.Slice:
		list := make(map[string]reflect.Value)
		for name, value := range valuesOf(t, typ.Elem()) {
			list["of "+name] = reflect.Append(one, value)
			list["of two "+name] = reflect.Append(one, value, value)
		}
		return list
	case reflect.Struct:
		list := make(map[string]reflect.Value)
		for _, field := range reflect.VisibleFields(typ) {
			for name, value := range valuesOf(t, field.Type) {
				whole := reflect.New(typ).Elem()
				whole.FieldByIndex(field.Index).Set(value)
				list[field.Name+" "+name] = whole
			}
		}
		return list
	default:
		t.Fatalf("no value of %s is known: add one", typ)
	}
	return map[string]reflect.Value{"set": one}
}

func TestWhySaysWhatDiffers(t *testing.T) {
	a := Inputs{App: "app", Runsc: "1", Args: []string{"/program", "a"}, Env: map[string]string{"TOKEN": "secret", "LANG": "C"}}
	b := a
	b.Runsc, b.Args, b.Env = "2", []string{"/program"}, map[string]string{"TOKEN": "other", "LANG": "C"}
	got, err := Why(a, b)
	if err != nil {
		t.Fatal(err)
	}
	want := []Difference{
		{Field: "args.1", A: "a"},
		{Field: "env.TOKEN", A: "sha256:2bb80d537b1da3e3", B: "sha256:d9298a10d1b07358"},
		{Field: "runsc", A: "1", B: "2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if same, err := Why(a, a); err != nil || len(same) > 0 {
		t.Errorf("the same inputs differ: %v, %v", same, err)
	}
}

func TestCPUDigestIsTheSame(t *testing.T) {
	first, err := CPUDigest()
	if err != nil {
		t.Fatal(err)
	}
	if second, err := CPUDigest(); err != nil || second != first {
		t.Errorf("%s, then %s, %v", first, second, err)
	}
}
