package image

import (
	"fmt"
	"os"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Auth is how a task logs in to a registry.
type Auth struct {
	Username, Password string
	// Server is the registry's host that the password is for. Default: that of the image. No other one is told it.
	Server string
}

// keychain finds the password for a registry: the task's, then that of the operator's file, else none.
type keychain struct {
	auth         Auth
	server       string
	dockerConfig string
}

func (s *Store) keychain(ref name.Reference, auth Auth) keychain {
	server := ref.Context().RegistryStr()
	if auth.Server != "" {
		server = registryName(auth.Server)
	}
	return keychain{auth: auth, server: server, dockerConfig: s.config.DockerConfig}
}

// Resolve implements authn.Keychain.
func (k keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	if k.auth.Username+k.auth.Password != "" && target.RegistryStr() == k.server {
		return authn.FromConfig(authn.AuthConfig{Username: k.auth.Username, Password: k.auth.Password}), nil
	}
	if k.dockerConfig == "" {
		return authn.Anonymous, nil
	}
	file, err := loadDockerConfig(k.dockerConfig)
	if err != nil {
		return nil, err
	}
	key := target.RegistryStr()
	if key == name.DefaultRegistry {
		key = authn.DefaultAuthKey
	}
	found, err := file.GetAuthConfig(key)
	if err != nil {
		return nil, fmt.Errorf("find password for %s: %w", target.RegistryStr(), err)
	}
	found.ServerAddress = "" // set even where nothing was found
	if found == (types.AuthConfig{}) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: found.Username, Password: found.Password, Auth: found.Auth,
		IdentityToken: found.IdentityToken, RegistryToken: found.RegistryToken,
	}), nil
}

// loadDockerConfig reads the file anew each time: passwords change.
func loadDockerConfig(path string) (*configfile.ConfigFile, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read registry passwords: %w", err)
	}
	defer func() { _ = in.Close() }() // read only
	file, err := config.LoadFromReader(in)
	if err != nil {
		return nil, fmt.Errorf("read registry passwords in %s: %w", path, err)
	}
	return file, nil
}
