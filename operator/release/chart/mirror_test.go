// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

// What blixt bytecode push copies into a mirror keeps its digest and its signatures: the
// chart, too, by whose digest it is installed.
func TestMirrorKeepsTheSignature(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // no credentials of whoever runs this
	t.Setenv("REGISTRY_AUTH_FILE", "")
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	ca := filepath.Join(t.TempDir(), "ca.crt")
	write(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	o := bytecode.Options{CAFile: ca}

	i := image(t, pack(t, options()))
	published, err := name.NewTag(host + "/blixt/charts/blixt:1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(published, i, remote.WithTransport(server.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "blixt.key")
	public, err := bytecode.GenerateKey(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := bytecode.ReadPrivateKey(file, func() ([]byte, error) { return nil, os.ErrNotExist })
	if err != nil {
		t.Fatal(err)
	}
	from, err := bytecode.Open(t.Context(), published.String(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := from.Sign(t.Context(), key, o); err != nil {
		t.Fatal(err)
	}
	if from, err = bytecode.Open(t.Context(), published.String(), o); err != nil {
		t.Fatal(err)
	}
	to, err := from.Push(t.Context(), host+"/mirror/blixt/charts/blixt:1.2.3", o)
	if err != nil {
		t.Fatal(err)
	}
	copied, err := bytecode.Open(t.Context(), to, o)
	if err != nil {
		t.Fatal(err)
	}
	if want := digest(t, i); copied.Digest() != want {
		t.Errorf("the copy has digest %s, want %s", copied.Digest(), want)
	}
	if signatures, err := copied.Verify([]*bytecode.PublicKey{public}); err != nil || len(signatures) == 0 {
		t.Errorf("signatures of the copy: %v (%v), want some", signatures, err)
	}
}
