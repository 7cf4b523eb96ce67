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
)

// signBundle returns the manifest with a bundle, which refers to the signed image.
func signBundle(of v1.Descriptor, key *PrivateKey) (v1.Image, error) {
	text, err := json.Marshal(NewStatement(PredicateSignature, json.RawMessage("{}"), subjectOf(of.Digest)))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	sig, err := key.signer.SignMessage(bytes.NewReader(dsse.PAE(payloadType, text)))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	bundle, err := protojson.Marshal(&bundlepb.Bundle{
		MediaType: bundleVersion,
		VerificationMaterial: &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_PublicKey{PublicKey: &commonpb.PublicKeyIdentifier{Hint: key.Public.ID}},
		},
		Content: &bundlepb.Bundle_DsseEnvelope{DsseEnvelope: &dssepb.Envelope{
			Payload: text, PayloadType: payloadType, Signatures: []*dssepb.Signature{{Sig: sig}},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return newArtifact(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  bundleVersion,
		Subject:       &v1.Descriptor{MediaType: of.MediaType, Digest: of.Digest, Size: of.Size},
		Annotations: map[string]string{
			"dev.sigstore.bundle.content":       "dsse-envelope",
			"dev.sigstore.bundle.predicateType": PredicateSignature,
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

// bundleClaims reads the signature of a bundle.
func bundleClaims(image v1.Image, manifest *v1.Manifest) (claims []claim, err error) {
	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}
	for i, d := range manifest.Layers {
		if !strings.HasPrefix(string(d.MediaType), bundleType) {
			continue
		}
		text, err := readSmall(layers[i], d.Digest)
		if err != nil {
			return nil, err
		}
		c, err := bundleClaim(text)
		if err != nil {
			return nil, fmt.Errorf("bundle: %w", err)
		}
		claims = append(claims, c)
	}
	return claims, nil
}

func bundleClaim(text []byte) (claim, error) {
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
	var s Statement
	if err := json.Unmarshal(envelope.Payload, &s); err != nil {
		return claim{}, err
	}
	// Other statements, such as of provenance, do not count as signatures.
	if s.PredicateType != PredicateSignature {
		return claim{}, errOtherStatement
	}
	c := claim{signed: dsse.PAE(envelope.PayloadType, envelope.Payload)}
	c.Kind, c.Key = KindBundle, b.GetVerificationMaterial().GetPublicKey().GetHint()
	c.subjects = s.digests()
	for _, sig := range envelope.Signatures {
		c.signatures = append(c.signatures, sig.Sig)
	}
	return c, nil
}

var errOtherStatement = errors.New("is another statement than a signature")
