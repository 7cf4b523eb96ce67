// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// A pull secret is data that somebody has written, and comes with no program.
func TestPullSecretRunsNoHelper(t *testing.T) {
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	helper := "#!/bin/sh\ntouch " + ran + "\necho '{\"ServerURL\":\"r.example.com\",\"Username\":\"helper\",\"Secret\":\"helper\"}'\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-evil"), []byte(helper), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("DOCKER_AUTH_CONFIG", `{"auths":{"r.example.com":{"auth":"ZW52OmVudg=="}}}`) // env:env
	const auths = `"auths":{"r.example.com":{"auth":"bWU6c2VjcmV0"}}`                     // me:secret
	for _, c := range []struct{ name, secret, user, fails string }{
		{"credentials", `{` + auths + `}`, "me", ""},
		{"name with a scheme", `{"auths":{"https://r.example.com/v1/":{"auth":"bWU6c2VjcmV0"}}}`, "me", ""},
		{"user and password", `{"auths":{"r.example.com":{"username":"me","password":"secret"}}}`, "me", ""},
		{"credentials beside a store", `{` + auths + `,"credsStore":"evil"}`, "me", ""},
		{"credentials beside a helper", `{` + auths + `,"credHelpers":{"r.example.com":"evil"}}`, "me", ""},
		{"a store alone", `{"credsStore":"evil"}`, "", "names a credential helper"},
		{"a store, and the entry that docker login leaves", `{"auths":{"r.example.com":{}},"credsStore":"evil"}`, "", "names a credential helper"},
		{"a helper alone", `{"credHelpers":{"r.example.com":"evil"}}`, "", "kubectl create secret docker-registry"},
		{"a helper that is a path", `{"credHelpers":{"r.example.com":"../../../` + dir + `/evil"}}`, "", "names a credential helper"},
		{"a helper of another registry", `{"credHelpers":{"other.example.com":"evil"}}`, "", ""},
		{"another registry", `{"auths":{"other.example.com":{"auth":"bWU6c2VjcmV0"}}}`, "", ""},
		{"nothing", ``, "", ""},
		{"an empty object", `{}`, "", ""},
		{"no JSON", `secret`, "", "parse pull secret"},
		{"a list", `["secret"]`, "", "parse pull secret"},
		{"no base64", `{"auths":{"r.example.com":{"auth":"-secret-"}}}`, "", "parse pull secret"},
		{"no password", `{"auths":{"r.example.com":{"auth":"c2VjcmV0"}}}`, "", "parse pull secret"},
		{"deep", strings.Repeat("[", 1<<20), "", "parse pull secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			registry, err := name.NewRegistry("r.example.com")
			if err != nil {
				t.Fatal(err)
			}
			got, err := PullSecret(c.secret).Resolve(registry)
			switch {
			case c.fails != "":
				if err == nil || !strings.Contains(err.Error(), c.fails) || strings.Contains(err.Error(), "secret-") {
					t.Errorf("got %v, want an error with %q, and not the content", err, c.fails)
				}
			case err != nil:
				t.Error(err)
			default:
				auth, err := authn.Authorization(t.Context(), got)
				if err != nil || auth.Username != c.user {
					t.Errorf("got user %q, %v, want %q", auth.Username, err, c.user)
				}
			}
			if _, err := os.Stat(ran); err == nil {
				t.Error("the helper was run")
			}
		})
	}
}

func TestPullSecretOfAnotherType(t *testing.T) {
	for _, data := range []map[string][]byte{nil, {".dockercfg": []byte("{}")}, {".dockerconfigjson": nil}} {
		if _, err := ReadPullSecret(data); err == nil || !strings.Contains(err.Error(), "it has no .dockerconfigjson") {
			t.Errorf("%v: got %v, want an error that names the key", data, err)
		}
	}
	if got, err := ReadPullSecret(map[string][]byte{".dockerconfigjson": []byte("{}")}); err != nil || string(got) != "{}" {
		t.Errorf("got %s, %v", got, err)
	}
}
