// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// start starts a registry with a certificate of its own.
func start(t *testing.T) (host, ca string) {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // no credentials of whoever runs this
	t.Setenv("REGISTRY_AUTH_FILE", "")
	quiet := log.New(io.Discard, "", 0)
	server := httptest.NewTLSServer(registry.New(registry.Logger(quiet), registry.WithReferrersSupport(true)))
	t.Cleanup(server.Close)
	ca = filepath.Join(t.TempDir(), "ca.crt")
	write(t, ca, "CERTIFICATE", server.Certificate().Raw)
	return strings.TrimPrefix(server.URL, "https://"), ca
}

func write(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What cannot be pushed to is said before anything is built.
func TestRegistryIsCheckedFirst(t *testing.T) {
	host, ca := start(t)
	guarded := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(guarded.Close)
	locked := strings.TrimPrefix(guarded.URL, "https://") // its certificate is that of the other
	for _, c := range []struct{ registry, key, ca, text string }{
		{"", "", "", "REGISTRY="},
		{host + "/blixt", "/nonexistent.key", ca, "/nonexistent.key"},
		{"https://" + host + "/blixt", "", ca, "leave out https://, as in " + host + "/blixt/operator"},
		{"blixt", "", "", "names no registry"},
		{host + "/Blixt", "", ca, "Blixt/operator"},
		{"127.0.0.1:1/blixt", "", "", "127.0.0.1:1 cannot be reached"},
		{host + "/blixt", "", "", "is not trusted"},
		{locked + "/blixt", "", ca, "wants credentials"},
	} {
		var log strings.Builder
		o := imagesOptions{registry: c.registry, platforms: "linux/" + runtime.GOARCH, key: c.key, remote: bytecode.Options{CAFile: c.ca}, log: &log}
		if err := o.run(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("registry %q, key %q: got %v, want an error with %q", c.registry, c.key, err, c.text)
		}
		if log.Len() > 0 {
			t.Errorf("registry %q, key %q: it has begun already: %s", c.registry, c.key, &log)
		}
	}
}

// All of it: built, pushed by HTTPS, signed, pulled by what was printed, and run.
func TestPushedImagesRun(t *testing.T) {
	host, ca := start(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir+"/blixt.key", "PRIVATE KEY", private)
	write(t, dir+"/blixt.pub", "PUBLIC KEY", public)
	o := imagesOptions{
		registry: host + "/team/blixt", key: dir + "/blixt.key", platforms: "linux/" + runtime.GOARCH,
		remote: bytecode.Options{CAFile: ca}, log: io.Discard,
	}
	var out strings.Builder
	if err := o.run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	var values struct {
		Image    struct{ Repository, Digest string }
		Bytecode struct{ Image string }
		Config   v1alpha1.BlixtConfigSpec
	}
	if err := yaml.UnmarshalStrict([]byte(out.String()), &values); err != nil {
		t.Fatalf("%v: printed were\n%s", err, &out)
	}
	// Who installs it with these values has nodes run no bytecode of others.
	pemOfKey, err := os.ReadFile(dir + "/blixt.pub")
	if err != nil {
		t.Fatal(err)
	}
	if d := values.Config.Dataplane; d == nil || d.Bytecode == nil || !slices.Equal(d.Bytecode.VerificationKeys, []string{string(pemOfKey)}) {
		t.Errorf("printed were\n%s\nwant the key among verificationKeys:\n%s", &out, pemOfKey)
	}
	operatorName, bytecodeName := values.Image.Repository+"@"+values.Image.Digest, values.Bytecode.Image

	// The operator's image.
	ref, err := name.NewDigest(operatorName)
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := remote.Index(ref, remote.WithTransport(trusting(t, ca)))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(pushed); err != nil {
		t.Error(err)
	}
	image, err := remote.Image(ref, remote.WithTransport(trusting(t, ca)), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
	if err != nil {
		t.Fatal(err)
	}
	content, modes := files(t, image)
	want := map[string]string{
		"etc/": "drwxr-xr-x", "etc/ssl/": "drwxr-xr-x", "etc/ssl/certs/": "drwxr-xr-x",
		"etc/ssl/certs/ca-certificates.crt": "-rw-r--r--", "sbom.spdx.json": "-rw-r--r--", "blixt": "-rwxr-xr-x",
	}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if !strings.Contains(string(content["sbom.spdx.json"]), "pkg:golang/golang.org/x/crypto/x509roots/fallback@") {
		t.Error("the image's SBOM does not list where its CAs come from")
	}
	program := filepath.Join(dir, "blixt")
	if err := os.WriteFile(program, content["blixt"], 0o755); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), program, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(said), "blixt ") {
		t.Errorf("blixt version: %v: %s", err, said)
	}
	elf, err := exec.CommandContext(t.Context(), program, "bytecode", "verify", bytecodeName, "--ca-file="+ca, "--key="+dir+"/blixt.pub").CombinedOutput()
	if err != nil || !strings.Contains(string(elf), "verified "+bytecodeName) {
		t.Errorf("verify bytecode: %v: %s", err, elf)
	}

	// It is signed, in both of cosign's forms.
	verifier, err := bytecode.ReadPublicKey(dir + "/blixt.pub")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := bytecode.Open(t.Context(), operatorName, o.remote)
	if err != nil {
		t.Fatal(err)
	}
	found, err := signed.Verify([]*bytecode.PublicKey{verifier})
	if err != nil {
		t.Fatal(err)
	}
	var forms []string
	for _, s := range found {
		if s.VerifiedBy != "" {
			forms = append(forms, s.Kind)
		}
	}
	if diff := cmp.Diff([]string{bytecode.KindBundle, bytecode.KindSimple}, forms); diff != "" {
		t.Errorf("signatures of the operator's image (-want +got):\n%s", diff)
	}

	// Who builds the bytecode by hand gets the same.
	made, err := exec.CommandContext(t.Context(), program, "bytecode", "build", "-d", filepath.Join(dir, "out")).Output()
	if _, d, _ := strings.Cut(bytecodeName, "@"); err != nil || !strings.HasSuffix(strings.TrimSpace(string(made)), d) {
		t.Errorf("blixt bytecode build made %s (%v), want %s", made, err, d)
	}
}

// files returns what is in an image.
func files(t *testing.T, image v1.Image) (content map[string][]byte, modes map[string]string) {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	content, modes = map[string][]byte{}, map[string]string{}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		archive := tar.NewReader(r)
		for {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			modes[h.Name] = h.FileInfo().Mode().String()
			if content[h.Name], err = io.ReadAll(archive); err != nil {
				t.Fatal(err)
			}
		}
	}
	return content, modes
}

// trusting speaks with the registry.
func trusting(t *testing.T, ca string) http.RoundTripper {
	t.Helper()
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
}

func TestPlatforms(t *testing.T) {
	for _, tc := range []struct {
		given string
		want  []string
	}{
		{"linux/amd64,linux/arm64", []string{"amd64", "arm64"}},
		{"linux/arm64", []string{"arm64"}},
		{"linux/386", nil},
		{"amd64", nil},
		{"", nil},
	} {
		got, err := architectures(tc.given)
		if diff := cmp.Diff(tc.want, got); diff != "" || (err == nil) != (tc.want != nil) {
			t.Errorf("%q (-want +got), error %v:\n%s", tc.given, err, diff)
		}
	}
}
