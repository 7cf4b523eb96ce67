// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The forms of signatures.
const (
	KindBundle = "sigstore bundle"
	KindSimple = "simple signing"
)

// Signature is a signature that was found. Unless VerifiedBy is set it proves nothing.
type Signature struct {
	// Kind is KindBundle or KindSimple.
	Kind string `json:"kind"`
	// Digest of the manifest that it is in.
	Digest string `json:"digest"`
	// Key that it claims to be made by, as a hash; "": it names none.
	Key string `json:"key,omitempty"`
	// VerifiedBy is the name of the key that has verified it; "": none.
	VerifiedBy string `json:"verifiedBy,omitempty"`
	// Problem with it, if there is one.
	Problem string `json:"problem,omitempty"`
}

// claim is a signature with the bytes that it signs, and the subjects that these name.
type claim struct {
	Signature
	signed     []byte
	signatures [][]byte
	subjects   []string
}

// Why an image is not verified: it has no signature at all, or none by a key.
var (
	errUnsigned    = errors.New("is not signed")
	errNoneMatches = errors.New("has no signature that counts")
)

func unsigned(name, remedy string) error {
	return fmt.Errorf("%s %w: %s", name, errUnsigned, remedy)
}

// Verify looks for a signature by one of the keys, in either form, and returns all
// signatures found. Without keys it verifies none. Returns an error if there are
// keys and none of them has signed.
func (s *Stored) Verify(keys []*PublicKey) ([]Signature, error) {
	images, err := s.signatures()
	if err != nil {
		return nil, err
	}
	if err := checkDigest(s.manifest, s.descriptor.Digest); err != nil {
		return nil, s.explain(err)
	}
	var found []Signature
	var problems []string
	verified := false
	for _, image := range images {
		for _, c := range claims(image) {
			if c.Problem == "" {
				c.verify(s.descriptor.Digest, keys)
			}
			verified = verified || c.VerifiedBy != ""
			if c.Problem != "" && !slices.Contains(problems, c.Kind+": "+c.Problem) {
				problems = append(problems, c.Kind+": "+c.Problem)
			}
			found = append(found, c.Signature)
		}
	}
	if len(keys) == 0 || verified {
		return found, nil
	}
	if len(found) == 0 {
		return nil, unsigned(s.name, "sign it with blixt bytecode sign, or cosign sign --key")
	}
	return nil, fmt.Errorf("%s %w (%s): do not use it; get it from where it comes from, or the right key", s.name, errNoneMatches, strings.Join(problems, "; "))
}

// verify sets VerifiedBy or, if there are keys and none does, Problem.
func (c *claim) verify(digest v1.Hash, keys []*PublicKey) {
	if len(keys) == 0 {
		return
	}
	for _, key := range keys {
		for _, sig := range c.signatures {
			if key.verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(c.signed)) != nil {
				continue
			}
			if !slices.Contains(c.subjects, digest.String()) {
				c.Problem = fmt.Sprintf("is by %s, but of another image, %s", key.Name, strings.Join(c.subjects, ", "))
				return
			}
			c.VerifiedBy = key.Name
			return
		}
		if c.Key == key.ID {
			c.Problem = fmt.Sprintf("says to be by %s, but what it signs was altered", key.Name)
		}
	}
	if c.Problem != "" {
		return
	}
	var names []string
	for _, key := range keys {
		names = append(names, key.Name)
	}
	c.Problem = "is not by " + strings.Join(names, " or ")
	if c.Key != "" {
		c.Problem += ", but by key " + c.Key
	} else {
		c.Problem += ", or was altered"
	}
}

// claims reads the signatures in a manifest. One that cannot be read becomes a claim with
// a problem, so that it does not hide the others.
func claims(image v1.Image) []claim {
	bad := func(kind string, err error) []claim {
		c := claim{Signature: Signature{Kind: kind, Problem: err.Error()}}
		return []claim{c}
	}
	manifest, err := image.Manifest()
	if err != nil {
		return bad("signature", err)
	}
	digest, err := image.Digest()
	if err != nil {
		return bad("signature", err)
	}
	kind, read := KindSimple, simpleClaims
	if manifest.Subject != nil {
		kind, read = KindBundle, bundleClaims
	}
	all, err := read(image, manifest)
	if errors.Is(err, errOtherStatement) {
		return nil
	}
	if err != nil {
		all = bad(kind, err)
	}
	for i := range all {
		all[i].Digest = digest.String()
	}
	return all
}
