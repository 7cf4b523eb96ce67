// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/chart"
	"github.com/kubernetes-sigs/blixt/operator/release/images"
	"github.com/kubernetes-sigs/blixt/operator/release/manifests"
)

// chartRepository is where the chart is pushed to: its last part is the chart's name.
const chartRepository = "charts/blixt"

// makeImages makes the image of operator and agents, and that of the bytecode.
func (s *stages) makeImages(ctx context.Context) error {
	index, err := images.Index(s.binaries)
	if err != nil {
		return err
	}
	operator, err := bytecode.FromIndex(index)
	if err != nil {
		return err
	}
	program, err := newBytecode(ctx, s.binaries[0])
	if err != nil {
		return err
	}
	for i, image := range []*bytecode.Stored{operator, program} {
		if err := s.writeLayout(repositories[i], image); err != nil {
			return err
		}
	}
	return nil
}

// layout writes an index as an OCI layout, and lists it.
func (s *stages) writeLayout(repository string, image *bytecode.Stored) error {
	dir := "oci/" + repository
	if err := image.Write(filepath.Join(s.Out, dir)); err != nil {
		return err
	}
	made := release.Image{Repository: s.Registry + "/" + repository, Layout: dir, Tag: s.Version, Digest: image.Digest()}
	manifest, err := image.Index()
	if err != nil {
		return err
	}
	for _, m := range manifest.Manifests {
		made.Manifests = append(made.Manifests, release.Manifest{Platform: m.Platform.String(), Digest: m.Digest.String()})
	}
	s.made.Images = append(s.made.Images, made)
	return nil
}

// makeChart makes the chart, which names the images by digest, as an archive and as an
// image.
func (s *stages) makeChart(context.Context) error {
	o := chart.Options{Dir: "charts/blixt", Version: s.Version, Time: s.Time}
	o.Image, o.Bytecode = s.made.Images[0].Name(), s.made.Images[1].Name()
	content, err := chart.Package(o)
	if err != nil {
		return err
	}
	if err := s.write("blixt-"+s.Number()+".tgz", release.KindChart, content); err != nil {
		return err
	}
	image, err := chart.OCI(content, o)
	if err != nil {
		return err
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	made := release.Image{Repository: s.Registry + "/" + chartRepository, Layout: "oci/" + chartRepository, Tag: s.Number(), Digest: digest.String()}
	path, err := layout.Write(filepath.Join(s.Out, made.Layout), empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendImage(image); err != nil {
		return err
	}
	s.made.Images = append(s.made.Images, made)
	return nil
}

// makeManifests makes the file for kubectl.
func (s *stages) makeManifests(ctx context.Context) error {
	content, err := manifests.Render(ctx, manifests.Options{
		Helm: s.Helm, Chart: filepath.Join(s.Out, "blixt-"+s.Number()+".tgz"), Version: s.Version,
	})
	if err != nil {
		return err
	}
	return s.write("install.yaml", release.KindManifests, content)
}
