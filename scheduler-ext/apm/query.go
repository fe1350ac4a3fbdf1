package apm

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// query is one of
//
//	pending                    devices (workers, where they need none) that are wanted and have no place
//	pending/KIND               those of one kind, such as h100
//	nodes/CLASS/EACH           the nodes of a class that run something, and one for each EACH that have no place
//	nodes/CLASS/EACH/KIND      the same by one kind
type query struct {
	// kind is "" for all.
	kind string
	// class is "" where nodes are not asked for.
	class string
	each  int
}

func parse(text string) (query, error) {
	wrong := func(mend string) (query, error) {
		return query{}, spec.FieldError{Field: "query", Value: text, Mend: mend}
	}
	what, rest, _ := strings.Cut(text, "/")
	switch what {
	case "pending":
		return query{kind: rest}, nil
	case "nodes":
		parts := strings.SplitN(rest, "/", 3)
		if len(parts) < 2 || parts[0] == "" {
			return wrong("name the nodes' class and how many workers' devices one has: nodes/gpu/8, nodes/gpu/8/h100")
		}
		each, err := strconv.Atoi(parts[1])
		if err != nil || each < 1 {
			return wrong(fmt.Sprintf("in place of %q write how many devices one node has, 1 or more", parts[1]))
		}
		q := query{class: parts[0], each: each}
		if len(parts) == 3 {
			q.kind = parts[2]
		}
		return q, nil
	default:
		return wrong("ask for pending, pending/KIND, nodes/CLASS/EACH or nodes/CLASS/EACH/KIND")
	}
}
