package spec

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// compiledDomain is immutable. It is what a host name looks like: labels of letters, digits and hyphens, at least two of them.
var compiledDomain = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checkWeb checks how a server is reached from outside.
func checkWeb(c *checker, cfg Config) {
	w := cfg.Web
	if cfg.Handler == nil || cfg.Handler.Type == HandlerExec {
		if w.Enabled || w.Public || len(w.Domains)+len(w.Origins) > 0 {
			c.fail("web", w.Enabled, "remove it: only a handler with a server of its own has a web endpoint")
		}
		return
	}
	if !cfg.ServesWeb() && (w.Public || len(w.Domains)+len(w.Origins) > 0) {
		c.fail("web.enabled", w.Enabled, "set it to true, or remove the block")
	}
	for i, domain := range w.Domains {
		field := fmt.Sprintf("web.domains[%d]", i)
		_, numbers := netip.ParseAddr(domain)
		switch {
		case len(domain) > 253 || !compiledDomain.MatchString(domain) || numbers == nil:
			c.fail(field, domain, "use a host name in lower case without a port, such as \"api.example.org\"")
		case slices.Contains(w.Domains[:i], domain):
			c.fail(field, domain, "name it once")
		}
	}
	for i, origin := range w.Origins {
		if !validOrigin(origin) {
			c.fail(fmt.Sprintf("web.origins[%d]", i), origin, "use a scheme and a host, such as \"https://example.org\", or \"*\"")
		}
	}
}

// validOrigin tells whether a text is an origin as browsers send it, or stands for all.
func validOrigin(origin string) bool {
	if origin == "*" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && origin == strings.ToLower(u.Scheme+"://"+u.Host)
}
