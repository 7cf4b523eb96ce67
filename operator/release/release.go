// SPDX-License-Identifier: Apache-2.0

// Package release describes what a version of Blixt consists of: what it is made of, and
// the list of what was made, which release.json holds.
package release

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Home is the address of the source.
const Home = "https://github.com/kubernetes-sigs/blixt"

// ListName is the file that lists a release, and SumsName that with the checksums of all
// files, and of that list.
const (
	ListName = "release.json"
	SumsName = "SHA256SUMS"
)

// Source is what a release is made of.
type Source struct {
	// Dir is a clone of the revision, with the version as its tag.
	Dir string `json:"-"`
	// Version is the version as it is tagged, such as v1.2.3.
	Version string `json:"version"`
	// Revision is the commit, in hexadecimal.
	Revision string `json:"revision"`
	// Tagged tells whether the repository has the tag, or it was given to the clone alone.
	Tagged bool `json:"tagged"`
	// Time is the commit's, and that of everything in the release.
	Time time.Time `json:"time"`
	// GoVersion is that of the Go that compiles, such as go1.26.8: others make other bytes.
	GoVersion string `json:"goVersion"`
	// Toolchain is the Go that go.mod asks for, with which everybody makes the same.
	Toolchain string `json:"toolchain"`
	// Registry is the host and the path of all images, such as registry.example.com/blixt.
	Registry string `json:"registry"`
}

// Number returns the version without the letter, as charts and packages have it: 1.2.3.
func (s Source) Number() string { return strings.TrimPrefix(s.Version, "v") }

// Kinds of files.
const (
	KindArchive    = "archive"    // the program with its pages, in a tar.gz
	KindPackage    = "package"    // of a distribution
	KindChart      = "chart"      // for Helm
	KindManifests  = "manifests"  // for kubectl
	KindDocs       = "docs"       // the site of the documentation, which is in the program, too
	KindNotes      = "notes"      // for people
	KindSBOM       = "sbom"       // SPDX 2.3
	KindProvenance = "provenance" // a statement of in-toto, not signed
)

// Release is the content of release.json.
type Release struct {
	Source
	Files  []File  `json:"files"`
	Images []Image `json:"images"`
}

// File is a file beside release.json.
type File struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// Image is an image, or the chart, in an OCI layout below oci/.
type Image struct {
	// Repository is where it is published, such as registry.example.com/blixt/operator.
	Repository string `json:"repository"`
	// Layout is its directory beside release.json, such as oci/operator.
	Layout string `json:"layout"`
	// Tag is the version, in the characters that a tag may have.
	Tag    string `json:"tag"`
	Digest string `json:"digest"`
	// Manifests are those of an index.
	Manifests    []Manifest    `json:"manifests,omitempty"`
	Attestations []Attestation `json:"attestations"`
}

// Name returns the image's name by digest.
func (i Image) Name() string { return i.Repository + "@" + i.Digest }

// Manifest is the image of one platform.
type Manifest struct {
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
}

// Attestation is a statement about an image, or about one of its manifests.
type Attestation struct {
	PredicateType string `json:"predicateType"`
	// File has the statement, of in-toto, which is not signed yet.
	File string `json:"file"`
	// Digest is that of its subject.
	Digest string `json:"digest"`
}

// Read reads the list of the release in a directory.
func Read(dir string) (*Release, error) {
	path := filepath.Join(dir, ListName)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: make a release first, with make release VERSION=v1.2.3", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	r := new(Release)
	if err := decoder.Decode(r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Write writes the list into a directory.
func (r *Release) Write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ListName), append(text, '\n'), 0o644)
}
