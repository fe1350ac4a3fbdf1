// Package secrets keeps named values for functions in Nomad's variables, which Nomad encrypts. Each change makes a version; the last few
// stay.
package secrets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/oklog/ulid/v2"

	"github.com/freshet-dev/freshet/sdk/spec"
)

const (
	// Prefix begins the paths of the variables. Prefix + NAME holds the newest version, Prefix + NAME + "/" + NUMBER an older one.
	Prefix = "freshet/secrets/"
	// Kept is how many versions there are of a secret at most.
	Kept = 5
	// MaxBytes bounds the keys and values of a secret: a variable of Nomad's has 64 KiB, and freshet adds a little of its own.
	MaxBytes = 60 << 10

	// Items that are freshet's own; a dot is in no key. A variable that somebody wrote by hand has none of them.
	versionItem = "freshet.version"
	idItem      = "freshet.id"
	timeItem    = "freshet.created"
)

// Secret is one version of a secret.
type Secret struct {
	Namespace, Name string
	// Version counts from 1; 0 is of a variable that was written by hand.
	Version int
	Values  map[string]string
	Created time.Time
	// Mark is another one for each version of each secret that there ever was.
	Mark string

	index uint64
}

// Keys are sorted.
func (s Secret) Keys() []string { return slices.Sorted(maps.Keys(s.Values)) }

// Missing are the required keys that the secret does not have.
func (s Secret) Missing(required []string) []string {
	return slices.DeleteFunc(slices.Clone(required), func(key string) bool { _, ok := s.Values[key]; return ok })
}

// NotFoundError says which secret there is not, or which version of one; it may also be one that the Nomad token must not read.
type NotFoundError struct {
	Namespace, Name string
	Version         int
}

func (e *NotFoundError) Error() string {
	if e.Version > 0 {
		return fmt.Sprintf("secret %s in namespace %s has no version %d, or not any more: `freshet secret versions %s` lists them", e.Name, e.Namespace, e.Version, e.Name)
	}
	return fmt.Sprintf("no secret %s in namespace %s: make it with `freshet secret create %s KEY=VALUE`", e.Name, e.Namespace, e.Name)
}

// ErrExists says that a secret was to be made that there is already.
var ErrExists = errors.New("there is a secret of this name already")

// ErrBusy says that others changed the secret again and again meanwhile.
var ErrBusy = errors.New("the secret is being changed by others; try again")

// Store reads and writes secrets. Its Nomad token needs the capabilities read, list, write and destroy for variables below Prefix; to
// Get alone, read is enough.
type Store struct{ nomad *api.Client }

// New makes a store.
func New(nomad *api.Client) *Store { return &Store{nomad} }

// Get reads a version of a secret, 0 for the newest. It fails with a *NotFoundError where there is none.
func (s *Store) Get(ctx context.Context, namespace, name string, version int) (Secret, error) {
	newest, err := s.read(ctx, namespace, name, Prefix+name)
	if err != nil || version == 0 || version == newest.Version {
		return newest, err
	}
	found, err := s.read(ctx, namespace, name, archive(name, version))
	var missing *NotFoundError
	if errors.As(err, &missing) {
		missing.Version = version
	}
	return found, err
}

