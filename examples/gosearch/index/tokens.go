package index

import (
	"strings"
	"unicode"
)

// words splits text into lower-case terms: words of prose, and the parts of identifiers beside the whole, so that
// HTTPServer is found by http, server and httpserver. Each is handed to yield.
func words(text string, yield func(string)) {
	start := -1
	for i, r := range text {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' {
			if start < 0 {
				start = i
			}
			continue
		}
		if start >= 0 {
			identifier(text[start:i], yield)
			start = -1
		}
	}
	if start >= 0 {
		identifier(text[start:], yield)
	}
}

// identifier yields an identifier and its parts.
func identifier(name string, yield func(string)) {
	parts := split(name)
	if len(parts) != 1 || len(parts[0]) != len(name) {
		yieldTerm(strings.ReplaceAll(name, "_", ""), yield)
	}
	for _, part := range parts {
		yieldTerm(part, yield)
	}
}

// split cuts at underscores and where the case changes; an acronym ends before the word that follows it.
func split(name string) []string {
	var parts []string
	runes := []rune(name)
	start := 0
	cut := func(end int) {
		if end > start {
			parts = append(parts, string(runes[start:end]))
		}
	}
	for i, r := range runes {
		switch {
		case r == '_':
			cut(i)
			start = i + 1
		case i > start && unicode.IsUpper(r) && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])):
			cut(i)
			start = i
		}
	}
	cut(len(runes))
	return parts
}

// maxTerm is the longest term indexed, in bytes: longer ones are generated tables.
const maxTerm = 40

func yieldTerm(word string, yield func(string)) {
	term := stem(strings.ToLower(word))
	if len(term) > 1 && len(term) <= maxTerm && !stopWord(term) {
		yield(term)
	}
}

// stem takes the plural's s away, which is what queries and names differ by most.
func stem(word string) string {
	if len(word) > 3 && strings.HasSuffix(word, "s") && !strings.HasSuffix(word, "ss") && !strings.HasSuffix(word, "us") && !strings.HasSuffix(word, "is") {
		return word[:len(word)-1]
	}
	return word
}

func stopWord(term string) bool {
	switch term {
	case "the", "of", "to", "is", "in", "and", "or", "it", "an", "be", "for", "that", "if", "as", "by", "on", "not", "are",
		"with", "this", "from", "at", "which", "will", "has", "can", "was":
		return true
	}
	return false
}
