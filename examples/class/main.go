// Command class is a class: its workers hold something that was loaded once, for each value of a parameter.
package main

import (
	"context"
	"strings"

	freshet "github.com/freshet-dev/freshet/sdk"
)

// Translator is what a worker holds. A call may give the language; each one that is called has workers of its own:
//
//	freshet call class.translator --method word --param language=fr two
type Translator struct {
	Language string `param:"language" default:"de"`

	words map[string]string
}

// Enter runs before a worker's first call, with the parameters set. The worker is then frozen, and later ones start from there.
func (t *Translator) Enter(context.Context) error {
	t.words = map[string]map[string]string{
		"de": {"one": "eins", "two": "zwei"},
		"fr": {"one": "un", "two": "deux"},
	}[t.Language]
	if t.words == nil {
		return freshet.InputError("no dictionary of %q", t.Language) // callers read it
	}
	return nil
}

// Word translates one.
func (t *Translator) Word(_ context.Context, word string) (string, error) {
	if found, ok := t.words[word]; ok {
		return found, nil
	}
	return "", freshet.InputError("%q is not in the dictionary", word)
}

// Text translates the words that it knows.
func (t *Translator) Text(_ context.Context, text string) (string, error) {
	words := strings.Fields(text)
	for i, word := range words {
		if found, ok := t.words[word]; ok {
			words[i] = found
		}
	}
	return strings.Join(words, " "), nil
}

func main() {
	app := freshet.New("class")
	translator := freshet.Class[Translator](app, "translator")
	freshet.Method(translator, "word", (*Translator).Word)
	freshet.Method(translator, "text", (*Translator).Text)
	app.Main()
}
