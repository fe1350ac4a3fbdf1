package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// MaxSecrets bounds the secrets that one function names.
const MaxSecrets = 32

// Secret is how a function names a secret: the keys of it become variables of the guest's environment.
type Secret struct {
	// Name is the secret's, in the function's namespace.
	Name string
	// Version is the version to use; 0 for the newest one at each start.
	Version int
	// Required are the keys that the secret must have.
	Required []string
}

// compiledSecretKey is immutable.
var compiledSecretKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// ReservedPrefix begins the variables that are freshet's own.
const ReservedPrefix = "FRESHET_"

// ValidSecretKey tells whether a secret may have a key: a name of an environment variable that is not freshet's own.
func ValidSecretKey(key string) bool {
	return compiledSecretKey.MatchString(key) && !strings.HasPrefix(key, ReservedPrefix)
}

// ParseSecret reads how a function names a secret: "db" for its newest version, "db@3" for that one, and "db:USER,PASSWORD" for one that
// must have these keys.
func ParseSecret(text string) (Secret, error) {
	var s Secret
	names, keys, required := strings.Cut(text, ":")
	name, number, versioned := strings.Cut(names, "@")
	if s.Name = name; !ValidName(name) {
		return s, fmt.Errorf("read secret %q: name it by 1 to 63 letters, digits, '-' and '_'", text)
	}
	if versioned {
		version, err := strconv.Atoi(number)
		if err != nil || version < 1 || strconv.Itoa(version) != number {
			return s, fmt.Errorf("read secret %q: after '@' write a version, 1 or more", text)
		}
		s.Version = version
	}
	if !required {
		return s, nil
	}
	for key := range strings.SplitSeq(keys, ",") {
		if !ValidSecretKey(key) || slices.Contains(s.Required, key) {
			return s, fmt.Errorf("read secret %q: after ':' write the keys that it must have, each once, such as \"USER,PASSWORD\"", text)
		}
		s.Required = append(s.Required, key)
	}
	return s, nil
}

// String is what ParseSecret reads.
func (s Secret) String() string {
	text := s.Name
	if s.Version > 0 {
		text += "@" + strconv.Itoa(s.Version)
	}
	if len(s.Required) > 0 {
		text += ":" + strings.Join(s.Required, ",")
	}
	return text
}

// checkSecrets checks the secrets that a config names.
func checkSecrets(c *checker, cfg Config) {
	if len(cfg.Secrets) > MaxSecrets {
		c.fail("secrets", fmt.Sprintf("%d secrets", len(cfg.Secrets)), "name at most %d", MaxSecrets)
	}
	if len(cfg.Secrets) > 0 && cfg.Build != nil {
		c.fail("secrets", strings.Join(cfg.Secrets, ", "), "remove them: a build takes those that its own block names")
	}
	seen := make(map[string]bool, len(cfg.Secrets))
	for i, text := range cfg.Secrets {
		field := fmt.Sprintf("secrets[%d]", i)
		secret, err := ParseSecret(text)
		switch {
		case err != nil:
			c.fail(field, text, "use a name such as \"db\", \"db@3\" for a version, or \"db:USER,PASSWORD\" for one that must have these keys")
		case seen[secret.Name]:
			c.fail(field, text, "name each secret once")
		}
		seen[secret.Name] = true
	}
}

// UsesSecret tells whether the config names the secret.
func (c Config) UsesSecret(name string) bool {
	return slices.ContainsFunc(c.Secrets, func(text string) bool {
		secret, err := ParseSecret(text)
		return err == nil && secret.Name == name
	})
}
