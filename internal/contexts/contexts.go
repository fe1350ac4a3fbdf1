// Package contexts is the file of the clusters that a person works with: their names, addresses and tokens, in HCL as the rest of the
// configuration, readable by its owner alone.
package contexts

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsimple"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// Local is the name of the cluster of `freshet up` on this machine, which needs no context and can have none.
const Local = "local"

// Context is a cluster by name.
type Context struct {
	// Name is what it is called: letters, digits, '_', '.' and '-', at most 63.
	Name string `hcl:"name,label"`
	// Address is its gateway's, such as "https://freshet.example.org".
	Address string `hcl:"address"`
	// Token is what the gateway is shown. Default none.
	Token string `hcl:"token,optional"`
	// Namespace is the environment of commands that name none. Default "default".
	Namespace string `hcl:"namespace,optional"`
	// CA is a file with the certificates, in PEM, that the gateway's is signed by. Default: those that the machine trusts.
	CA string `hcl:"ca,optional"`
}

// File is all of a person's contexts.
type File struct {
	// Current is the name of the one in use; empty for the cluster on this machine.
	Current string `hcl:"current,optional"`
	// Contexts are sorted by name.
	Contexts []Context `hcl:"context,block"`
}

// UnknownError says that there is no such context.
type UnknownError struct {
	Name string
	// Known are those that there are.
	Known []string
}

func (e *UnknownError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("no context %q: there is none yet; `freshet context set %s --addr ADDRESS` makes it", e.Name, e.Name)
	}
	return fmt.Sprintf("no context %q: use one of %q, or make it with `freshet context set %s --addr ADDRESS`", e.Name, e.Known, e.Name)
}

// Load reads the file. One that is not there holds no contexts. One that others may read is refused: it holds tokens.
func Load(path string) (File, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, nil
	}
	if err != nil {
		return File{}, fmt.Errorf("read contexts: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 { // Windows has no such bits; a profile's files are its user's
		return File{}, fmt.Errorf("read contexts: others may read %s, and it holds tokens: run `chmod 600 %s`", path, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return File{}, fmt.Errorf("read contexts: %w", err)
	}
	return parse(path, data)
}

func parse(path string, data []byte) (File, error) {
	var file File
	if err := hclsimple.Decode(filepath.Base(path), data, nil, &file); err != nil {
		return File{}, fmt.Errorf("read contexts of %s: %w", path, err)
	}
	seen := make(map[string]bool)
	for _, c := range file.Contexts {
		if err := c.Validate(); err != nil {
			return File{}, fmt.Errorf("read contexts of %s: %w", path, err)
		}
		if seen[c.Name] {
			return File{}, fmt.Errorf("read contexts of %s: %w", path, spec.FieldError{Field: "context", Value: c.Name, Mend: "name each context once"})
		}
		seen[c.Name] = true
	}
	if file.Current != "" && !seen[file.Current] {
		return File{}, fmt.Errorf("read contexts of %s: %w", path, spec.FieldError{Field: "current", Value: file.Current, Mend: "name one of the contexts, or remove it"})
	}
	file.sort()
	return file, nil
}

// Validate names the field that is wrong, and the mend.
func (c Context) Validate() error {
	if c.Name == Local || !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`).MatchString(c.Name) {
		return spec.FieldError{Field: "context", Value: c.Name, Mend: "name it with letters, digits, '_', '.' and '-', at most 63, and not " + Local + ", which is the cluster on this machine"}
	}
	address, err := url.Parse(c.Address)
	if err != nil || address.Scheme != "http" && address.Scheme != "https" || address.Host == "" {
		return spec.FieldError{Field: "address", Value: c.Address, Mend: "write the gateway's address, such as https://freshet.example.org"}
	}
	if !regexp.MustCompile(`^[!-~]*$`).MatchString(c.Token) {
		return spec.FieldError{Field: "token", Value: "…", Mend: "write it as `freshet token create` printed it"} // never the token itself
	}
	if c.CA != "" && !filepath.IsAbs(c.CA) {
		return spec.FieldError{Field: "ca", Value: c.CA, Mend: "write the whole path of the file"}
	}
	return nil
}

// Find finds a context by its name; a *UnknownError when there is none.
func (f File) Find(name string) (Context, error) {
	known := make([]string, len(f.Contexts))
	for i, c := range f.Contexts {
		if c.Name == name {
			return c, nil
		}
		known[i] = c.Name
	}
	return Context{}, &UnknownError{name, known}
}

// Set adds a context, or replaces the one of its name. The first one is in use at once.
func (f *File) Set(c Context) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if len(f.Contexts) == 0 {
		f.Current = c.Name
	}
	f.Contexts = slices.DeleteFunc(f.Contexts, func(old Context) bool { return old.Name == c.Name })
	f.Contexts = append(f.Contexts, c)
	f.sort()
	return nil
}

func (f *File) sort() {
	slices.SortFunc(f.Contexts, func(a, b Context) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
}

// Use has commands that name no cluster use this one. Local is the one on this machine.
func (f *File) Use(name string) error {
	if name == Local {
		f.Current = ""
		return nil
	}
	if _, err := f.Find(name); err != nil {
		return err
	}
	f.Current = name
	return nil
}

// Remove forgets a context. Where it was in use, the cluster on this machine is.
func (f *File) Remove(name string) error {
	if _, err := f.Find(name); err != nil {
		return err
	}
	f.Contexts = slices.DeleteFunc(f.Contexts, func(c Context) bool { return c.Name == name })
	if f.Current == name {
		f.Current = ""
	}
	return nil
}

// Save writes the file whole or not at all, for its owner alone.
func (f File) Save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".") // with mode 0600
	if err != nil {
		return fmt.Errorf("save contexts: %w", err)
	}
	_, err = temp.Write(f.encode())
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save contexts: %w", errors.Join(err, os.Remove(temp.Name())))
	}
	return nil
}

// encode writes what is set.
func (f File) encode() []byte {
	out := hclwrite.NewEmptyFile()
	set := func(body *hclwrite.Body, name, value string) {
		if value != "" {
			body.SetAttributeValue(name, cty.StringVal(value))
		}
	}
	set(out.Body(), "current", f.Current)
	for _, c := range f.Contexts {
		out.Body().AppendNewline()
		body := out.Body().AppendNewBlock("context", []string{c.Name}).Body()
		set(body, "address", c.Address)
		set(body, "token", c.Token)
		set(body, "namespace", c.Namespace)
		set(body, "ca", c.CA)
	}
	return out.Bytes()
}
