// SPDX-License-Identifier: Apache-2.0

// Package sbom lists what files and images of a release consist of, in SPDX 2.3.
package sbom

import (
	"encoding/json"
	"fmt"
	"net/url"
	"runtime/debug"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/release"
)

// The parts of SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3) that are used.
type (
	// Document is about one artefact.
	Document struct {
		Version           string         `json:"spdxVersion"`
		DataLicense       string         `json:"dataLicense"`
		ID                string         `json:"SPDXID"`
		Name              string         `json:"name"`
		DocumentNamespace string         `json:"documentNamespace"`
		CreationInfo      Creation       `json:"creationInfo"`
		Packages          []Package      `json:"packages"`
		Relationships     []Relationship `json:"relationships"`

		known map[string]string // what is listed already, and its id
	}
	// Creation says who wrote a document, and when.
	Creation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	// Package is what the document is about, or something in it.
	Package struct {
		ID               string      `json:"SPDXID"`
		Name             string      `json:"name"`
		VersionInfo      string      `json:"versionInfo,omitempty"`
		DownloadLocation string      `json:"downloadLocation"`
		FilesAnalyzed    bool        `json:"filesAnalyzed"`
		LicenseConcluded string      `json:"licenseConcluded"`
		LicenseDeclared  string      `json:"licenseDeclared"`
		CopyrightText    string      `json:"copyrightText"`
		Checksums        []Checksum  `json:"checksums,omitempty"`
		ExternalRefs     []Reference `json:"externalRefs,omitempty"`
		Comment          string      `json:"comment,omitempty"`
	}
	// Checksum is a digest of a package.
	Checksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	// Reference is by what name databases know a package.
	Reference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	// Relationship is what a package is to another, or to the document.
	Relationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

// DocumentID is the id that a document has in itself.
const DocumentID = "SPDXRef-DOCUMENT"

const noAssertion = "NOASSERTION"

// Binary lists what a program consists of: the modules that Go has recorded in it, and the
// eBPF object; and the modules that files beside it come from.
func Binary(b *release.Binary, beside ...*debug.Module) ([]byte, error) {
	d := newDocument("blixt "+b.Version()+" linux/"+b.Arch, b.SHA256, b.Time())
	d.addProgram(DocumentID, "DESCRIBES", b)
	for _, m := range beside {
		d.addModule(DocumentID, "DESCRIBES", m)
	}
	return d.text()
}

// newDocument returns a document about what has that digest.
func newDocument(name, digest string, at time.Time) *Document {
	return &Document{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: DocumentID, Name: name,
		DocumentNamespace: release.Home + "/sbom/" + digest,
		CreationInfo:      Creation{Created: at.UTC().Format(time.RFC3339), Creators: []string{"Organization: Blixt"}},
		known:             map[string]string{},
	}
}

func (d *Document) text() ([]byte, error) {
	text, err := json.MarshalIndent(d, "", " ")
	return append(text, '\n'), err
}

// add lists a package, and its relationship to another.
func (d *Document) add(to, relation string, p Package) {
	p.LicenseConcluded, p.CopyrightText = noAssertion, noAssertion
	d.Packages = append(d.Packages, p)
	d.relate(to, relation, p.ID)
}

func (d *Document) relate(to, relation, id string) {
	d.Relationships = append(d.Relationships, Relationship{to, relation, id})
}

// addModule lists a module once, however many programs link it.
func (d *Document) addModule(to, relation string, m *debug.Module) {
	key := m.Path + "@" + m.Version
	if d.known[key] != "" {
		d.relate(to, relation, d.known[key])
		return
	}
	p := Package{
		ID: fmt.Sprintf("SPDXRef-module-%d", len(d.Packages)), Name: m.Path, VersionInfo: m.Version,
		DownloadLocation: noAssertion, LicenseDeclared: noAssertion, ExternalRefs: purl(m.Path, m.Version),
	}
	if m.Sum != "" { // of its files' hashes: none of SPDX's algorithms
		p.Comment = "go.sum " + m.Sum
	}
	d.known[key] = p.ID
	d.add(to, relation, p)
}

// purl returns the package URL of a module, by which databases of vulnerabilities find it.
func purl(path, version string) []Reference {
	return []Reference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + url.QueryEscape(version)}}
}
