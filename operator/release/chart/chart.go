// SPDX-License-Identifier: Apache-2.0

// Package chart makes of the Helm chart in the source the one that is published: an
// archive, and an image that holds it. helm package and helm push write the time at which
// they run into theirs, so that no two are equal; here everything has the commit's time.
package chart

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/kubernetes-sigs/blixt/operator/release"
)

// Options say what becomes of the chart in the source.
type Options struct {
	// Dir is the chart, charts/blixt of a checkout. The changelog is read from its top.
	Dir string
	// Version is that of the release, such as v1.2.3. The chart and the program have the same.
	Version string
	// Time is that of the commit.
	Time time.Time
	// Image is the image of operator and agents, as REGISTRY/operator@sha256:….
	Image string
	// Bytecode is the image of the program, as REGISTRY/bytecode@sha256:….
	Bytecode string
}

// number returns the version as charts have it: without the letter.
func (o Options) number() string { return strings.TrimPrefix(o.Version, "v") }

// registry returns the host and path below which the images are, and the chart.
func (o Options) registry() string {
	repository, _, _ := strings.Cut(o.Image, "@")
	return strings.TrimSuffix(repository, "/operator")
}

func (o Options) check() error {
	if err := release.CheckVersion(o.Version); err != nil {
		return err
	}
	if o.Time.IsZero() {
		return errors.New("time: want that of the commit")
	}
	for what, image := range map[string]string{"image of the operator": o.Image, "bytecode": o.Bytecode} {
		if _, err := name.NewDigest(image, name.StrictValidation); err != nil {
			return fmt.Errorf("%s: want it by digest, as registry.example.com/blixt/operator@sha256:…: %w", what, err)
		}
	}
	if !strings.Contains(o.Image, "/operator@") {
		return fmt.Errorf("image of the operator: %s is not in a repository of the name operator, beside which the chart is published", o.Image)
	}
	return nil
}

// Package returns the archive of the chart: what Helm would pack, where Chart.yaml tells
// the version and what Artifact Hub shows, values.yaml the images, and README.md both.
func Package(o Options) (archive []byte, err error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("package the chart: %w", err)
	}
	chart, err := read(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("package the chart: %w", err)
	}
	changelog, err := os.ReadFile(filepath.Join(o.Dir, "../../CHANGELOG.md"))
	if err != nil {
		return nil, fmt.Errorf("package the chart: %w", err)
	}
	for _, step := range []func(files, Options) error{
		writeValues,
		func(f files, o Options) error { return writeMetadata(f, changelog, o) },
		writeReadme, // after the values, which it shows
	} {
		if err := step(chart, o); err != nil {
			return nil, fmt.Errorf("package the chart: %w", err)
		}
	}
	return chart.pack(o.Time)
}
