package build

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// scratchName is the base that has nothing in it.
const scratchName = "scratch"

// predefinedArgs may be given without an ARG that declares them; they are in no key, as passwords may be in them.
var predefinedArgs = []string{ //nolint:gochecknoglobals // a constant list
	"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy",
}

// dockerfile is a parsed Dockerfile.
type dockerfile struct {
	name   string
	stages []instructions.Stage
	// global are the ARGs before the first FROM, with their values.
	global map[string]string
	escape rune
}

func parse(name string, source []byte, args map[string]string) (*dockerfile, error) {
	file := &dockerfile{name: name, global: platformArgs()}
	if len(bytes.TrimSpace(source)) == 0 {
		return nil, file.wrong(1, errors.New("there is no instruction: begin with FROM"))
	}
	result, err := parser.Parse(bytes.NewReader(source))
	if err != nil {
		return nil, file.located(err)
	}
	stages, global, err := instructions.Parse(result.AST, nil)
	if err != nil {
		return nil, file.located(err)
	}
	if len(stages) == 0 {
		return nil, file.wrong(1, errors.New("there is no stage: begin with FROM"))
	}
	file.stages, file.escape = stages, result.EscapeToken
	if err := file.setGlobals(global, args); err != nil {
		return nil, err
	}
	for i := range file.stages {
		if err := file.completeStage(i); err != nil {
			return nil, err
		}
	}
	return file, nil
}

// platformArgs are the arguments that say what is built for. There is one platform: the node's.
func platformArgs() map[string]string {
	platform := "linux/" + runtime.GOARCH
	return map[string]string{
		"TARGETPLATFORM": platform, "TARGETOS": "linux", "TARGETARCH": runtime.GOARCH, "TARGETVARIANT": "",
		"BUILDPLATFORM": platform, "BUILDOS": "linux", "BUILDARCH": runtime.GOARCH, "BUILDVARIANT": "",
	}
}

// setGlobals gives the ARGs before the first FROM their values.
func (f *dockerfile) setGlobals(commands []instructions.ArgCommand, args map[string]string) error {
	for _, command := range commands {
		line := lineOf(command.Location())
		if err := command.Expand(f.expander(f.global)); err != nil {
			return f.wrong(line, err)
		}
		for _, arg := range command.Args {
			value, given := args[arg.Key]
			switch {
			case given:
				f.global[arg.Key] = value
			case arg.Value != nil:
				f.global[arg.Key] = *arg.Value
			}
		}
	}
	return nil
}

// completeStage fills in the variables of a FROM.
func (f *dockerfile) completeStage(i int) error {
	stage := &f.stages[i]
	line := lineOf(stage.Location)
	for _, field := range []*string{&stage.BaseName, &stage.Platform} {
		value, err := f.expander(f.global)(*field)
		if err != nil {
			return f.wrong(line, err)
		}
		*field = value
	}
	if stage.BaseName == "" {
		return f.wrong(line, fmt.Errorf("%s names no image: give the ARG in it a value", stage.SourceCode))
	}
	if stage.Platform != "" && stage.Platform != f.global["TARGETPLATFORM"] {
		return f.wrong(line, fmt.Errorf("the platform %q is not the node's, %s: build on a node of that kind", stage.Platform, f.global["TARGETPLATFORM"]))
	}
	return nil
}

// expander replaces variables in a word.
func (f *dockerfile) expander(values map[string]string) instructions.SingleWordExpander {
	env := environ(values)
	lex := shell.NewLex(f.escape) // one is not for several goroutines
	return func(word string) (string, error) {
		value, _, err := lex.ProcessWord(word, env)
		return value, err
	}
}

func environ(values map[string]string) shell.EnvGetter {
	env := make([]string, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		env = append(env, name+"="+values[name])
	}
	return shell.EnvsFromSlice(env)
}

// expandText replaces variables in a text whose quotes are its own.
func (f *dockerfile) expandText(text string, values map[string]string) (string, error) {
	lex := shell.NewLex(f.escape)
	lex.SkipProcessQuotes = true
	text, _, err := lex.ProcessWord(text, environ(values))
	return text, err
}

// find finds the stage to build.
func (f *dockerfile) find(target string) (int, error) {
	if target == "" {
		return len(f.stages) - 1, nil
	}
	if i, ok := f.stageNamed(target, len(f.stages)); ok {
		return i, nil
	}
	var names []string
	for i, stage := range f.stages {
		names = append(names, nameOf(stage, i))
	}
	return 0, fmt.Errorf("%s: target: %q: there is no such stage; there are %s", f.name, target, strings.Join(names, ", "))
}

func nameOf(stage instructions.Stage, i int) string {
	if stage.Name != "" {
		return stage.Name
	}
	return strconv.Itoa(i)
}

// stageNamed finds one of the first stages by its name or number. A name that was given twice means the later one.
func (f *dockerfile) stageNamed(name string, before int) (int, bool) {
	for i := before - 1; i >= 0; i-- {
		if f.stages[i].Name != "" && strings.EqualFold(f.stages[i].Name, name) {
			return i, true
		}
	}
	number, err := strconv.Atoi(name)
	return number, err == nil && number >= 0 && number < before
}

// baseStage is the stage that a stage begins with, when it is one of the file's. FROM knows stages by name only.
func (f *dockerfile) baseStage(i int) (int, bool) {
	if _, err := strconv.Atoi(f.stages[i].BaseName); err == nil {
		return 0, false
	}
	return f.stageNamed(f.stages[i].BaseName, i)
}

// needed are the stages that the target is made of, itself among them.
func (f *dockerfile) needed(target int) map[int]bool {
	set := map[int]bool{target: true}
	for i := target; i >= 0; i-- { // stages name earlier ones only
		if !set[i] {
			continue
		}
		if base, ok := f.baseStage(i); ok {
			set[base] = true
		}
		for _, command := range f.stages[i].Commands {
			for _, from := range sourcesOf(command) {
				if other, ok := f.stageNamed(from, i); ok {
					set[other] = true
				}
			}
		}
	}
	return set
}

// sourcesOf are the stages or images that an instruction takes files of.
func sourcesOf(command instructions.Command) []string {
	switch c := command.(type) {
	case *instructions.CopyCommand:
		if c.From != "" {
			return []string{c.From}
		}
	case *instructions.RunCommand:
		var list []string
		for _, mount := range instructions.GetMounts(c) {
			if mount.From != "" {
				list = append(list, mount.From)
			}
		}
		return list
	}
	return nil
}

func lineOf(location []parser.Range) int {
	if len(location) == 0 {
		return 1
	}
	return location[0].Start.Line
}

func (f *dockerfile) wrong(line int, err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	return &Error{File: f.name, Line: line, Err: err}
}

// located finds the line in an error of the parser's.
func (f *dockerfile) located(err error) error {
	line := 1
	var at *parser.LocationError
	if errors.As(err, &at) && len(at.Locations) > 0 {
		line = lineOf(at.Locations[0])
	}
	text := strings.TrimPrefix(err.Error(), fmt.Sprintf("dockerfile parse error on line %d: ", line)) // it is said once already
	return f.wrong(line, errors.New(text))
}
