// SPDX-License-Identifier: Apache-2.0

// Package images makes images of programs: equal programs make equal images.
package images

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/sbom"
)

// The places of files in the image.
const (
	programPath = "blixt"
	sbomPath    = "sbom.spdx.json"
	rootsPath   = "etc/ssl/certs/ca-certificates.crt"
)

// Index makes an index with an image for each binary, the operator's and its agents'.
func Index(binaries []*release.Binary) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range binaries {
		image, err := newImage(b)
		if err != nil {
			return nil, fmt.Errorf("make image for %s: %w", b.Arch, err)
		}
		platform := &v1.Platform{OS: "linux", Architecture: b.Arch}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return mutate.Annotations(index, annotations(binaries[0])).(v1.ImageIndex), nil
}

func newImage(b *release.Binary) (v1.Image, error) {
	layer, err := newLayer(b)
	if err != nil {
		return nil, err
	}
	image := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	if image, err = mutate.Append(image, mutate.Addendum{Layer: layer, MediaType: types.OCILayer}); err != nil {
		return nil, err
	}
	diffID, err := layer.DiffID()
	if err != nil {
		return nil, err
	}
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: "linux", Architecture: b.Arch, Created: v1.Time{Time: b.Time()},
		Config: v1.Config{
			User: "65532:65532", Entrypoint: []string{"/" + programPath}, WorkingDir: "/", Labels: annotations(b),
		},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(image, annotations(b)).(v1.Image), nil
}

// annotations are the standard ones (OCI image specification).
func annotations(b *release.Binary) map[string]string {
	const prefix = "org.opencontainers.image."
	all := map[string]string{
		prefix + "title":       "Blixt",
		prefix + "description": "The operator and the agents of Blixt, a layer-4 load balancer for Kubernetes Gateway API",
		prefix + "licenses":    "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)",
		prefix + "source":      release.Home,
		prefix + "version":     b.Version(),
	}
	if revision := b.Revision(); revision != "" {
		all[prefix+"revision"] = revision
	}
	return all
}

// newLayer returns the one layer of an image: the program, its SBOM, and the CAs that it
// trusts.
func newLayer(b *release.Binary) (v1.Layer, error) {
	program, err := os.ReadFile(b.Path)
	if err != nil {
		return nil, err
	}
	beside, err := Roots()
	if err != nil {
		return nil, err
	}
	list, err := sbom.Binary(b, beside...)
	if err != nil {
		return nil, err
	}
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	for _, file := range []struct {
		path    string
		mode    int64
		content []byte
	}{
		{rootsPath, 0o644, roots()},
		{sbomPath, 0o644, list},
		{programPath, 0o755, program},
	} {
		if err := add(archive, file.path, file.mode, b.Time(), file.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}

// add writes a file, with its directories. No two files share a directory.
func add(archive *tar.Writer, name string, mode int64, at time.Time, content []byte) error {
	for i := range name {
		if name[i] == '/' {
			if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name[:i+1], Mode: 0o755, ModTime: at}); err != nil {
				return err
			}
		}
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: path.Clean(name), Mode: mode, ModTime: at, Size: int64(len(content))}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

// rootsModule is the module that roots come from.
const rootsModule = "golang.org/x/crypto/x509roots/fallback"

// Roots returns the modules that files beside the program come from.
func Roots() ([]*debug.Module, error) {
	module, err := linked(rootsModule)
	return []*debug.Module{module}, err
}

// linked finds a module that is linked into this program.
func linked(path string) (*debug.Module, error) {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == path {
			return m, nil
		}
	}
	return nil, fmt.Errorf("list the contents of the image: module %s is not recorded in this program", path)
}

// roots returns Mozilla's CAs, without those that it trusts with constraints, as a file of
// certificates cannot express them. The CAs of the building machine would make digests
// differ between machines.
func roots() []byte {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // writing to a buffer cannot fail
		}
	}
	return text.Bytes()
}
