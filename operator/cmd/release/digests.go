// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubernetes-sigs/blixt/operator/release/digests"
)

// runDigests writes the digests of bpfman's images into the chart's values, as their tags
// name them now, or checks that they are there.
func runDigests(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("digests", flag.ExitOnError)
	file := f.String("values", "charts/blixt/values.yaml", "file with the values of the chart")
	check := f.Bool("check", false, "change nothing, and fail if something would change")
	_ = f.Parse(args) // it exits
	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	updated, changes, err := digests.Update(text, func(image string) (string, error) { return digestOf(ctx, image) })
	for _, c := range changes {
		fmt.Println(c)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", *file, err)
	case len(changes) == 0:
		return nil
	case *check:
		return errors.New(*file + " has not the digests of bpfman's images: run make bpfman-digests, and commit it after you have seen why they differ")
	}
	return os.WriteFile(*file, updated, 0o644)
}

// digestOf asks the registry which image a name means.
func digestOf(ctx context.Context, image string) (string, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", err
	}
	found, err := remote.Head(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithUserAgent("blixt"))
	if err != nil {
		return "", err
	}
	return found.Digest.String(), nil
}
