// SPDX-License-Identifier: Apache-2.0

package sbom_test

import (
	"debug/buildinfo"
	"encoding/json"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/sbom"
)

func program(arch string) *release.Binary {
	return &release.Binary{Arch: arch, SHA256: strings.Repeat(arch[:1], 64), Info: &buildinfo.BuildInfo{
		GoVersion: "go1.26.8", Main: debug.Module{Path: "github.com/kubernetes-sigs/blixt", Version: "v1.2.3"},
		Deps: []*debug.Module{
			{Path: "example.com/a", Version: "v1.0.0+incompatible"},
			{Path: "example.com/b", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/c", Version: "v2.0.0"}},
		},
	}}
}

// read returns the document as lines of what relates to what, and checks what SPDX demands.
func read(t *testing.T, a sbom.Artefact) (lines []string) {
	t.Helper()
	text, err := a.Document()
	if err != nil {
		t.Fatal(err)
	}
	var d sbom.Document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.DocumentNamespace != "https://github.com/kubernetes-sigs/blixt/sbom/"+a.SHA256 || d.CreationInfo.Created != "2026-11-30T03:00:00Z" {
		t.Errorf("namespace %s, created %s", d.DocumentNamespace, d.CreationInfo.Created)
	}
	names := map[string]string{sbom.DocumentID: "document"}
	for _, p := range d.Packages {
		if names[p.ID] != "" || !regexp.MustCompile(`^SPDXRef-[a-zA-Z0-9.-]+$`).MatchString(p.ID) {
			t.Errorf("id %s of %s is no id, or is another's as well", p.ID, p.Name)
		}
		names[p.ID] = p.Name
		if p.VersionInfo != "" {
			names[p.ID] += " " + p.VersionInfo
		}
	}
	for _, r := range d.Relationships {
		if names[r.Element] == "" || names[r.Related] == "" {
			t.Errorf("relationship %v is of something that is not listed", r)
		}
		lines = append(lines, names[r.Element]+" "+r.Type+" "+names[r.Related])
	}
	return lines
}

func artefact(name string) sbom.Artefact {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.FixedZone("elsewhere", 9*3600))
	return sbom.Artefact{Name: name, Version: "v1.2.3", SHA256: strings.Repeat("5", 64), Licence: "Apache-2.0", Time: at}
}

// What two programs share is listed once.
func TestArtefactListsItsPrograms(t *testing.T) {
	a := artefact("registry.example.com/blixt/operator")
	a.Programs = []*release.Binary{program("amd64"), program("arm64")}
	a.Beside = []*debug.Module{{Path: "example.com/roots", Version: "v0.1.0"}}
	const blixt, image = "github.com/kubernetes-sigs/blixt v1.2.3", "registry.example.com/blixt/operator v1.2.3"
	want := []string{"document DESCRIBES " + image}
	for range a.Programs {
		want = append(want, image+" CONTAINS "+blixt, blixt+" CONTAINS eBPF object of Blixt v1.2.3", blixt+" STATIC_LINK stdlib 1.26.8",
			blixt+" STATIC_LINK example.com/a v1.0.0+incompatible", blixt+" STATIC_LINK example.com/c v2.0.0")
	}
	want = append(want, image+" CONTAINS example.com/roots v0.1.0")
	if diff := cmp.Diff(want, read(t, a)); diff != "" {
		t.Errorf("relationships (-want +got):\n%s", diff)
	}
}

func TestArtefactListsWhatItHasPulled(t *testing.T) {
	a := artefact("install.yaml")
	a.Images = []string{"registry.example.com/blixt/operator@sha256:" + strings.Repeat("1", 64), "registry.example.com:5000/other:v1"}
	want := []string{
		"document DESCRIBES install.yaml v1.2.3", "install.yaml v1.2.3 DEPENDS_ON registry.example.com/blixt/operator",
		"install.yaml v1.2.3 DEPENDS_ON registry.example.com:5000/other:v1",
	}
	if diff := cmp.Diff(want, read(t, a)); diff != "" {
		t.Errorf("relationships (-want +got):\n%s", diff)
	}
	text, err := a.Document()
	if err != nil {
		t.Fatal(err)
	}
	for _, purl := range []string{
		`"pkg:generic/blixt@v1.2.3?checksum=sha256:5`, `"pkg:oci/operator@sha256%3A1`, `1?repository_url=registry.example.com/blixt/operator"`,
		`"pkg:oci/other?repository_url=registry.example.com:5000/other\u0026tag=v1"`,
	} {
		if !strings.Contains(string(text), purl) {
			t.Errorf("no %s in %s", purl, text)
		}
	}
}

func TestArtefactListsTheObject(t *testing.T) {
	a := artefact("registry.example.com/blixt/bytecode")
	a.Bytecode = true
	want := []string{"document DESCRIBES registry.example.com/blixt/bytecode v1.2.3", "registry.example.com/blixt/bytecode v1.2.3 CONTAINS eBPF object of Blixt v1.2.3"}
	if diff := cmp.Diff(want, read(t, a)); diff != "" {
		t.Errorf("relationships (-want +got):\n%s", diff)
	}
}
