// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// artifact is a manifest with one document and an empty configuration. The library's
// own images cannot have such a configuration.
type artifact struct {
	manifest []byte
	document blob
}

// blob is a document as a layer.
type blob struct {
	v1.Descriptor
	content []byte
}

func (b blob) Digest() (v1.Hash, error)            { return b.Descriptor.Digest, nil }
func (b blob) Size() (int64, error)                { return b.Descriptor.Size, nil }
func (b blob) MediaType() (types.MediaType, error) { return b.Descriptor.MediaType, nil }
func (b blob) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b.content)), nil
}

func describe(content []byte, mediaType types.MediaType) (v1.Descriptor, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(content))
	return v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size}, err
}

var emptyConfig = []byte("{}")

// newArtifact completes a manifest with a document of its artifact type.
func newArtifact(m v1.Manifest, document []byte) (v1.Image, error) {
	d, err := describe(document, types.MediaType(m.ArtifactType))
	if err != nil {
		return nil, fmt.Errorf("describe artifact: %w", err)
	}
	if m.Config, err = describe(emptyConfig, emptyType); err != nil {
		return nil, fmt.Errorf("describe artifact: %w", err)
	}
	m.Layers = []v1.Descriptor{d}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("describe artifact: %w", err)
	}
	return partial.CompressedToImage(&artifact{manifest: raw, document: blob{d, document}})
}

func (a *artifact) RawManifest() ([]byte, error)        { return a.manifest, nil }
func (a *artifact) RawConfigFile() ([]byte, error)      { return emptyConfig, nil }
func (a *artifact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (a *artifact) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if h != a.document.Descriptor.Digest {
		return nil, fmt.Errorf("no layer %s", h)
	}
	return a.document, nil
}
