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

// littleEndian are the machines that one object serves: BPF knows no
// processor, only a byte order, and the object reads nothing of the kernel
// whose layout differs between them. They are those that Go and Linux have a
// BPF compiler (JIT) for, which bpf_loop and functions need, and 64 bits.
// Big-endian ones would need another object.
var littleEndian, bigEndian = []string{"amd64", "arm64", "loong64", "ppc64le", "riscv64"}, []string{"s390x"}

// Architectures returns the machines that the object is right for, by Go's
// names.
func (o *Object) Architectures() []string {
	if o.ByteOrder == binary.ByteOrder(binary.BigEndian) {
		return bigEndian
	}
	return littleEndian
}

// Meta is what an image says about itself. Empty fields are left out.
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

// Build makes an image index of an object, one image for each machine that
// it is right for. Its digest depends on the object and on meta, and on
// nothing else.
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
