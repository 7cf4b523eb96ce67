// SPDX-License-Identifier: Apache-2.0

package clone

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// passed are the variables that tell where things are, and change nothing of what is made
// of them.
var passed = []string{
	"PATH", "HOME", "USER", "TMPDIR", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC", "SSH_AUTH_SOCK",
	"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
}

// passedOfGo are those of Go, which may also be in a file that go env -w has written.
var passedOfGo = []string{
	"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOAUTH", "GOVCS",
}

// gitConfig replaces the user's, and the machine's: hooks, templates, filters, line ends,
// signatures. A checkout may be somebody else's, as it is for root. Without a name, git
// reads attributes in the user's home, whatever its configuration is.
const gitConfig = `[safe]
	directory = *
[core]
	attributesFile = /dev/null
[protocol]
	version = 2
[advice]
	detachedHead = false
`

// Environment returns the variables for all that makes a release: where things are as in
// the environment of this process, and what is made the same everywhere. It writes git's
// configuration into the directory.
func Environment(ctx context.Context, dir string) ([]string, error) {
	config := filepath.Join(dir, "gitconfig")
	if err := os.WriteFile(config, []byte(gitConfig), 0o644); err != nil {
		return nil, err
	}
	env := []string{
		"LC_ALL=C", "TZ=UTC", "GIT_CONFIG_GLOBAL=" + config, "GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GOENV=off", "GOWORK=off", "GOFLAGS=-trimpath", "CGO_ENABLED=0",
	}
	for _, name := range passed {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	c := exec.CommandContext(ctx, "go", slices.Concat([]string{"env", "-json"}, passedOfGo)...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	c.Stderr = os.Stderr
	text, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	var values map[string]string
	if err := json.Unmarshal(text, &values); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	for _, name := range passedOfGo {
		if values[name] != "" {
			env = append(env, name+"="+values[name])
		}
	}
	return env, nil
}
