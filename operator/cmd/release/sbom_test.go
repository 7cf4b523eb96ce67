// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/release/sbom"
)

func TestSBOMListsWhatIsLinked(t *testing.T) {
	text, err := sbom.Binary(built)
	if err != nil {
		t.Fatal(err)
	}
	var d sbom.Document
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	ids := map[string]bool{sbom.DocumentID: true}
	for _, p := range d.Packages {
		got[p.Name] = p.VersionInfo
		if ids[p.ID] {
			t.Errorf("two packages have id %s", p.ID)
		}
		ids[p.ID] = true
	}
	for _, r := range d.Relationships {
		if !ids[r.Element] || !ids[r.Related] {
			t.Errorf("relationship %v is of something that is not listed", r)
		}
	}
	want := map[string]string{
		"github.com/kubernetes-sigs/blixt": built.Info.Main.Version, "eBPF object of Blixt": built.Info.Main.Version,
		"stdlib": strings.TrimPrefix(runtime.Version(), "go"),
	}
	for _, m := range built.Info.Deps {
		want[m.Path] = m.Version
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	if len(want) < 50 {
		t.Errorf("only %v, which cannot be all", slices.Sorted(maps.Keys(want)))
	}
	purl := d.Packages[slices.IndexFunc(d.Packages, func(p sbom.Package) bool { return p.Name == "github.com/docker/cli" })].ExternalRefs[0].Locator
	if !strings.HasSuffix(purl, "%2Bincompatible") {
		t.Errorf("purl %s: its + is not escaped", purl)
	}
}

func TestContainerfileMakesTheSame(t *testing.T) {
	text, err := os.ReadFile("../../Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	i := index(t, built)
	manifest, err := i.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := i.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{"USER " + config.Config.User, `ENTRYPOINT ["` + config.Config.Entrypoint[0] + `"]`, "WORKDIR " + config.Config.WorkingDir}
	for key, value := range config.Config.Labels {
		if !strings.HasSuffix(key, ".version") && !strings.HasSuffix(key, ".revision") {
			lines = append(lines, "LABEL "+key+`="`+value+`"`)
		}
	}
	for _, line := range lines {
		if !slices.Contains(strings.Split(string(text), "\n"), line) {
			t.Errorf("operator/Containerfile has no line %s", line)
		}
	}
}
