// SPDX-License-Identifier: Apache-2.0

// Package releasetest makes small releases to test with what publishes them.
package releasetest

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/provenance"
)

// Version is that of all of them.
const Version = "v1.2.3"

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Make writes a release for a registry, of random bytes in the form of a real one: two
// images for two machines, a chart, an archive. It returns the directory.
func Make(t *testing.T, registry string) string {
	t.Helper()
	dir := t.TempDir()
	r := &release.Release{Source: release.Source{
		Version: Version, Revision: strings.Repeat("c0", 20), Tagged: true, Time: time.Unix(1, 0).UTC(), GoVersion: "go1.26.8", Registry: registry,
	}}
	file := func(name, kind string, content []byte) {
		check(t, os.WriteFile(filepath.Join(dir, name), content, 0o644))
		r.Files = append(r.Files, release.File{Name: name, Kind: kind, SHA256: fmt.Sprintf("%x", sha256.Sum256(content)), Size: int64(len(content))})
	}
	file("blixt_1.2.3_linux_amd64.tar.gz", release.KindArchive, []byte("archive"))
	for _, name := range []string{"charts/blixt", "operator", "bytecode"} {
		image := newImage(t, dir, name)
		image.Repository, image.Tag = r.Registry+"/"+name, Version
		base := strings.ReplaceAll(name, "/", "-")
		subjects := []provenance.Subject{{Name: image.Repository, SHA256: image.Digest}}
		for _, m := range image.Manifests {
			subjects = append(subjects, provenance.Subject{Name: image.Repository, SHA256: m.Digest})
		}
		statement, err := provenance.Build{
			Version: r.Version, Registry: r.Registry, Revision: r.Revision, GoVersion: r.GoVersion,
		}.Statement(subjects...)
		check(t, err)
		file(base+".intoto.json", release.KindProvenance, statement)
		file(base+".spdx.json", release.KindSBOM, []byte(`{"spdxVersion":"SPDX-2.3","name":"`+name+`"}`))
		for _, s := range subjects {
			image.Attestations = append(image.Attestations,
				release.Attestation{PredicateType: bytecode.PredicateProvenance, File: base + ".intoto.json", Digest: s.SHA256},
				release.Attestation{PredicateType: bytecode.PredicateSPDX, File: base + ".spdx.json", Digest: s.SHA256})
		}
		r.Images = append(r.Images, image)
	}
	check(t, r.Write(dir))
	Sum(t, dir)
	return dir
}

// Edit changes the list of a release, and the checksums with it.
func Edit(t *testing.T, dir string, change func(*release.Release)) {
	t.Helper()
	list, err := release.Read(dir)
	check(t, err)
	change(list)
	check(t, list.Write(dir))
	Sum(t, dir)
}

// Sum writes the checksums of a release.
func Sum(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var text strings.Builder
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name() != "SHA256SUMS" {
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			check(t, err)
			fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(content), e.Name())
		}
	}
	check(t, os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(text.String()), 0o644))
}

func newImage(t *testing.T, dir, name string) release.Image {
	t.Helper()
	image := release.Image{Layout: "oci/" + name}
	path, err := layout.Write(filepath.Join(dir, image.Layout), empty.Index)
	check(t, err)
	if strings.HasPrefix(name, "charts/") {
		chart, err := random.Image(100, 1)
		check(t, err)
		check(t, path.AppendImage(chart))
		digest, err := chart.Digest()
		check(t, err)
		image.Digest = digest.String()
		return image
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range []string{"amd64", "arm64"} {
		one, err := random.Image(100, 1)
		check(t, err)
		one = mutate.MediaType(one, types.OCIManifestSchema1)
		digest, err := one.Digest()
		check(t, err)
		image.Manifests = append(image.Manifests, release.Manifest{Platform: "linux/" + arch, Digest: digest.String()})
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	check(t, path.AppendIndex(index))
	digest, err := index.Digest()
	check(t, err)
	image.Digest = digest.String()
	return image
}
