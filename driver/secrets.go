package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/plugins/drivers"

	"github.com/freshet-dev/freshet/internal/secrets"
	"github.com/freshet-dev/freshet/sdk/spec"
)

// secretWait bounds how long the secrets of a task may take to be read.
const secretWait = 10 * time.Second

// NomadConfig is how the plugin reads secrets from Nomad's variables.
type NomadConfig struct {
	// Address is the agent's, such as "http://127.0.0.1:4646". Needed for tasks with secrets.
	Address string `codec:"address"`
	// Token may read the variables below freshet/secrets/; needed where Nomad's ACLs are on.
	Token string `codec:"token"`
	// CACert, ClientCert and ClientKey are paths of PEM files, where the agent's API has TLS.
	CACert     string `codec:"ca_cert"`
	ClientCert string `codec:"client_cert"`
	ClientKey  string `codec:"client_key"`
}

// store is where secrets are read; nil where the node's operator configured nothing.
func (c NomadConfig) store() (*secrets.Store, error) {
	if c.Address == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	config := &api.Config{Address: c.Address, SecretID: c.Token}
	config.TLSConfig = &api.TLSConfig{CACert: c.CACert, ClientCert: c.ClientCert, ClientKey: c.ClientKey}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("plugin config nomad: %w", err)
	}
	return secrets.New(client), nil
}

// secretsOf reads the secrets that the task names, in their order. The newest version is that of now: the plugin keeps none.
func (l *lender) secretsOf(ctx context.Context, cfg *drivers.TaskConfig, config spec.Config) ([]secrets.Secret, error) {
	if len(config.Secrets) == 0 {
		return nil, nil
	}
	if l.secrets == nil {
		return nil, spec.FieldError{
			Field: "secrets", Value: strings.Join(config.Secrets, ", "),
			Mend: "this node's driver reads no secrets: its operator sets nomad.address in the plugin's config",
		}
	}
	ctx, cancel := context.WithTimeout(ctx, secretWait)
	defer cancel()
	var all []secrets.Secret
	for i, text := range config.Secrets {
		named, err := spec.ParseSecret(text)
		if err != nil {
			return nil, err
		}
		found, err := l.secrets.Get(ctx, cfg.Namespace, named.Name, named.Version)
		var none *secrets.NotFoundError
		if errors.As(err, &none) {
			return nil, fmt.Errorf("secrets[%d]: %w (or the driver's Nomad token must not read it)", i, err)
		}
		if err != nil {
			return nil, err
		}
		if missing := found.Missing(named.Required); len(missing) > 0 {
			return nil, fmt.Errorf("secrets[%d]: secret %s has no key %s: set it with `freshet secret set %s %s=VALUE`",
				i, named.Name, strings.Join(missing, ", "), named.Name, missing[0])
		}
		all = append(all, found)
	}
	return all, nil
}

// reveal puts the secrets' values into an environment beside what the job itself sets, and tells whose names they have.
func reveal(env map[string]string, own map[string]string, all []secrets.Secret) map[string]bool {
	revealed := make(map[string]bool)
	for _, secret := range all {
		for key, value := range secret.Values {
			if _, set := own[key]; !set {
				env[key], revealed[key] = value, true
			}
		}
	}
	return revealed
}

// withoutSecrets is the environment that a snapshot's inputs name: they are kept in files and shown, so of secrets they have the marks.
func withoutSecrets(env map[string]string, revealed map[string]bool) map[string]string {
	if len(revealed) == 0 {
		return env
	}
	shown := maps.Clone(env)
	maps.DeleteFunc(shown, func(name, _ string) bool { return revealed[name] })
	return shown
}

// secretMarks says which versions of which secrets are in the guest's memory.
func secretMarks(all []secrets.Secret) map[string]string {
	marks := make(map[string]string, len(all))
	for _, secret := range all {
		marks[secrets.Prefix+secret.Name] = fmt.Sprintf("version %d, %s: %s", secret.Version, secret.Mark, strings.Join(secret.Keys(), ","))
	}
	return marks
}
