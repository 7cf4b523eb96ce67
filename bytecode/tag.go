// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Tagged returns the digest of the image that a tag names now, and nothing if there is no
// such tag, or no such repository yet.
func Tagged(ctx context.Context, tag string, o Options) (digest string, err error) {
	ref, err := parseRef(tag)
	if err != nil {
		return "", err
	}
	options, err := o.remote(ctx)
	if err != nil {
		return "", err
	}
	found, err := remote.Head(ref, options...)
	if answer, ok := errors.AsType[*transport.Error](err); ok && answer.StatusCode == http.StatusNotFound {
		return "", nil
	}
	if err != nil {
		return "", explain(ref, err)
	}
	return found.Digest.String(), nil
}

// PushUntagged uploads an image to a repository without giving it a tag: nobody finds it
// there who does not know its digest. Signatures stay behind. It returns the image's name
// by digest.
func (s *Stored) PushUntagged(ctx context.Context, repository string, o Options) (string, error) {
	if s.object != nil {
		return "", fmt.Errorf("push %s: this is a file, build an image of it first", s.name)
	}
	ref, err := parseRef(repository + "@" + s.Digest())
	if err != nil {
		return "", err
	}
	options, err := o.remote(ctx)
	if err != nil {
		return "", err
	}
	return ref.String(), s.upload(ref, options)
}

func (s *Stored) upload(ref name.Reference, options []remote.Option) (err error) {
	if s.index != nil {
		err = remote.WriteIndex(ref, s.index, options...)
	} else {
		err = remote.Write(ref, s.image, options...)
	}
	return explain(ref, err)
}

// Tag has a tag name the image, which must be in a registry.
func (s *Stored) Tag(ctx context.Context, tag string, o Options) error {
	if s.object != nil || s.inLayout() {
		return fmt.Errorf("tag %s: %w", s.name, errNoRegistry)
	}
	ref, err := parseRef(s.name)
	if err != nil {
		return err
	}
	options, err := o.remote(ctx)
	if err != nil {
		return err
	}
	var image remote.Taggable = s.image
	if s.index != nil {
		image = s.index
	}
	to := ref.Context().Tag(tag)
	return explain(to, remote.Tag(to, image, options...))
}
