// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubernetes-sigs/blixt/bpf"
)

func TestPushedIsPulled(t *testing.T) {
	for _, c := range []struct {
		name   string
		around []func(http.Handler) http.Handler
	}{
		{"plain", nil},
		{"that fails twice", []func(http.Handler) http.Handler{failing(2)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startRegistry(t, true, c.around...)
			s := built(t)
			moved := 0
			o := r.options()
			o.Progress = func(n int) { moved += n }
			where, err := s.Push(t.Context(), r.ref(":v1"), o)
			if err != nil {
				t.Fatal(err)
			}
			if want := r.ref("@" + s.Digest()); where != want {
				t.Errorf("pushed to %s, want %s", where, want)
			}
			if moved < len(bpf.Object()) {
				t.Errorf("progress of %d bytes, want %d and more", moved, len(bpf.Object()))
			}
			for _, ref := range []string{r.ref(":v1"), where, r.ref(":v1@" + s.Digest())} {
				im, err := Load(t.Context(), ref, r.options())
				if err != nil {
					t.Fatal(err)
				}
				if im.Name != where || !bytes.Equal(im.Object.Bytes, bpf.Object()) {
					t.Errorf("%s: got another image, %s", ref, im.Name)
				}
			}
			found, err := Open(t.Context(), where, r.options())
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "pulled")
			if err := found.Write(dir); err != nil {
				t.Fatal(err)
			}
			im, err := Load(t.Context(), dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if im.Digest != s.Digest() {
				t.Errorf("pulled %s, want %s", im.Digest, s.Digest())
			}
		})
	}
}

// keychain has one password for everything.
type keychain authn.Basic

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: k.Username, Password: k.Password}, nil
}

func TestRegistryProblemsAreExplained(t *testing.T) {
	open := startRegistry(t, true)
	if _, err := built(t).Push(t.Context(), open.ref(":v1"), open.options()); err != nil {
		t.Fatal(err)
	}
	locked := startRegistry(t, true, withPassword("me", "secret"))
	down := startRegistry(t, true, failing(1000))
	forbidden := startRegistry(t, true, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path != "/v2/" {
				refuse(w, http.StatusForbidden, "DENIED", "not yours")
			}
		})
	})
	untrusted, missing := open.options(), open.options()
	untrusted.CAFile = ""
	missing.CAFile = "/nonexistent/ca.crt"
	wrong := locked.options()
	wrong.Keychain = keychain{Username: "me", Password: "wrong"}
	for _, c := range []struct {
		name, ref string
		o         Options
		texts     []string
	}{
		{"certificate of an unknown CA", open.ref(":v1"), untrusted, []string{"certificate of " + open.host + " is not trusted", "--ca-file"}},
		{"CA file missing", open.ref(":v1"), missing, []string{"/nonexistent/ca.crt"}},
		{"no such repository", open.host + "/other/thing:v1", open.options(), []string{"has no repository other/thing", "check its name"}},
		{"no such tag", open.ref(":v9"), open.options(), []string{"repository blixt/bytecode has no image v9", "blixt bytecode push"}},
		{"no credentials", locked.ref(":v1"), locked.options(), []string{"wants credentials", "podman login " + locked.host, "REGISTRY_AUTH_FILE"}},
		{"wrong credentials", locked.ref(":v1"), wrong, []string{"wants credentials", "authentication required"}},
		{"forbidden", forbidden.ref(":v1"), forbidden.options(), []string{"does not permit", "DENIED not yours", "blixt/bytecode"}},
		{"down", down.ref(":v1"), down.options(), []string{"fails, after retries", "503"}},
		{"not there", "127.0.0.1:1/blixt/bytecode:v1", open.options(), []string{"127.0.0.1:1 cannot be reached", "check the name"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(t.Context(), c.ref, c.o)
			wantError(t, err, c.texts...)
		})
	}
	if n := down.requests.Load(); n != 3 {
		t.Errorf("%d requests to the registry that is down, want 3", n)
	}
	_, err := built(t).Push(t.Context(), locked.ref(":v1"), locked.options())
	wantError(t, err, "wants credentials")
	right := locked.options()
	right.Keychain = keychain{Username: "me", Password: "secret"}
	if _, err := built(t).Push(t.Context(), locked.ref(":v1"), right); err != nil {
		t.Error(err)
	}
	_, err = built(t).Push(t.Context(), open.ref("@"+built(t).Digest()), open.options())
	wantError(t, err, "is pushed to a tag")
}

