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
	// Identity and Issuer of the certificate that it claims to be made with, if it has
	// one: who signed, and who vouches for that. Only cosign verifies certificates.
	Identity string `json:"identity,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
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
	payload    []byte     // the statement of a bundle, as it was signed
	statement  *Statement // of a bundle
}

// Why an image is not verified: it has no signature at all, or none by a key.
var (
	errUnsigned    = errors.New("is not signed")
	errNoneMatches = errors.New("has no signature that counts")
)

func unsigned(name, remedy string) error {
	return fmt.Errorf("%s %w: %s", name, errUnsigned, remedy)
}

// Signatures returns all signatures that are found, in either form, verified by one of
// the keys or not. A file has none.
func (s *Stored) Signatures(keys []*PublicKey) (found []Signature, err error) {
	images, err := s.attachedToDigest()
	if err != nil {
		return nil, err
	}
	for _, image := range images {
		for _, c := range claims(image) {
			if c.Problem == "" {
				c.verify(s.descriptor.Digest, keys)
			}
			found = append(found, c.Signature)
		}
	}
	return found, nil
}

// attachedToDigest returns what is attached to the image, once its manifest is known to have the
// digest that signatures and attestations name. A file has nothing.
func (s *Stored) attachedToDigest() ([]v1.Image, error) {
	if s.object != nil {
		return nil, nil
	}
	images, err := s.attached()
	if err != nil {
		return nil, err
	}
	if err := checkDigest(s.manifest, s.descriptor.Digest); err != nil {
		return nil, s.explain(err)
	}
	return images, nil
}

// Verify returns all signatures as Signatures does, and an error if none of the keys has
// signed.
func (s *Stored) Verify(keys []*PublicKey) ([]Signature, error) {
	found, err := s.Signatures(keys)
	if err != nil {
		return nil, err
	}
	var problems []string
	for _, f := range found {
		if f.VerifiedBy != "" {
			return found, nil
		}
		if text := f.Kind + ": " + f.Problem; !slices.Contains(problems, text) {
			problems = append(problems, text)
		}
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
	switch {
	case c.Key != "":
		c.Problem += ", but by key " + c.Key
	case c.Identity != "":
		c.Problem += ", but by " + c.Identity + ": check that with cosign verify --certificate-identity"
	default:
		c.Problem += ", or was altered"
	}
}

// What is read of a signature, and of any other statement: an SBOM may be large. Whoever can
// write to the registry chooses the size.
const (
	maxSignature = 1 << 20
	maxStatement = 16 << 20
)

// claims reads the signatures in a manifest. One that cannot be read becomes a claim with
// a problem, so that it does not hide the others.
func claims(image v1.Image) (all []claim) {
	defer func() {
		digest, err := image.Digest()
		for i := range all {
			if all[i].Digest = digest.String(); err != nil {
				all[i].Problem = err.Error()
			}
		}
	}()
	manifest, err := image.Manifest()
	if err != nil {
		return []claim{problem("signature", err)}
	}
	if manifest.Subject == nil {
		if all, err = simpleClaims(image, manifest); err != nil {
			all = []claim{problem(KindSimple, err)}
		}
		return all
	}
	if !saysToSign(manifest) {
		return nil
	}
	c, err := bundleClaim(image, manifest, maxSignature)
	switch {
	case err != nil:
		return []claim{problem(KindBundle, err)}
	case c.statement.PredicateType != PredicateSignature:
		return nil
	}
	return []claim{c}
}

func problem(kind string, err error) claim {
	return claim{Signature: Signature{Kind: kind, Problem: err.Error()}}
}
