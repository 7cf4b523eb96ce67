// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	bundlepb "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	commonpb "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// SignBlob signs a file that is no image, and returns a Sigstore bundle as cosign
// verify-blob --bundle reads it.
func SignBlob(content []byte, key *PrivateKey) ([]byte, error) {
	sig, err := key.signer.SignMessage(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	digest := sha256.Sum256(content)
	text, err := protojson.Marshal(&bundlepb.Bundle{
		MediaType: bundleVersion,
		VerificationMaterial: &bundlepb.VerificationMaterial{
			Content: &bundlepb.VerificationMaterial_PublicKey{PublicKey: &commonpb.PublicKeyIdentifier{Hint: key.Public.ID}},
		},
		Content: &bundlepb.Bundle_MessageSignature{MessageSignature: &commonpb.MessageSignature{
			MessageDigest: &commonpb.HashOutput{Algorithm: commonpb.HashAlgorithm_SHA2_256, Digest: digest[:]},
			Signature:     sig,
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return append(text, '\n'), nil
}

// VerifyBlob returns an error unless a bundle signs a file with a key.
func VerifyBlob(bundle, content []byte, key *PublicKey) error {
	var b bundlepb.Bundle
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(bundle, &b); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	sig := b.GetMessageSignature().GetSignature()
	if len(sig) == 0 {
		return errors.New("bundle: it signs no file")
	}
	if err := key.verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(content)); err != nil {
		return fmt.Errorf("bundle: it is not by %s, or of another file: %w", key.Name, err)
	}
	return nil
}
