package web

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freshet-dev/freshet/internal/jobs"
	"github.com/freshet-dev/freshet/internal/queue"
	"github.com/freshet-dev/freshet/sdk/spec"
)

const (
	// prefix begins the paths of web endpoints.
	prefix = "/web/"
	// namesFor is how old the table of host names may be.
	namesFor = 250 * time.Millisecond
	// maxLabel is the longest part of a host name.
	maxLabel = 63
)

// names are the host names of functions.
type names struct {
	functions Functions
	domain    string

	mu     sync.Mutex
	made   time.Time
	byHost map[string]queue.Function
}

// find is the function that a host name leads to.
func (n *names) find(host string) (queue.Function, bool) {
	if n.domain == "" {
		return queue.Function{}, false
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := time.Now(); now.Sub(n.made) > namesFor {
		n.made, n.byHost = now, n.table()
	}
	function, ok := n.byHost[strings.ToLower(strings.TrimSuffix(host, "."))]
	return function, ok
}

// table is made of all functions. Of two that claim one name the older job has it. Names at and below the cluster's domain are not
// claimed: they are other functions', and the gateway's own.
func (n *names) table() map[string]queue.Function {
	byHost, since := make(map[string]queue.Function), make(map[string]uint64)
	for _, entry := range n.functions.List() {
		if entry.Err != nil || !entry.Spec.ServesWeb() {
			continue
		}
		for _, host := range hostsOf(entry, n.domain) {
			if has, taken := since[host]; taken && has <= entry.Created {
				continue
			}
			byHost[host], since[host] = entry.Key(), entry.Created
		}
	}
	return byHost
}

func hostsOf(entry jobs.Entry, domain string) []string {
	hosts := slices.DeleteFunc(slices.Clone(entry.Spec.Web.Domains), func(host string) bool {
		return host == domain || strings.HasSuffix(host, "."+domain)
	})
	if host := hostName(entry.Spec, domain); host != "" {
		hosts = append(hosts, host)
	}
	return hosts
}

// hostName is the function's name below the cluster's domain; empty when there is none: without a domain, or when it is too long.
func hostName(f spec.Function, domain string) string {
	label := f.App + "--" + f.Name
	if f.Namespace != "" && f.Namespace != spec.DefaultNamespace {
		label = f.Namespace + "--" + label
	}
	if domain == "" || len(label) > maxLabel {
		return ""
	}
	return strings.ToLower(label + "." + domain)
}

// place is what a request's address names.
type place struct {
	function queue.Function
	// base is the part of the path that the function's server does not see.
	base string
}

// find tells what a request is for; false says that it is none of a web endpoint.
func (n *names) place(r *http.Request) (place, bool) {
	if rest, ok := strings.CutPrefix(r.URL.EscapedPath(), prefix); ok {
		app, rest, _ := strings.Cut(rest, "/")
		name, _, _ := strings.Cut(rest, "/")
		namespace := r.Header.Get("Freshet-Namespace")
		if namespace == "" {
			namespace = spec.DefaultNamespace
		}
		return place{queue.Function{Namespace: namespace, App: app, Name: name}, prefix + app + "/" + name}, true
	}
	if function, ok := n.find(r.Host); ok {
		return place{function: function}, true
	}
	return place{}, false
}
