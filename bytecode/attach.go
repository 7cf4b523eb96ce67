// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// attach uploads bundles and simple signatures of the image, which is in a registry.
func (s *Stored) attach(ctx context.Context, o Options, images ...v1.Image) error {
	ref, err := parseRef(s.name)
	if err != nil {
		return err
	}
	return attach(ctx, ref.Context(), s.descriptor.Digest, images, o)
}

// attach uploads bundles by digest, and simple signatures by their tag.
func attach(ctx context.Context, repository name.Repository, to v1.Hash, images []v1.Image, o Options) error {
	options, err := o.remote(ctx)
	if err != nil {
		return err
	}
	var bundles []v1.Image
	for _, image := range images {
		manifest, err := image.Manifest()
		if err != nil {
			return fmt.Errorf("read signature: %w", err)
		}
		if manifest.Subject != nil {
			bundles = append(bundles, image)
			continue
		}
		tag := repository.Tag(simpleTag(to))
		if err := remote.Write(tag, image, options...); err != nil {
			return explain(tag, err)
		}
	}
	return refer(ctx, repository, to, bundles, cmp.Or(o.Pause, listPause), options)
}

// Where a registry has no list of referrers, each writer reads the tag that replaces the
// list, adds to it, and writes it: of two at once, one loses what the other has added.
const (
	listAttempts = 5
	listPause    = 200 * time.Millisecond
)

// refer uploads manifests, and sees to it that the registry lists them as referrers.
func refer(ctx context.Context, repository name.Repository, to v1.Hash, bundles []v1.Image, pause time.Duration, options []remote.Option) error {
	missing := map[v1.Hash]v1.Image{}
	for _, image := range bundles {
		digest, err := image.Digest()
		if err != nil {
			return fmt.Errorf("read signature: %w", err)
		}
		if err := remote.Write(repository.Digest(digest.String()), image, options...); err != nil {
			return explain(repository.Digest(digest.String()), err)
		}
		missing[digest] = image
	}
	subject := repository.Digest(to.String())
	for attempt := range listAttempts {
		lost, tagged, err := unlisted(subject, missing, options)
		if err != nil {
			return explain(subject, err)
		}
		if len(lost) == 0 && (!tagged || attempt > 0) {
			return nil
		}
		for digest, image := range lost {
			// Put, as Write does nothing where the manifest exists.
			if err := remote.Put(repository.Digest(digest.String()), image, options...); err != nil {
				return explain(repository.Digest(digest.String()), err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	return fmt.Errorf("%s: the registry does not list what was attached: another writes to it at the same time, or replaces the tag %s-%s: do it again",
		subject, to.Algorithm, to.Hex)
}

// unlisted returns what the list of referrers lacks, and whether the list is a tag, which
// another writer may just be replacing.
func unlisted(subject name.Digest, want map[v1.Hash]v1.Image, options []remote.Option) (lost map[v1.Hash]v1.Image, tagged bool, err error) {
	if len(want) == 0 {
		return nil, false, nil
	}
	referrers, err := remote.Referrers(subject, append(slices.Clone(options), remote.WithReferrersTagFallback(false))...)
	if err != nil {
		tagged = true
		referrers, err = remote.Referrers(subject, options...)
	}
	if err != nil {
		return nil, tagged, err
	}
	list, err := referrers.IndexManifest()
	if err != nil {
		return nil, tagged, err
	}
	lost = map[v1.Hash]v1.Image{}
	for digest, image := range want {
		if !slices.ContainsFunc(list.Manifests, func(d v1.Descriptor) bool { return d.Digest == digest }) {
			lost[digest] = image
		}
	}
	return lost, tagged, nil
}
