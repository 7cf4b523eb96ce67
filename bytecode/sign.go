// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"context"
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

// Sign signs an image where it is stored, whatever its contents, in each form in which the
// key has not signed it yet.
func (s *Stored) Sign(ctx context.Context, key *PrivateKey, o Options) (string, error) {
	done, err := s.signedBy(key.Public)
	if err != nil || done[KindBundle] && done[KindSimple] {
		return s.name, err
	}
	before, err := s.attached()
	if err != nil {
		return "", err
	}
	var simple v1.Image
	var others, added []v1.Image
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
	if !done[KindBundle] {
		bundle, err := signBundle(s.descriptor, key)
		if err != nil {
			return "", err
		}
		added = append(added, bundle)
	}
	if !done[KindSimple] {
		if simple, err = signSimple(simple, s.repository(), s.descriptor.Digest, key); err != nil {
			return "", err
		}
		added = append(added, simple)
	}
	if s.inLayout() {
		if done[KindSimple] {
			others = append(others, simple)
		}
		s.attached = func() ([]v1.Image, error) { return append(others, added...), nil }
		return s.name, s.Write(s.dir)
	}
	return s.name, s.attach(ctx, o, added...)
}

// signedBy returns the forms in which the key has already signed the image.
func (s *Stored) signedBy(key *PublicKey) (forms map[string]bool, err error) {
	found, err := s.Signatures([]*PublicKey{key})
	if err != nil {
		return nil, err
	}
	forms = map[string]bool{}
	for _, f := range found {
		if f.VerifiedBy != "" {
			forms[f.Kind] = true
		}
	}
	return forms, nil
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
