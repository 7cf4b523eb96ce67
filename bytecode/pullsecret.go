// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"fmt"

	"github.com/docker/cli/cli/config"
	"github.com/google/go-containerregistry/pkg/authn"
)

// PullSecret is a keychain of the data of a pull secret (kubernetes.io/dockerconfigjson).
// For registries that the secret does not name it has no credentials.
type PullSecret []byte

// Resolve is that of authn.Keychain.
func (k PullSecret) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if len(k) == 0 {
		return authn.Anonymous, nil
	}
	file, err := config.LoadFromReader(bytes.NewReader(k))
	if err != nil {
		return nil, fmt.Errorf("parse pull secret: %w", err)
	}
	auth, err := file.GetAuthConfig(r.RegistryStr())
	if err != nil {
		return nil, fmt.Errorf("find %s in pull secret: %w", r.RegistryStr(), err)
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: auth.Username, Password: auth.Password, Auth: auth.Auth,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
	}), nil
}
