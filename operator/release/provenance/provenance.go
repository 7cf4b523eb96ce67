// SPDX-License-Identifier: Apache-2.0

// Package provenance tells how a release was built: from which commit, with which
// parameters, by whom. What it says follows from the release's source alone, without any
// time, so that who builds the release again gets the same bytes.
package provenance

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release"
)

const docs = "https://github.com/kubernetes-sigs/blixt/blob/main/docs/verify.md"

const (
	// BuildType names the document that explains the parameters.
	BuildType = docs + "#provenance-version-1"
	// LocalBuilder is who builds on a machine of one's own. Only what a known builder
	// signs says something about the build.
	LocalBuilder = docs + "#built-locally"
)

// Build is how a release is built.
type Build struct {
	// Version, Registry and Platforms are what make release is given.
	Version, Registry string
	Platforms         []string
	// Revision is the commit.
	Revision string
	// Tagged: the commit has the version as its tag, rather than as an argument only.
	Tagged bool
	// GoVersion is the toolchain's, such as go1.26.8.
	GoVersion string
	// Tools are what else wrote artefacts, as packages with their version:
	// pkg:golang/github.com/goreleaser/nfpm/v2@v2.48.0.
	Tools []string
	// Builder is a URI: whom one must trust for all of this. "": LocalBuilder.
	Builder string
}

// Subject is a file or an image of the release.
type Subject struct {
	Name string
	// SHA256 in hexadecimal digits, with or without "sha256:".
	SHA256 string
}

// The predicate of SLSA, version 1: https://slsa.dev/spec/v1.0/provenance.
type (
	predicate struct {
		BuildDefinition definition `json:"buildDefinition"`
		RunDetails      details    `json:"runDetails"`
	}
	definition struct {
		BuildType            string       `json:"buildType"`
		ExternalParameters   parameters   `json:"externalParameters"`
		ResolvedDependencies []dependency `json:"resolvedDependencies"`
	}
	parameters struct {
		Version   string   `json:"version"`
		Registry  string   `json:"registry"`
		Platforms []string `json:"platforms"`
		Source    string   `json:"source"`
	}
	dependency struct {
		URI    string            `json:"uri"`
		Name   string            `json:"name,omitempty"`
		Digest map[string]string `json:"digest,omitempty"`
	}
	details struct {
		Builder builder `json:"builder"`
	}
	builder struct {
		ID string `json:"id"`
	}
)

// Statement returns an unsigned in-toto statement, in JSON, about the subjects, which it
// sorts by name. Returns an error for a subject without a SHA-256 digest, and for a build
// without a commit.
func (b Build) Statement(subjects ...Subject) ([]byte, error) {
	if len(b.Revision) != 40 && len(b.Revision) != 64 || !isHex(b.Revision) {
		return nil, fmt.Errorf("state provenance: %q is no commit of git", b.Revision)
	}
	about, err := sorted(subjects)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(b.predicate())
	if err != nil {
		return nil, fmt.Errorf("state provenance: %w", err)
	}
	text, err = json.MarshalIndent(bytecode.NewStatement(bytecode.PredicateProvenance, text, about...), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("state provenance: %w", err)
	}
	return append(text, '\n'), nil
}

// repository is the address of the source: that of the builder, if it is a workflow of GitHub, as
// a fork has commits and tags of its own.
func (b Build) repository() string {
	if address, _, ok := strings.Cut(b.Builder, "/.github/workflows/"); ok {
		return address
	}
	return release.Home
}

func (b Build) predicate() predicate {
	source := "git+" + b.repository()
	if b.Tagged {
		source += "@refs/tags/" + b.Version
	}
	dependencies := []dependency{
		{URI: source, Digest: map[string]string{"gitCommit": b.Revision}},
		{URI: "pkg:generic/go@" + strings.TrimPrefix(b.GoVersion, "go"), Name: "Go"},
	}
	for _, tool := range slices.Sorted(slices.Values(b.Tools)) {
		dependencies = append(dependencies, dependency{URI: tool})
	}
	return predicate{
		BuildDefinition: definition{
			BuildType: BuildType,
			ExternalParameters: parameters{
				Version: b.Version, Registry: b.Registry, Source: source,
				Platforms: append([]string{}, b.Platforms...), // [] rather than null
			},
			ResolvedDependencies: dependencies,
		},
		RunDetails: details{Builder: builder{ID: cmp.Or(b.Builder, LocalBuilder)}},
	}
}

func sorted(subjects []Subject) (all []bytecode.Subject, err error) {
	if len(subjects) == 0 {
		return nil, errors.New("state provenance: of nothing")
	}
	for _, s := range subjects {
		digest := strings.TrimPrefix(s.SHA256, "sha256:")
		if len(digest) != 64 || !isHex(digest) {
			return nil, fmt.Errorf("state provenance: %s: %q is no SHA-256 digest", s.Name, s.SHA256)
		}
		all = append(all, bytecode.Subject{Name: s.Name, Digest: map[string]string{"sha256": digest}})
	}
	slices.SortFunc(all, func(a, b bytecode.Subject) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Digest["sha256"], b.Digest["sha256"]))
	})
	return all, nil
}

func isHex(text string) bool { return strings.Trim(text, "0123456789abcdef") == "" }
