package gateway

import (
	"net/http"
	"slices"

	"github.com/freshet-dev/freshet/sdk/spec"
)

// ask is what a request for something with a name in a namespace is about.
type ask struct {
	namespace, name string
	flags           func(name string) string
}

func (a ask) is(flag string) bool { return a.flags(flag) == "true" }

// askOf reads such a request.
func askOf(r *http.Request, parameters ...string) (ask, error) {
	query, err := parseQuery(r.URL.RawQuery, append(parameters, "namespace")...)
	if err != nil {
		return ask{}, err
	}
	asked := ask{namespace: namespaceOf(query), name: r.PathValue("name"), flags: query.Get}
	if !spec.ValidName(asked.namespace) {
		return asked, badInput("query parameter namespace", asked.namespace, "name one namespace")
	}
	if asked.name != "" && !spec.ValidName(asked.name) {
		return asked, badInput("name", asked.name, "use 1 to 63 letters, digits, '-' and '_', starting with a letter or digit")
	}
	return asked, nil
}

// named are the functions of a namespace that fit, by their names; pools go with theirs.
func (d directory) named(namespace string, fits func(spec.Function) bool) []string {
	names := []string{} // an empty list in JSON, never null
	for _, entry := range d.functions.List() {
		if entry.Spec.Namespace == namespace && fits(entry.Spec) && !entry.Spec.IsPool() {
			names = append(names, entry.Spec.JobID())
		}
	}
	slices.Sort(names)
	return names
}