// Names are those of a namespace's secrets, sorted.
func (s *Store) Names(ctx context.Context, namespace string) ([]string, error) {
	listed, _, err := s.nomad.Variables().PrefixList(Prefix, (&api.QueryOptions{Namespace: namespace}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	var names []string
	for _, one := range listed {
		if name := strings.TrimPrefix(one.Path, Prefix); spec.ValidName(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Versions are what there is of a secret, the newest first.
func (s *Store) Versions(ctx context.Context, namespace, name string) ([]Secret, error) {
	newest, err := s.read(ctx, namespace, name, Prefix+name)
	if err != nil {
		return nil, err
	}
	numbers, err := s.archived(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	versions := []Secret{newest}
	for _, number := range slices.Backward(numbers) {
		if number == newest.Version {
			continue // a change that was not made in the end
		}
		old, err := s.read(ctx, namespace, name, archive(name, number))
		var gone *NotFoundError
		if errors.As(err, &gone) {
			continue // it rolled off meanwhile
		}
		if err != nil {
			return nil, err
		}
		versions = append(versions, old)
	}
	return versions, nil
}

// Change is what becomes of a secret.
type Change struct {
	// Values are put in, over those that there are; with Replace they are all that there is.
	Values  map[string]string
	Replace bool
	// New says that there must be no secret of the name.
	New bool
}

// changeTries bounds how often a change is tried that others overtake.
const changeTries = 20

// Put makes a new version of a secret, or its first.
func (s *Store) Put(ctx context.Context, namespace, name string, change Change) (Secret, error) {
	for range changeTries {
		next, err := s.put(ctx, namespace, name, change)
		var overtaken api.ErrCASConflict
		if errors.As(err, &overtaken) {
			continue
		}
		return next, err
	}
	return Secret{}, ErrBusy
}

func (s *Store) put(ctx context.Context, namespace, name string, change Change) (Secret, error) {
	old, err := s.read(ctx, namespace, name, Prefix+name)
	var none *NotFoundError
	there := !errors.As(err, &none)
	if there && err != nil {
		return Secret{}, err
	}
	if there && change.New {
		return Secret{}, ErrExists
	}
	numbers, err := s.archived(ctx, namespace, name)
	if err != nil {
		return Secret{}, err
	}
	last := old.Version
	if len(numbers) > 0 {
		last = max(last, numbers[len(numbers)-1])
	}
	if there {
		if old.Version == 0 { // written by hand
			last++
			old.Version = last
		}
		if err := s.keep(ctx, old); err != nil {
			return Secret{}, err
		}
	}
	next := Secret{
		Namespace: namespace, Name: name, Version: last + 1, Values: make(map[string]string), Created: time.Now().UTC(),
		Mark: ulid.Make().String(), index: old.index,
	}
	if !change.Replace {
		maps.Copy(next.Values, old.Values)
	}
	maps.Copy(next.Values, change.Values)
	if err := Check(next.Values); err != nil {
		return Secret{}, err
	}
	if _, _, err := s.nomad.Variables().CheckedUpdate(next.variable(Prefix+name), write(ctx, namespace)); err != nil {
		return Secret{}, fmt.Errorf("write secret %s: %w", name, err)
	}
	return next, s.rollOff(ctx, namespace, name, next.Version-Kept)
}

// keep writes down a version that is about to be an old one. It may be there already: every version is written once and never changed.
func (s *Store) keep(ctx context.Context, old Secret) error {
	kept := old.variable(archive(old.Name, old.Version))
	kept.ModifyIndex = 0 // it must be new
	_, _, err := s.nomad.Variables().CheckedCreate(kept, write(ctx, old.Namespace))
	var there api.ErrCASConflict
	if err != nil && !errors.As(err, &there) {
		return fmt.Errorf("keep version %d of secret %s: %w", old.Version, old.Name, err)
	}
	return nil
}

// rollOff forgets the versions up to a number.
func (s *Store) rollOff(ctx context.Context, namespace, name string, last int) error {
	numbers, err := s.archived(ctx, namespace, name)
	if err != nil {
		return err
	}
	for _, number := range numbers {
		if number > last {
			break
		}
		if _, err := s.nomad.Variables().Delete(archive(name, number), write(ctx, namespace)); err != nil {
			return fmt.Errorf("forget version %d of secret %s: %w", number, name, err)
		}
	}
	return nil
}

// Remove removes a secret with all its versions.
func (s *Store) Remove(ctx context.Context, namespace, name string) error {
	if _, err := s.read(ctx, namespace, name, Prefix+name); err != nil {
		return err
	}
	if _, err := s.nomad.Variables().Delete(Prefix+name, write(ctx, namespace)); err != nil {
		return fmt.Errorf("remove secret %s: %w", name, err)
	}
	numbers, err := s.archived(ctx, namespace, name)
	if err != nil || len(numbers) == 0 {
		return err
	}
	return s.rollOff(ctx, namespace, name, numbers[len(numbers)-1])
}

// archived are the numbers of the versions that were kept, in their order.
func (s *Store) archived(ctx context.Context, namespace, name string) ([]int, error) {
	prefix := Prefix + name + "/"
	listed, _, err := s.nomad.Variables().PrefixList(prefix, (&api.QueryOptions{Namespace: namespace}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("list versions of secret %s: %w", name, err)
	}
	var numbers []int
	for _, one := range listed {
		if number, err := strconv.Atoi(strings.TrimPrefix(one.Path, prefix)); err == nil {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

func (s *Store) read(ctx context.Context, namespace, name, path string) (Secret, error) {
	found, _, err := s.nomad.Variables().Read(path, (&api.QueryOptions{Namespace: namespace}).WithContext(ctx))
	if errors.Is(err, api.ErrVariablePathNotFound) {
		return Secret{}, &NotFoundError{Namespace: namespace, Name: name}
	}
	if err != nil {
		return Secret{}, fmt.Errorf("read secret %s: %w", name, err)
	}
	return parse(namespace, name, found)
}

// parse reads a variable. Its items may be anybody's: an error never has a value of them.
func parse(namespace, name string, v *api.Variable) (Secret, error) {
	parsed := Secret{Namespace: namespace, Name: name, Values: make(map[string]string), Created: time.Unix(0, v.CreateTime).UTC(), index: v.ModifyIndex}
	for key, value := range v.Items {
		var err error
		switch key {
		case versionItem:
			parsed.Version, err = strconv.Atoi(value)
		case timeItem:
			parsed.Created, err = time.Parse(time.RFC3339, value)
		case idItem:
			parsed.Mark = value
		default:
			parsed.Values[key] = value
		}
		if err != nil {
			return Secret{}, fmt.Errorf("read secret %s: item %s is not what freshet wrote: write the secret again with `freshet secret set %s --replace`", name, key, name)
		}
	}
	// The index sees what was changed by hand.
	parsed.Mark += "." + strconv.FormatUint(v.ModifyIndex, 10)
	if err := Check(parsed.Values); err != nil {
		return Secret{}, fmt.Errorf("read secret %s: %w", name, err)
	}
	return parsed, nil
}

func (s Secret) variable(path string) *api.Variable {
	items := make(api.VariableItems, len(s.Values)+3)
	maps.Copy(items, s.Values)
	id, _, _ := strings.Cut(s.Mark, ".")
	items[versionItem], items[idItem], items[timeItem] = strconv.Itoa(s.Version), id, s.Created.Format(time.RFC3339)
	return &api.Variable{Namespace: s.Namespace, Path: path, Items: items, ModifyIndex: s.index}
}

// Check tells what is wrong with a secret's values, without showing any of them: a spec.FieldError.
func Check(values map[string]string) error {
	if len(values) == 0 {
		return spec.FieldError{Field: "values", Mend: "give at least one key with its value"}
	}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !spec.ValidSecretKey(key) {
			return spec.FieldError{Field: "values", Value: key, Mend: "a key becomes an environment variable: use letters, digits and '_', without the beginning " + spec.ReservedPrefix}
		}
		if strings.ContainsRune(values[key], 0) {
			return spec.FieldError{Field: "values." + key, Value: "…", Mend: "its value has a zero byte, which no environment variable can have: encode it, as base64"}
		}
		size += len(key) + len(values[key])
	}
	if size > MaxBytes {
		return spec.FieldError{Field: "values", Value: strconv.Itoa(size) + " bytes", Mend: fmt.Sprintf("a secret has at most %d: put large ones into a volume", MaxBytes)}
	}
	return nil
}

func archive(name string, version int) string { return Prefix + name + "/" + strconv.Itoa(version) }

func write(ctx context.Context, namespace string) *api.WriteOptions {
	return (&api.WriteOptions{Namespace: namespace}).WithContext(ctx)
}
