// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Bundle is a signed statement that another tool has made, or is to verify: Blixt verifies
// no certificates.
type Bundle struct {
	// JSON is the bundle as a whole.
	JSON []byte
	// Payload is the statement, as it was signed.
	Payload []byte
	// Identity and Issuer are what its certificate says, unverified.
	Identity, Issuer string
}

// ParseBundle parses a Sigstore bundle with an in-toto statement.
func ParseBundle(text []byte) (*Bundle, error) {
	b, _, err := readBundle(text)
	return b, err
}

func readBundle(text []byte) (*Bundle, *Statement, error) {
	c, err := parseBundle(text)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle: %w", err)
	}
	return &Bundle{JSON: text, Payload: c.payload, Identity: c.Identity, Issuer: c.Issuer}, c.statement, nil
}

// Bundles returns all that can be read of the signatures and attestations that refer to
// the image. Nothing of it is verified.
func (s *Stored) Bundles() (all []*Bundle, err error) {
	if s.object != nil {
		return nil, nil
	}
	images, err := s.attached()
	if err != nil {
		return nil, err
	}
	for _, image := range images {
		manifest, err := image.Manifest()
		if err != nil || manifest.Subject == nil {
			continue
		}
		text, err := bundleText(image, manifest, maxStatement)
		if err != nil {
			continue
		}
		if b, err := ParseBundle(text); err == nil {
			all = append(all, b)
		}
	}
	return all, nil
}

// Carry attaches a bundle that another tool has signed to the image, which must be in a
// registry. Returns an error for a bundle that is not about the image.
func (s *Stored) Carry(ctx context.Context, bundle []byte, o Options) error {
	_, statement, err := readBundle(bundle)
	if err != nil {
		return fmt.Errorf("attach to %s: %w", s.name, err)
	}
	if !statement.About(s.Digest()) {
		return fmt.Errorf("attach to %s: the bundle is about %s", s.name, strings.Join(statement.digests(), ", "))
	}
	if s.object != nil || s.inLayout() {
		return fmt.Errorf("attach to %s: %w", s.name, errNoRegistry)
	}
	image, err := carrier(s.descriptor, statement.PredicateType, bundle)
	if err != nil {
		return err
	}
	return s.attach(ctx, o, image)
}

var errNoRegistry = errors.New("it is in no registry: push it first")

// SignatureOf returns the statement that an image is signed, as tools that sign with
// certificates want it.
func (s *Stored) SignatureOf() *Statement {
	return newSignature(s.descriptor.Digest)
}

// Platforms opens the images of an index in a registry, which have signatures and
// attestations of their own; none for what is elsewhere, or is one image.
func (s *Stored) Platforms(ctx context.Context, o Options) (all []*Stored, err error) {
	repository, _, remote := strings.Cut(s.name, "@")
	if s.index == nil || s.inLayout() || !remote {
		return nil, nil
	}
	list, err := s.index.IndexManifest()
	if err != nil {
		return nil, s.explain(err)
	}
	for _, d := range list.Manifests {
		image, err := Open(ctx, repository+"@"+d.Digest.String(), o)
		if err != nil {
			return nil, err
		}
		all = append(all, image)
	}
	return all, nil
}
