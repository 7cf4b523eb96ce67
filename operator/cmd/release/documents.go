// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/images"
	"github.com/kubernetes-sigs/blixt/operator/release/manifests"
	"github.com/kubernetes-sigs/blixt/operator/release/notes"
	"github.com/kubernetes-sigs/blixt/operator/release/provenance"
	"github.com/kubernetes-sigs/blixt/operator/release/sbom"
)

const (
	licence    = "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)" // of what contains the eBPF object
	noLicence  = "Apache-2.0"
	spdxSuffix = ".spdx.json"
)

// listContents writes an SBOM for each file and each image.
func (s *stages) listContents(context.Context) error {
	named, err := s.namedImages()
	if err != nil {
		return err
	}
	for _, f := range slices.Clone(s.made.Files) {
		a := s.artefact(f.Name, f.SHA256)
		switch f.Kind {
		case release.KindArchive, release.KindPackage:
			a.Programs = []*release.Binary{s.binaryOf(f.Name)}
		case release.KindChart, release.KindManifests:
			a.Licence, a.Images = noLicence, named
		case release.KindDocs:
			a.Licence = noLicence
		}
		if err := s.writeSBOM(f.Name+spdxSuffix, a); err != nil {
			return err
		}
	}
	return s.listImages()
}

// listImages writes SBOMs of images, and says to which digests they are to be attached.
func (s *stages) listImages() error {
	roots, err := images.Roots()
	if err != nil {
		return err
	}
	operator, program, chart := &s.made.Images[0], &s.made.Images[1], &s.made.Images[2]
	index := s.artefact(operator.Repository, operator.Digest)
	index.Programs, index.Beside = s.binaries, roots
	if err := s.attest(operator, "blixt-operator_"+s.Number(), index, operator.Digest); err != nil {
		return err
	}
	for i, m := range operator.Manifests {
		image := s.artefact(operator.Repository, m.Digest)
		image.Programs, image.Beside = s.binaries[i:i+1], roots
		if err := s.attest(operator, "blixt-operator_"+s.Number()+"_linux_"+s.binaries[i].Arch, image, m.Digest); err != nil {
			return err
		}
	}
	// All of its manifests hold the same object.
	object := s.artefact(program.Repository, program.Digest)
	object.Bytecode = true
	if err := s.attest(program, "blixt-bytecode_"+s.Number(), object, digestsOf(program)...); err != nil {
		return err
	}
	// Its SBOM is that of the archive that it holds.
	chart.Attestations = append(chart.Attestations, release.Attestation{
		PredicateType: bytecode.PredicateSPDX, File: "blixt-" + s.Number() + ".tgz" + spdxSuffix, Digest: chart.Digest,
	})
	return nil
}

func (s *stages) artefact(name, digest string) sbom.Artefact {
	return sbom.Artefact{Name: name, Version: s.Version, SHA256: strings.TrimPrefix(digest, "sha256:"), Licence: licence, Time: s.Time}
}

// attest writes an SBOM, for the digests of an image.
func (s *stages) attest(image *release.Image, name string, a sbom.Artefact, digests ...string) error {
	for _, digest := range digests {
		image.Attestations = append(image.Attestations, release.Attestation{PredicateType: bytecode.PredicateSPDX, File: name + spdxSuffix, Digest: digest})
	}
	return s.writeSBOM(name+spdxSuffix, a)
}

func (s *stages) writeSBOM(name string, a sbom.Artefact) error {
	text, err := a.Document()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return s.write(name, release.KindSBOM, text)
}

// digestsOf returns those of an image and of its manifests.
func digestsOf(image *release.Image) []string {
	all := []string{image.Digest}
	for _, m := range image.Manifests {
		all = append(all, m.Digest)
	}
	return all
}

// binaryOf returns the binary that a file contains, whose name tells the architecture.
func (s *stages) binaryOf(file string) *release.Binary {
	arm := strings.Contains(file, "arm64") || strings.Contains(file, "aarch64")
	i := slices.IndexFunc(s.binaries, func(b *release.Binary) bool { return (b.Arch == "arm64") == arm })
	return s.binaries[i]
}

// namedImages returns the images that the chart has a cluster pull.
func (s *stages) namedImages() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(s.Out, "install.yaml"))
	if err != nil {
		return nil, err
	}
	return manifests.Images(text)
}

// state writes statements of who has built what of which commit.
func (s *stages) state(context.Context) error {
	tools, err := s.tools()
	if err != nil {
		return err
	}
	build := provenance.Build{
		Version: s.Version, Registry: s.Registry, Platforms: s.Platforms, Revision: s.Revision,
		Tagged: s.Tagged, GoVersion: s.GoVersion, Tools: tools, Builder: s.Builder,
	}
	var files []provenance.Subject
	for _, f := range s.made.Files {
		files = append(files, provenance.Subject{Name: f.Name, SHA256: f.SHA256})
	}
	if err := s.writeStatement("blixt_"+s.Number()+".intoto.json", build, files); err != nil {
		return err
	}
	for i := range s.made.Images {
		image := &s.made.Images[i]
		name := fmt.Sprintf("blixt-%s_%s.intoto.json", []string{"operator", "bytecode", "chart"}[i], s.Number())
		var subjects []provenance.Subject
		for _, digest := range digestsOf(image) {
			subjects = append(subjects, provenance.Subject{Name: image.Repository, SHA256: digest})
			image.Attestations = append(image.Attestations, release.Attestation{PredicateType: bytecode.PredicateProvenance, File: name, Digest: digest})
		}
		if err := s.writeStatement(name, build, subjects); err != nil {
			return err
		}
	}
	return nil
}

func (s *stages) writeStatement(name string, build provenance.Build, subjects []provenance.Subject) error {
	text, err := build.Statement(subjects...)
	if err != nil {
		return err
	}
	return s.write(name, release.KindProvenance, text)
}

// tools returns the package URLs of programs of others that made a part.
func (s *stages) tools() (all []string, err error) {
	paths := []string{s.Helm}
	if s.Packages {
		paths = append(paths, s.Nfpm)
	}
	if s.Docs {
		paths = append(paths, s.Hugo)
	}
	for _, path := range paths {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if path == s.Nfpm && info.GoVersion != s.GoVersion { // it compresses
			return nil, fmt.Errorf("%s was compiled by %s, and another Go may make other packages: delete it, and it is compiled by %s", path, info.GoVersion, s.GoVersion)
		}
		all = append(all, "pkg:golang/"+info.Main.Path+"@"+info.Main.Version)
	}
	return all, nil
}

// explainRelease writes the notes of the release.
func (s *stages) explainRelease(context.Context) error {
	changelog, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	text, err := notes.Write(&s.made, changelog, s.Builder)
	if err != nil {
		return err
	}
	return s.write(notes.Name, release.KindNotes, text)
}

// list writes the list of the release, and the checksums of all files.
func (s *stages) list(context.Context) error {
	if err := s.made.Write(s.Out); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.Out)
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, e := range entries { // sorted
		if e.IsDir() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(s.Out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%s  %s\n", hexSHA256(content), e.Name())
	}
	return os.WriteFile(filepath.Join(s.Out, release.SumsName), sums.Bytes(), 0o644)
}
