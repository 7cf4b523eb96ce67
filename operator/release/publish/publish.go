// SPDX-License-Identifier: Apache-2.0

// Package publish pushes a release to its registry, signs it, and attaches what is stated
// of it: what each image is made of, and how it was built. Nothing is built here.
//
// Images are uploaded without a tag first, then signed, and get their tags at the end, so
// that who pulls a version finds it complete. A run that was killed is completed by the
// next one.
package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release"
)

// Options tell what to publish, and who signs it.
type Options struct {
	// Dist is the directory with the release.
	Dist string
	// Untagged publishes a commit that has not the version as its tag.
	Untagged bool
	// Signer signs everything.
	Signer Signer
	// Remote tells how to speak with the registry.
	Remote bytecode.Options
	// Log gets a line for each step.
	Log io.Writer
}

// Signer signs images, files and statements.
type Signer interface {
	// Sign signs an image in a registry, unless it has done so before.
	Sign(ctx context.Context, image *bytecode.Stored, o bytecode.Options) error
	// Attest signs a statement and attaches it to an image in a registry, unless it has
	// done so before.
	Attest(ctx context.Context, image *bytecode.Stored, statement []byte, o bytecode.Options) error
	// SignFile writes the signature of a file into another, unless it is there.
	SignFile(ctx context.Context, path, signature string) error
	// Cosign returns the options with which cosign verifies what was signed.
	Cosign() string
}

// Run publishes a release. It prints, to out, how others verify it. Returns an error, and
// has published nothing, if the release is not as it was built, if the registry would
// refuse it, or if a tag names another image.
func Run(ctx context.Context, o Options, out io.Writer) error {
	d, err := open(o.Dist, o)
	if err != nil {
		return err
	}
	if err := d.checkRegistry(ctx, o); err != nil {
		return err
	}
	names, err := d.push(ctx, o)
	if err != nil {
		return err
	}
	if err := d.attach(ctx, names, o); err != nil {
		return err
	}
	// Who else writes to the registry at the same time may make it forget what was attached.
	fmt.Fprintln(o.Log, "looking whether the registry lists all of that")
	quiet := o
	quiet.Log = io.Discard
	if err := d.attach(ctx, names, quiet); err != nil {
		return err
	}
	if err := d.unchanged(); err != nil {
		return err
	}
	sums := filepath.Join(o.Dist, sumsName)
	if err := o.Signer.SignFile(ctx, sums, filepath.Join(o.Dist, signatureName)); err != nil {
		return fmt.Errorf("sign %s: %w", sums, err)
	}
	// Signing takes minutes, in which somebody else may have published the version.
	if err := d.checkRegistry(ctx, o); err != nil {
		return err
	}
	if err := d.tag(ctx, names, o); err != nil {
		return err
	}
	_, err = io.WriteString(out, d.advice(names, o.Signer))
	return err
}

// checkRegistry returns an error if the registry would refuse an image, or if one of the
// tags names another image: a version that was published is never replaced.
func (d *dist) checkRegistry(ctx context.Context, o Options) error {
	var problems []error
	for _, image := range d.list.Images {
		tag := image.Repository + ":" + image.Tag
		if err := bytecode.CheckPush(tag, o.Remote); err != nil {
			return err
		}
		switch digest, err := bytecode.Tagged(ctx, tag, o.Remote); {
		case err != nil:
			return err
		case digest != "" && digest != image.Digest:
			problems = append(problems, fmt.Errorf("%s is published already, with the digest %s, and this one has %s: release another version", tag, digest, image.Digest))
		}
	}
	return errors.Join(problems...)
}

// push uploads all images without tags, and returns their names by digest.
func (d *dist) push(ctx context.Context, o Options) (names []string, err error) {
	for i, image := range d.images {
		fmt.Fprintf(o.Log, "pushing %s@%s\n", d.list.Images[i].Repository, image.Digest())
		name, err := image.PushUntagged(ctx, d.list.Images[i].Repository, o.Remote)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// attach signs each image and, of an index, the image of each platform: verifiers look at
// the digest that they are given. It attaches the statements about each.
func (d *dist) attach(ctx context.Context, names []string, o Options) error {
	for i, name := range names {
		index, err := bytecode.Open(ctx, name, o.Remote)
		if err != nil {
			return err
		}
		platforms, err := index.Platforms(ctx, o.Remote)
		if err != nil {
			return err
		}
		for _, image := range append(platforms, index) {
			if err := d.attachTo(ctx, image, d.list.Images[i], o); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *dist) attachTo(ctx context.Context, image *bytecode.Stored, of release.Image, o Options) error {
	fmt.Fprintf(o.Log, "signing %s\n", image.Name())
	if err := o.Signer.Sign(ctx, image, o.Remote); err != nil {
		return err
	}
	for _, a := range of.Attestations {
		if a.Digest != image.Digest() {
			continue
		}
		statement, err := d.statement(a, of.Repository)
		if err != nil {
			return err
		}
		if err := o.Signer.Attest(ctx, image, statement, o.Remote); err != nil {
			return err
		}
	}
	return nil
}

// statement returns a statement about the subject alone: of a file that has a statement
// about several, or that is the predicate alone, as an SBOM is. Cosign prints the first
// subject of a statement, whichever it has verified.
func (d *dist) statement(a release.Attestation, repository string) ([]byte, error) {
	predicate, err := d.read(a.File)
	if err != nil {
		return nil, err
	}
	if a.PredicateType != bytecode.PredicateSPDX {
		s, err := bytecode.ParseStatement(predicate)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", a.File, err)
		case s.PredicateType != a.PredicateType:
			return nil, fmt.Errorf("%s: it states %s, and %s was expected", a.File, s.PredicateType, a.PredicateType)
		case !s.About(a.Digest):
			return nil, fmt.Errorf("%s: it states nothing about %s", a.File, a.Digest)
		}
		predicate = s.Predicate
	}
	_, hex, _ := strings.Cut(a.Digest, ":")
	text, err := json.Marshal(bytecode.NewStatement(a.PredicateType, predicate, bytecode.Subject{Name: repository, Digest: map[string]string{"sha256": hex}}))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.File, err)
	}
	return text, nil
}

// tag makes the images known by their version, the chart after what it installs.
func (d *dist) tag(ctx context.Context, names []string, o Options) error {
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return strings.Count(d.list.Images[a].Layout, "charts/") - strings.Count(d.list.Images[b].Layout, "charts/")
	})
	for _, i := range order {
		image := d.list.Images[i]
		stored, err := bytecode.Open(ctx, names[i], o.Remote)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.Log, "tagging %s:%s\n", image.Repository, image.Tag)
		if err := stored.Tag(ctx, image.Tag, o.Remote); err != nil {
			return err
		}
	}
	return nil
}

// advice tells how others verify the release.
func (d *dist) advice(names []string, s Signer) string {
	var text strings.Builder
	fmt.Fprintf(&text, "Published %s. Who wants to verify it runs\n\n", d.list.Version)
	for i, name := range names {
		fmt.Fprintf(&text, "  cosign verify %s %s\n", s.Cosign(), name)
		for _, a := range d.list.Images[i].Attestations {
			if a.Digest == d.list.Images[i].Digest {
				fmt.Fprintf(&text, "  cosign verify-attestation --type %s %s %s\n", bytecode.PredicateName(a.PredicateType), s.Cosign(), name)
			}
		}
	}
	fmt.Fprintf(&text, "  cosign verify-blob %s --bundle %s %s && sha256sum --check --ignore-missing %s\n", s.Cosign(), signatureName, sumsName, sumsName)
	return text.String()
}
