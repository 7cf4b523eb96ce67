// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

// built is blixt for this machine, built once.
var built *binary

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "images")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if built, err = build(context.Background(), filepath.Join(dir, "blixt"), runtime.GOARCH); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

func index(t *testing.T, binaries ...*binary) v1.ImageIndex {
	t.Helper()
	i, err := newIndex(binaries)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func digest(t *testing.T, of interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	d, err := of.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestImagesForEachMachine(t *testing.T) {
	other := *built
	other.arch = "arm64"
	if runtime.GOARCH == other.arch {
		other.arch = "amd64"
	}
	i := index(t, built, &other)
	manifest, err := i.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var machines []string
	for _, m := range manifest.Manifests {
		image, err := i.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		machines = append(machines, m.Platform.String()+" "+config.OS+"/"+config.Architecture)
	}
	if diff := cmp.Diff([]string{"linux/" + built.arch + " linux/" + built.arch, "linux/" + other.arch + " linux/" + other.arch}, machines); diff != "" {
		t.Errorf("machines, of the index and of the image (-want +got):\n%s", diff)
	}
}

func TestEqualProgramsMakeEqualImages(t *testing.T) {
	again, err := build(t.Context(), filepath.Join(t.TempDir(), "elsewhere"), built.arch)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := digest(t, index(t, built)), digest(t, index(t, again)); a != b {
		t.Errorf("built twice: %s and %s", a, b)
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
		o := options{registry: c.registry, platforms: "linux/" + built.arch, key: c.key, remote: bytecode.Options{CAFile: c.ca}, log: &log}
		if err := o.run(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("registry %q, key %q: got %v, want an error with %q", c.registry, c.key, err, c.text)
		}
		if log.Len() > 0 {
			t.Errorf("registry %q, key %q: it has begun already: %s", c.registry, c.key, &log)
		}
	}
}
