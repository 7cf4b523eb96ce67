// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// Cosign's older form: a manifest under a tag, with a layer for each signature. bpfman
// v0.6.0 reads this form.
const (
	simpleType       = "application/vnd.dev.cosign.simplesigning.v1+json"
	simpleAnnotation = "dev.cosignproject.cosign/signature"
)

func simpleTag(digest v1.Hash) string { return digest.Algorithm + "-" + digest.Hex + ".sig" }

// signSimple adds a signature to the manifest before; nil: there is none yet.
func signSimple(before v1.Image, repository string, digest v1.Hash, key *PrivateKey) (v1.Image, error) {
	subject, err := name.NewDigest(repository + "@" + digest.String())
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	text, err := json.Marshal(payload.Cosign{Image: subject})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	sig, err := key.signer.SignMessage(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if before == nil {
		before = mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	}
	image, err := mutate.Append(before, mutate.Addendum{
		Layer:       static.NewLayer(text, simpleType),
		MediaType:   simpleType,
		Annotations: map[string]string{simpleAnnotation: base64.StdEncoding.EncodeToString(sig)},
	})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return image, nil
}

// simpleClaims reads the signatures of such a manifest.
func simpleClaims(image v1.Image, manifest *v1.Manifest) (claims []claim, err error) {
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	for i, d := range manifest.Layers {
		if d.MediaType != simpleType {
			continue
		}
		text, err := readSmall(layers[i], d, maxSignature)
		if err != nil {
			return nil, err
		}
		sig, err := base64.StdEncoding.DecodeString(d.Annotations[simpleAnnotation])
		if err != nil {
			return nil, fmt.Errorf("signature: %w", err)
		}
		c := claim{signed: text, signatures: [][]byte{sig}}
		var statement payload.Cosign
		if err := json.Unmarshal(text, &statement); err != nil {
			return nil, fmt.Errorf("signature: %w", err)
		}
		c.subjects = []string{statement.Image.DigestStr()}
		c.Kind = KindSimple
		claims = append(claims, c)
	}
	return claims, nil
}

// readSmall reads a layer that is a document of at most limit bytes, and checks its digest.
func readSmall(l v1.Layer, d v1.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("has %d bytes: want at most %d", d.Size, limit)
	}
	stream, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	text, err := io.ReadAll(io.LimitReader(stream, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("has more than %d bytes", limit)
	}
	return text, checkDigest(text, d.Digest)
}