func TestCredentialsComeFromFiles(t *testing.T) {
	r := startRegistry(t, true, withPassword("me", "secret"))
	file := filepath.Join(t.TempDir(), "auth.json")
	write(t, file, []byte(`{"auths":{"`+r.host+`":{"auth":"bWU6c2VjcmV0"}}}`))
	t.Setenv("REGISTRY_AUTH_FILE", file)
	if _, err := built(t).Push(t.Context(), r.ref(":v1"), r.options()); err != nil {
		t.Error(err)
	}
}

func TestPlainHTTPIsRefused(t *testing.T) {
	var asked bool
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true })}
	host := listen(t, server)
	o := Options{Pause: time.Millisecond, Keychain: keychain{Username: "me", Password: "secret"}}
	_, err := Load(t.Context(), host+"/blixt/bytecode:v1", o)
	wantError(t, err, "does not speak HTTPS", "--ca-file")
	if asked {
		t.Error("a request was sent in plain text")
	}
}

func TestDamagedLayerIsRefused(t *testing.T) {
	r := startRegistry(t, true, damaging)
	if _, err := built(t).Push(t.Context(), r.ref(":v1"), r.options()); err != nil {
		t.Fatal(err)
	}
	_, err := Load(t.Context(), r.ref(":v1"), r.options())
	wantError(t, err, r.host, "is not what the digest stands for", "sha256:", "push the image again")
}

func TestWrongLabelsAreRefused(t *testing.T) {
	r := startRegistry(t, true)
	options, err := r.options().remote(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := built(t)
	list, err := s.index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := s.index.Image(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	good := builtin(t).Labels()
	for name, c := range map[string]struct {
		labels map[string]string
		text   string
	}{
		"type":    {map[string]string{ProgramsLabel: `{"blixt":"xdp"}`, MapsLabel: good[MapsLabel]}, "build the image again"},
		"maps":    {map[string]string{ProgramsLabel: good[ProgramsLabel], MapsLabel: `{}`}, MapsLabel},
		"no JSON": {map[string]string{ProgramsLabel: "blixt", MapsLabel: good[MapsLabel]}, "no JSON object"},
		"none":    {nil, "no bytecode image"},
		"huge":    {map[string]string{ProgramsLabel: strings.Repeat(" ", 2<<20)}, "configuration has"},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := image.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			config = config.DeepCopy()
			config.Config.Labels = c.labels
			other, err := mutate.ConfigFile(image, config)
			if err != nil {
				t.Fatal(err)
			}
			push(t, r.ref(":wrong"), other, options)
			_, err = Load(t.Context(), r.ref(":wrong"), r.options())
			wantError(t, err, c.text)
		})
	}
	// What others write with other spaces means the same.
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Config.Labels = map[string]string{ProgramsLabel: ` { "blixt" : "tcx" } `, MapsLabel: strings.ReplaceAll(good[MapsLabel], ",", " ,\n")}
	other, err := mutate.ConfigFile(image, config)
	if err != nil {
		t.Fatal(err)
	}
	push(t, r.ref(":spaces"), other, options)
	if _, err := Load(t.Context(), r.ref(":spaces"), r.options()); err != nil {
		t.Error(err)
	}
}

func push(t *testing.T, to string, image v1.Image, options []remote.Option) {
	t.Helper()
	ref, err := name.ParseReference(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, options...); err != nil {
		t.Fatal(err)
	}
}
