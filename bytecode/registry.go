// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// CheckName returns an error for what cannot be the name of an image in a registry.
func CheckName(ref string) error {
	_, err := parseRef(ref)
	return err
}

// parseRef parses the name of an image, which must name a registry: the library would
// assume one.
func parseRef(text string) (name.Reference, error) {
	if scheme, rest, found := strings.Cut(text, "://"); found {
		return nil, fmt.Errorf("image %q: leave out %s://, as in %s: it is HTTPS in any case", text, scheme, rest)
	}
	if before, after, found := strings.Cut(text, "//"); found { // which the library takes, and no registry does
		return nil, fmt.Errorf("image %q: leave out one slash, as in %s/%s", text, before, strings.TrimLeft(after, "/"))
	}
	ref, err := name.ParseReference(text, name.WithDefaultRegistry(""), name.WithDefaultTag("latest"))
	if err != nil {
		return nil, fmt.Errorf("image %q: %w: want REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST", text, err)
	}
	host, _, found := strings.Cut(text, "/")
	if !found || (!strings.ContainsAny(host, ".:") && host != "localhost") {
		return nil, fmt.Errorf("image %q names no registry: want REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST", text)
	}
	return ref, nil
}

// remote returns the library's options.
func (o Options) remote(ctx context.Context) ([]remote.Option, error) {
	t, err := o.transport()
	if err != nil {
		return nil, err
	}
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(t),
		remote.WithAuthFromKeychain(o.keychain()),
		remote.WithUserAgent("blixt"),
		remote.WithRetryPredicate(temporary),
		remote.WithRetryBackoff(remote.Backoff{Duration: cmp.Or(o.Pause, time.Second), Factor: 3, Jitter: 0.1, Steps: 3}),
	}, nil
}

func (o Options) keychain() authn.Keychain {
	if o.Keychain == nil {
		return authn.DefaultKeychain
	}
	return o.Keychain
}

// temporary reports whether an error may disappear by itself: the registry restarts, or
// does not answer properly meanwhile.
func temporary(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		return answer.Temporary() || answer.StatusCode >= http.StatusInternalServerError
	}
	var timeout net.Error
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET, syscall.ECONNREFUSED, net.ErrClosed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return errors.As(err, &timeout) && timeout.Timeout()
}

// openRegistry reads the manifest of an image in a registry.
func openRegistry(ctx context.Context, text string, o Options) (*Stored, error) {
	ref, err := parseRef(text)
	if err != nil {
		return nil, err
	}
	options, err := o.remote(ctx)
	if err != nil {
		return nil, err
	}
	found, err := remote.Get(ref, options...)
	if err != nil {
		return nil, explain(ref, err)
	}
	s := &Stored{
		name:       ref.Context().Digest(found.Digest.String()).String(),
		descriptor: found.Descriptor,
		manifest:   found.Manifest,
		explain:    func(err error) error { return explain(ref, err) },
	}
	if found.MediaType.IsIndex() {
		s.index, err = found.ImageIndex()
	} else {
		s.image, err = found.Image()
	}
	if err != nil {
		return nil, explain(ref, err)
	}
	s.attached = func() ([]v1.Image, error) { return registryAttached(ref.Context(), s.descriptor.Digest, options) }
	return s, nil
}

// maxReferrers bounds how much anybody who can write to the registry makes us read.
const maxReferrers = 100

// registryAttached returns the manifests that claim to sign a digest, or to state
// something of it: its referrers (OCI 1.1, or the tag that replaces them), and the one of
// cosign's older tag.
func registryAttached(repository name.Repository, digest v1.Hash, options []remote.Option) (all []v1.Image, err error) {
	subject := repository.Digest(digest.String())
	referrers, err := remote.Referrers(subject, options...)
	if err != nil {
		return nil, explain(subject, err)
	}
	list, err := referrers.IndexManifest()
	if err != nil {
		return nil, explain(subject, err)
	}
	for _, d := range list.Manifests[:min(len(list.Manifests), maxReferrers)] {
		// Not by d.ArtifactType: some registries put the configuration's there.
		if d.MediaType.IsIndex() {
			continue
		}
		image, err := remote.Image(repository.Digest(d.Digest.String()), options...)
		if err != nil {
			return nil, explain(subject, err)
		}
		if isBundle(image) {
			all = append(all, image)
		}
	}
	tag := repository.Tag(simpleTag(digest))
	image, err := remote.Image(tag, options...)
	if answer, ok := errors.AsType[*transport.Error](err); ok && answer.StatusCode == http.StatusNotFound {
		return all, nil
	}
	if err != nil {
		return nil, explain(tag, err)
	}
	return append(all, image), nil
}

// Push uploads an image with its signatures and attestations, and returns the image's name by digest.
func (s *Stored) Push(ctx context.Context, to string, o Options) (string, error) {
	ref, err := parseRef(to)
	if err != nil {
		return "", err
	}
	if _, ok := ref.(name.Digest); ok {
		return "", fmt.Errorf("push to %s: an image is pushed to a tag, since its digest follows from its contents", to)
	}
	options, err := o.remote(ctx)
	if err != nil {
		return "", err
	}
	if s.object != nil {
		return "", fmt.Errorf("push %s: this is a file, build an image of it first", s.name)
	}
	if err := s.upload(ref, options); err != nil {
		return "", err
	}
	platforms, err := s.Platforms(ctx, o)
	if err != nil {
		return "", err
	}
	for _, image := range append(platforms, s) {
		attached, err := image.attached()
		if err != nil {
			return "", err
		}
		if err := attach(ctx, ref.Context(), image.descriptor.Digest, attached, o); err != nil {
			return "", err
		}
	}
	return ref.Context().Digest(s.descriptor.Digest.String()).String(), nil
}

// CheckPush returns an error if the registry would refuse Push. It needs no image.
func CheckPush(to string, o Options) error {
	ref, err := parseRef(to)
	if err != nil {
		return err
	}
	t, err := o.transport()
	if err != nil {
		return err
	}
	return explain(ref, remote.CheckPushPermission(ref, o.keychain(), t))
}
