// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/google/go-containerregistry/pkg/authn"
)

// PullSecret is a keychain of the data of a pull secret (kubernetes.io/dockerconfigjson).
// For registries that the secret does not name it has no credentials. Credential helpers,
// which a configuration of Docker may name, are programs: none is ever run.
type PullSecret []byte

// ReadPullSecret returns the keychain of a Secret's data. A Secret of another type has no
// credentials, which is an error: without them the registry's refusal would not say why.
func ReadPullSecret(data map[string][]byte) (PullSecret, error) {
	const key = ".dockerconfigjson"
	if len(data[key]) == 0 {
		return nil, errors.New("it has no " + key + ": make it with kubectl create secret docker-registry")
	}
	return data[key], nil
}

// errHelper: what names the credentials is a program of the machine on which somebody
// has logged in.
var errHelper = errors.New("it names a credential helper (credsStore or credHelpers) instead of credentials, and a pull secret runs no program: " +
	"make the secret with kubectl create secret docker-registry")

// Resolve is that of authn.Keychain.
func (k PullSecret) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if len(k) == 0 {
		return authn.Anonymous, nil
	}
	file, err := config.LoadFromReader(bytes.NewReader(k))
	if err != nil {
		return nil, fmt.Errorf("parse pull secret: %w", err)
	}
	// Not file.GetAuthConfig: that runs helpers, and reads the environment.
	auth, err := credentials.NewFileStore(file).Get(r.RegistryStr())
	if err != nil {
		return nil, fmt.Errorf("find %s in pull secret: %w", r.RegistryStr(), err)
	}
	a := authn.AuthConfig{
		Username: auth.Username, Password: auth.Password, Auth: auth.Auth,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
	}
	if a == (authn.AuthConfig{}) && (file.CredentialsStore != "" || file.CredentialHelpers[r.RegistryStr()] != "") {
		return nil, fmt.Errorf("find %s in pull secret: %w", r.RegistryStr(), errHelper)
	}
	return authn.FromConfig(a), nil
}
