// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Attestation is a statement about an image, such as what is in it or how it was built.
// It is no signature of the image. Unless VerifiedBy is set it proves nothing.
type Attestation struct {
	// PredicateType says what is stated; "": it cannot be read.
	PredicateType string `json:"predicateType,omitempty"`
	// Digest of the manifest that it is in.
	Digest string `json:"digest"`
	// Subjects are the digests of what it is about.
	Subjects []string `json:"subjects,omitempty"`
	// Key, Identity, Issuer, VerifiedBy and Problem are as those of a Signature.
	Key        string `json:"key,omitempty"`
	Identity   string `json:"identity,omitempty"`
	Issuer     string `json:"issuer,omitempty"`
	VerifiedBy string `json:"verifiedBy,omitempty"`
	Problem    string `json:"problem,omitempty"`

	// Predicate is what is stated, if the attestation is verified.
	Predicate json.RawMessage `json:"-"`
	payload   []byte
}

// predicateNames are cosign's, for its flag --type.
var predicateNames = map[string]string{
	"spdxjson":        PredicateSPDX,
	"slsaprovenance1": PredicateProvenance,
}

// PredicateType returns the type that a name of cosign verify-attestation --type means, or
// what is no such name as it is.
func PredicateType(name string) (string, error) {
	if long, ok := predicateNames[name]; ok {
		return long, nil
	}
	if !strings.Contains(name, "://") {
		return "", fmt.Errorf("type %q: want spdxjson, slsaprovenance1, or the URI of a predicate", name)
	}
	return name, nil
}

// PredicateName returns cosign's name of a type, or the type if it has none.
func PredicateName(predicateType string) string {
	for name, long := range predicateNames {
		if long == predicateType {
			return name
		}
	}
	return predicateType
}

// Attestations returns the statements about the image that refer to it, other than
// signatures, verified by one of the keys or not. A file has none.
func (s *Stored) Attestations(keys []*PublicKey) ([]Attestation, error) {
	images, err := s.attachedToDigest()
	if err != nil {
		return nil, err
	}
	var all []Attestation
	for _, image := range images {
		if a, ok := readAttestation(image, s.descriptor.Digest, keys); ok {
			all = append(all, a)
		}
	}
	return all, nil
}

// readAttestation reads a manifest, unless it holds a signature.
func readAttestation(image v1.Image, of v1.Hash, keys []*PublicKey) (a Attestation, ok bool) {
	manifest, err := image.Manifest()
	if err != nil || manifest.Subject == nil {
		return a, false
	}
	if digest, err := image.Digest(); err == nil {
		a.Digest = digest.String()
	}
	signs := saysToSign(manifest)
	c, err := bundleClaim(image, manifest, maxStatement)
	switch {
	case err != nil:
		a.Problem = err.Error()
		return a, !signs // or it is listed as a bad signature
	case c.statement.PredicateType != PredicateSignature:
		c.verify(of, keys)
	case signs:
		return a, false
	default:
		c.Problem = "is a signature, but its manifest says to hold " + manifest.Annotations[predicateAnnotation] + ": it does not count"
	}
	a.PredicateType, a.Subjects = c.statement.PredicateType, c.subjects
	a.Key, a.Identity, a.Issuer, a.VerifiedBy, a.Problem = c.Key, c.Identity, c.Issuer, c.VerifiedBy, c.Problem
	if a.VerifiedBy != "" {
		a.Predicate, a.payload = c.statement.Predicate, c.payload
	}
	return a, true
}

// VerifyAttestation returns the statements of a type about the image that one of the keys
// has signed, and an error if there are none.
func (s *Stored) VerifyAttestation(predicateType string, keys []*PublicKey) (verified []Attestation, err error) {
	all, err := s.Attestations(keys)
	if err != nil {
		return nil, err
	}
	var problems []string
	for _, a := range all {
		switch {
		case a.PredicateType == predicateType && a.VerifiedBy != "":
			verified = append(verified, a)
		case a.PredicateType == predicateType, a.PredicateType == "":
			problems = append(problems, a.Problem)
		}
	}
	switch {
	case len(verified) > 0:
		return verified, nil
	case len(problems) > 0:
		return nil, fmt.Errorf("%s has no attestation %s that counts (%s): do not rely on it", s.name, predicateType, strings.Join(problems, "; "))
	}
	return nil, fmt.Errorf("%s has no attestation %s: see what it has with blixt bytecode inspect", s.name, predicateType)
}

// Attest signs an in-toto statement about the image, and attaches it to the image as
// cosign attest does, unless the key has done so before. The image must be in a registry.
// Returns an error for a statement that is not about the image, or is a signature.
func (s *Stored) Attest(ctx context.Context, statement []byte, key *PrivateKey, o Options) error {
	text, err := s.attestable(statement)
	if err != nil {
		return fmt.Errorf("attest %s: %w", s.name, err)
	}
	before, err := s.Attestations([]*PublicKey{key.Public})
	if err != nil {
		return err
	}
	for _, a := range before {
		if bytes.Equal(a.payload, statement) {
			return nil
		}
	}
	bundle, err := newBundle(s.descriptor, text.PredicateType, statement, key)
	if err != nil {
		return err
	}
	return s.attach(ctx, o, bundle)
}

func (s *Stored) attestable(statement []byte) (*Statement, error) {
	if s.object != nil || s.inLayout() {
		return nil, errNoRegistry
	}
	if len(statement) > maxStatement/2 { // it grows by a third in base64
		return nil, fmt.Errorf("the statement has %d bytes: want at most %d", len(statement), maxStatement/2)
	}
	text, err := ParseStatement(statement)
	switch {
	case err != nil:
		return nil, err
	case text.PredicateType == PredicateSignature:
		return nil, errors.New("the statement is a signature: sign the image instead")
	case !text.About(s.Digest()):
		return nil, fmt.Errorf("the statement is about %s", strings.Join(text.digests(), ", "))
	}
	return text, nil
}
