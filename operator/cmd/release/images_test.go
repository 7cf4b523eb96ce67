// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/images"
)

// built is blixt for this machine, built once.
var built *release.Binary

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "images")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if built, err = release.Build(context.Background(), filepath.Join(dir, "blixt"), runtime.GOARCH); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

func index(t *testing.T, binaries ...*release.Binary) v1.ImageIndex {
	t.Helper()
	i, err := images.Index(binaries)
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
	other.Arch = "arm64"
	if runtime.GOARCH == other.Arch {
		other.Arch = "amd64"
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
	if diff := cmp.Diff([]string{"linux/" + built.Arch + " linux/" + built.Arch, "linux/" + other.Arch + " linux/" + other.Arch}, machines); diff != "" {
		t.Errorf("machines, of the index and of the image (-want +got):\n%s", diff)
	}
}

func TestEqualProgramsMakeEqualImages(t *testing.T) {
	again, err := release.Build(t.Context(), filepath.Join(t.TempDir(), "elsewhere"), built.Arch)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := digest(t, index(t, built)), digest(t, index(t, again)); a != b {
		t.Errorf("built twice: %s and %s", a, b)
	}
}
