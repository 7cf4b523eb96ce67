// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"encoding/binary"
	"fmt"
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// littleEndian are the architectures that one object serves: BPF depends on the byte
// order only, and the object reads no kernel structure whose layout differs between
// them. They have 64 bits, Go, and a BPF compiler (JIT) in Linux, which bpf_loop and
// functions need. Big-endian ones need another object.
var littleEndian, bigEndian = []string{"amd64", "arm64", "loong64", "ppc64le", "riscv64"}, []string{"s390x"}

// Architectures returns the architectures that the object serves, by Go's names.
func (o *Object) Architectures() []string {
	if o.ByteOrder == binary.ByteOrder(binary.BigEndian) {
		return bigEndian
	}
	return littleEndian
}

// Meta is the description of an image. Empty fields are left out.
type Meta struct {
	Source, Revision, Version string
}

// Annotations returns the standard ones (OCI image specification).
func (m Meta) Annotations() map[string]string {
	const prefix = "org.opencontainers.image."
	all := map[string]string{
		prefix + "title":       "Blixt",
		prefix + "description": "The eBPF data plane of Blixt, a layer-4 load balancer for Kubernetes Gateway API, as a bytecode image for bpfman",
		prefix + "licenses":    "GPL-2.0-only OR BSD-2-Clause",
		prefix + "source":      m.Source,
		prefix + "revision":    m.Revision,
		prefix + "version":     m.Version,
	}
	maps.DeleteFunc(all, func(_, v string) bool { return v == "" })
	return all
}

// Build builds an image index of an object, with one image for each architecture. Its
// digest depends on the object and on meta, and on nothing else.
func Build(o *Object, meta Meta) (v1.ImageIndex, error) {
	l, diffID, err := layer(o.Bytes)
	if err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range o.Architectures() {
		platform := v1.Platform{OS: "linux", Architecture: arch}
		image := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
		image, err = mutate.Append(image, mutate.Addendum{Layer: l, MediaType: types.OCILayer})
		if err != nil {
			return nil, fmt.Errorf("build image: %w", err)
		}
		image, err = mutate.ConfigFile(image, &v1.ConfigFile{
			OS:           platform.OS,
			Architecture: platform.Architecture,
			Config:       v1.Config{Labels: o.Labels()},
			RootFS:       v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
		})
		if err != nil {
			return nil, fmt.Errorf("build image: %w", err)
		}
		image = mutate.Annotations(image, meta.Annotations()).(v1.Image)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	return mutate.Annotations(index, meta.Annotations()).(v1.ImageIndex), nil
}
