// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"context"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Sign signs the image that ref names, in a registry or a layout, in both forms that
// cosign reads. Of an index it signs the index alone, which names its images by digest.
// It returns the image's name by digest.
func Sign(ctx context.Context, ref string, key *PrivateKey, o Options) (string, error) {
	s, err := Open(ctx, ref, o)
	if err != nil {
		return "", err
	}
	if s.object != nil {
		return "", fmt.Errorf("sign %s: a file cannot carry a signature: build an image of it first", ref)
	}
	// Sign only what is a valid bytecode image.
	if _, err := s.Load(Options{AnyArchitecture: true}); err != nil {
		return "", err
	}
	return s.Sign(ctx, key, o)
}

// Sign signs an image where it is stored, whatever its contents.
func (s *Stored) Sign(ctx context.Context, key *PrivateKey, o Options) (string, error) {
	if again, err := s.signedBy(key.Public); err != nil || again {
		return s.name, err
	}
	before, err := s.attached()
	if err != nil {
		return "", err
	}
	var simple v1.Image
	var others []v1.Image
	for _, image := range before {
		manifest, err := image.Manifest()
		if err != nil {
			return "", fmt.Errorf("read signature: %w", err)
		}
		if manifest.Subject == nil {
			simple = image
		} else {
			others = append(others, image)
		}
	}
	bundle, err := signBundle(s.descriptor, key)
	if err != nil {
		return "", err
	}
	if simple, err = signSimple(simple, s.repository(), s.descriptor.Digest, key); err != nil {
		return "", err
	}
	if s.inLayout() {
		s.attached = func() ([]v1.Image, error) { return append(others, bundle, simple), nil }
		return s.name, s.Write(s.dir)
	}
	return s.name, s.attach(ctx, o, bundle, simple)
}

// signedBy reports whether the key has already signed the image in both forms.
func (s *Stored) signedBy(key *PublicKey) (bool, error) {
	found, err := s.Verify([]*PublicKey{key})
	if errors.Is(err, errUnsigned) || errors.Is(err, errNoneMatches) {
		return false, nil
	}
	forms := map[string]bool{}
	for _, f := range found {
		if f.VerifiedBy != "" {
			forms[f.Kind] = true
		}
	}
	return forms[KindBundle] && forms[KindSimple], err
}

func (s *Stored) inLayout() bool { return s.dir != "" }

// repository returns the name that a simple signature contains. A layout has no
// repository yet; verification compares the digest only.
func (s *Stored) repository() string {
	if s.inLayout() {
		return "localhost/blixt/bytecode"
	}
	repository, _, _ := strings.Cut(s.name, "@")
	return repository
}
