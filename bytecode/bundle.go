// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	dssepb "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"google.golang.org/protobuf/encoding/protojson"
)

// Cosign's newer form, the default of its version 3: a Sigstore bundle with
// an in-toto statement, in a manifest that refers to the image.
const (
	bundleType    = "application/vnd.dev.sigstore.bundle"
	bundleVersion = bundleType + ".v0.3+json"
	emptyType     = "application/vnd.oci.empty.v1+json"
	payloadType   = "application/vnd.in-toto+json"

	predicateAnnotation = "dev.sigstore.bundle.predicateType"
)

// signBundle returns the manifest with a bundle that signs an image.
func signBundle(of v1.Descriptor, key *PrivateKey) (v1.Image, error) {
	text, err := json.Marshal(newSignature(of.Digest))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return newBundle(of, PredicateSignature, text, key)
}

// newBundle returns the manifest with a bundle that holds a signed statement, and refers
// to an image.
func newBundle(of v1.Descriptor, predicateType string, statement []byte, key *PrivateKey) (v1.Image, error) {
	sig, err := key.signer.SignMessage(bytes.NewReader(dsse.PAE(payloadType, statement)))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	bundle, err := protojson.Marshal(&bundlepb.Bundle{
		MediaType: bundleVersion,
		VerificationMaterial: &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_PublicKey{PublicKey: &commonpb.PublicKeyIdentifier{Hint: key.Public.ID}},
		},
		Content: &bundlepb.Bundle_DsseEnvelope{DsseEnvelope: &dssepb.Envelope{
			Payload: statement, PayloadType: payloadType, Signatures: []*dssepb.Signature{{Sig: sig}},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return carrier(of, predicateType, bundle)
}

// carrier returns the manifest with a bundle, which refers to an image.
func carrier(of v1.Descriptor, predicateType string, bundle []byte) (v1.Image, error) {
	return newArtifact(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  bundleVersion,
		Subject:       &v1.Descriptor{MediaType: of.MediaType, Digest: of.Digest, Size: of.Size},
		Annotations: map[string]string{
			"dev.sigstore.bundle.content": "dsse-envelope",
			predicateAnnotation:           predicateType,
		},
	}, bundle)
}

// isBundle reports whether a manifest that refers to an image is a bundle, rather than
// for example an SBOM.
func isBundle(image v1.Image) bool {
	manifest, err := image.Manifest()
	return err == nil && slices.ContainsFunc(manifest.Layers, func(d v1.Descriptor) bool {
		return strings.HasPrefix(string(d.MediaType), bundleType)
	})
}

// saysToSign reports whether a manifest with a bundle claims to hold a signature, rather
// than another statement. The claim proves nothing, but may be believed: who can write it
// can as well delete the signature.
func saysToSign(m *v1.Manifest) bool {
	said, ok := m.Annotations[predicateAnnotation]
	return !ok || said == PredicateSignature
}

// bundleClaim reads the one bundle of a manifest, of at most limit bytes.
func bundleClaim(image v1.Image, manifest *v1.Manifest, limit int64) (claim, error) {
	text, err := bundleText(image, manifest, limit)
	if err != nil {
		return claim{}, err
	}
	c, err := parseBundle(text)
	if err != nil {
		return claim{}, fmt.Errorf("bundle: %w", err)
	}
	return c, nil
}

// bundleText reads the one layer of a manifest with a bundle.
func bundleText(image v1.Image, manifest *v1.Manifest, limit int64) ([]byte, error) {
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	if len(layers) != 1 {
		return nil, fmt.Errorf("bundle: its manifest has %d layers: want one", len(layers))
	}
	return readSmall(layers[0], manifest.Layers[0], limit)
}

func parseBundle(text []byte) (claim, error) {
	var b bundlepb.Bundle
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &b); err != nil {
		return claim{}, err
	}
	envelope := b.GetDsseEnvelope()
	if envelope == nil {
		return claim{}, errors.New("holds no statement")
	}
	if envelope.PayloadType != payloadType {
		return claim{}, fmt.Errorf("holds %s: want %s", envelope.PayloadType, payloadType)
	}
	s, err := ParseStatement(envelope.Payload)
	if err != nil {
		return claim{}, err
	}
	c := claim{signed: dsse.PAE(envelope.PayloadType, envelope.Payload), payload: envelope.Payload, statement: s, subjects: s.digests()}
	c.Kind, c.Key = KindBundle, b.GetVerificationMaterial().GetPublicKey().GetHint()
	c.Identity, c.Issuer = certified(b.GetVerificationMaterial())
	for _, sig := range envelope.Signatures {
		c.signatures = append(c.signatures, sig.Sig)
	}
	return c, nil
}
