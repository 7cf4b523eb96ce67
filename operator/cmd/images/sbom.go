// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// rootsModule is the module that roots come from.
const rootsModule = "golang.org/x/crypto/x509roots/fallback"

// The parts of SPDX 2.3 that are used.
type (
	spdxDocument struct {
		Version           string             `json:"spdxVersion"`
		DataLicense       string             `json:"dataLicense"`
		ID                string             `json:"SPDXID"`
		Name              string             `json:"name"`
		DocumentNamespace string             `json:"documentNamespace"`
		CreationInfo      spdxCreation       `json:"creationInfo"`
		Packages          []spdxPackage      `json:"packages"`
		Relationships     []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID               string          `json:"SPDXID"`
		Name             string          `json:"name"`
		VersionInfo      string          `json:"versionInfo,omitempty"`
		DownloadLocation string          `json:"downloadLocation"`
		FilesAnalyzed    bool            `json:"filesAnalyzed"`
		LicenseConcluded string          `json:"licenseConcluded"`
		LicenseDeclared  string          `json:"licenseDeclared"`
		CopyrightText    string          `json:"copyrightText"`
		Checksums        []spdxChecksum  `json:"checksums,omitempty"`
		ExternalRefs     []spdxReference `json:"externalRefs,omitempty"`
		Comment          string          `json:"comment,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxReference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

const (
	documentID  = "SPDXRef-DOCUMENT"
	blixtID     = "SPDXRef-blixt"
	noAssertion = "NOASSERTION"
)

// newSBOM lists the contents of an image: the modules that Go has recorded in the program,
// the eBPF object in it, and the CAs beside it.
func newSBOM(b *binary) ([]byte, error) {
	d := &spdxDocument{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: documentID,
		Name:              "blixt " + b.version() + " linux/" + b.arch,
		DocumentNamespace: source + "/sbom/" + b.sha256,
		CreationInfo:      spdxCreation{Created: b.time().Format(time.RFC3339), Creators: []string{"Organization: Blixt"}},
	}
	d.add(documentID, "DESCRIBES", spdxPackage{
		ID: blixtID, Name: b.info.Main.Path, VersionInfo: b.info.Main.Version, DownloadLocation: source, LicenseDeclared: "Apache-2.0",
		Checksums: []spdxChecksum{{"SHA256", b.sha256}}, ExternalRefs: purl(b.info.Main.Path, b.info.Main.Version),
	})
	object := sha256.Sum256(bpf.Object())
	d.add(blixtID, "CONTAINS", spdxPackage{
		ID: "SPDXRef-ebpf", Name: "eBPF object of Blixt", VersionInfo: b.info.Main.Version, DownloadLocation: source,
		LicenseDeclared: "GPL-2.0-only OR BSD-2-Clause", Checksums: []spdxChecksum{{"SHA256", hex.EncodeToString(object[:])}},
	})
	d.addModule(blixtID, "STATIC_LINK", &debug.Module{Path: "stdlib", Version: strings.TrimPrefix(b.info.GoVersion, "go")})
	for _, m := range b.info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		d.addModule(blixtID, "STATIC_LINK", m)
	}
	roots, err := linked(rootsModule)
	if err != nil {
		return nil, err
	}
	d.addModule(documentID, "DESCRIBES", roots)
	text, err := json.MarshalIndent(d, "", " ")
	return append(text, '\n'), err
}

// linked finds a module that is linked into this program.
func linked(path string) (*debug.Module, error) {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == path {
			return m, nil
		}
	}
	return nil, fmt.Errorf("list the contents of the image: module %s is not recorded in this program", path)
}

// add lists a package, and its relationship to another.
func (d *spdxDocument) add(to, relation string, p spdxPackage) {
	p.LicenseConcluded, p.CopyrightText = noAssertion, noAssertion
	d.Packages = append(d.Packages, p)
	d.Relationships = append(d.Relationships, spdxRelationship{to, relation, p.ID})
}

func (d *spdxDocument) addModule(to, relation string, m *debug.Module) {
	p := spdxPackage{
		ID: fmt.Sprintf("SPDXRef-module-%d", len(d.Packages)), Name: m.Path, VersionInfo: m.Version,
		DownloadLocation: noAssertion, LicenseDeclared: noAssertion, ExternalRefs: purl(m.Path, m.Version),
	}
	if m.Sum != "" { // of its files' hashes: none of SPDX's algorithms
		p.Comment = "go.sum " + m.Sum
	}
	d.add(to, relation, p)
}

// purl returns the package URL of a module, by which databases of vulnerabilities find it.
func purl(path, version string) []spdxReference {
	return []spdxReference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + url.QueryEscape(version)}}
}
