// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/release"
)

// Artefact is a file or an image of a release.
type Artefact struct {
	// Name is the file's, or the image's repository.
	Name    string
	Version string
	// SHA256 is its digest, in hexadecimal.
	SHA256 string
	// Licence is an expression of SPDX.
	Licence string
	// Time is that of the commit.
	Time time.Time
	// Programs are those that it contains.
	Programs []*release.Binary
	// Beside are modules that other files in it come from.
	Beside []*debug.Module
	// Bytecode tells that it contains the eBPF object itself.
	Bytecode bool
	// Images are those that it has pulled when it is installed.
	Images []string
}

const artefactID = "SPDXRef-artefact"

// Document lists what the artefact consists of, and what it has pulled.
func (a Artefact) Document() ([]byte, error) {
	d := newDocument(a.Name+" "+a.Version, a.SHA256, a.Time)
	p := Package{
		ID: artefactID, Name: a.Name, VersionInfo: a.Version, DownloadLocation: release.Home, LicenseDeclared: a.Licence,
		Checksums: []Checksum{{"SHA256", a.SHA256}},
	}
	if strings.Contains(a.Name, "/") {
		p.ExternalRefs = imagePurl(a.Name + "@sha256:" + a.SHA256)
	} else {
		p.ExternalRefs = []Reference{{"PACKAGE-MANAGER", "purl", "pkg:generic/blixt@" + a.Version + "?checksum=sha256:" + a.SHA256}}
	}
	d.add(DocumentID, "DESCRIBES", p)
	for _, b := range a.Programs {
		d.addProgram(artefactID, "CONTAINS", b)
	}
	for _, m := range a.Beside {
		d.addModule(artefactID, "CONTAINS", m)
	}
	if a.Bytecode {
		d.addObject(artefactID, a.Version)
	}
	for i, image := range a.Images {
		name, digest, _ := strings.Cut(image, "@sha256:")
		p := Package{
			ID: fmt.Sprintf("SPDXRef-image-%d", i), Name: name, DownloadLocation: noAssertion, LicenseDeclared: noAssertion,
			ExternalRefs: imagePurl(image),
		}
		if digest != "" {
			p.Checksums = []Checksum{{"SHA256", digest}}
		}
		d.add(artefactID, "DEPENDS_ON", p)
	}
	return d.text()
}

// addProgram lists a program, the modules that Go has recorded in it, and the eBPF object.
func (d *Document) addProgram(to, relation string, b *release.Binary) {
	id := "SPDXRef-blixt-" + b.Arch
	d.add(to, relation, Package{
		ID: id, Name: b.Info.Main.Path, VersionInfo: b.Info.Main.Version, DownloadLocation: release.Home, LicenseDeclared: "Apache-2.0",
		Checksums: []Checksum{{"SHA256", b.SHA256}}, ExternalRefs: purl(b.Info.Main.Path, b.Info.Main.Version),
	})
	d.addObject(id, b.Info.Main.Version)
	d.addModule(id, "STATIC_LINK", &debug.Module{Path: "stdlib", Version: strings.TrimPrefix(b.Info.GoVersion, "go")})
	for _, m := range b.Info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		d.addModule(id, "STATIC_LINK", m)
	}
}

// addObject lists the eBPF object, which is the same in everything.
func (d *Document) addObject(to, version string) {
	const id = "SPDXRef-ebpf"
	if d.known[id] != "" {
		d.relate(to, "CONTAINS", id)
		return
	}
	d.known[id] = id
	object := sha256.Sum256(bpf.Object())
	d.add(to, "CONTAINS", Package{
		ID: id, Name: "eBPF object of Blixt", VersionInfo: version, DownloadLocation: release.Home,
		LicenseDeclared: "GPL-2.0-only OR BSD-2-Clause", Checksums: []Checksum{{"SHA256", hex.EncodeToString(object[:])}},
	})
}

// imagePurl returns the package URL of an image, NAME@sha256:DIGEST or NAME:TAG.
func imagePurl(image string) []Reference {
	repository, digest, byDigest := strings.Cut(image, "@")
	tag := ""
	if i := strings.LastIndex(repository, ":"); i > strings.LastIndex(repository, "/") {
		repository, tag = repository[:i], repository[i+1:]
	}
	locator := "pkg:oci/" + repository[strings.LastIndex(repository, "/")+1:]
	if byDigest {
		locator += "@" + url.QueryEscape(digest)
	}
	locator += "?repository_url=" + repository
	if tag != "" {
		locator += "&tag=" + tag
	}
	return []Reference{{"PACKAGE-MANAGER", "purl", locator}}
}
