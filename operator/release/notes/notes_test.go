// SPDX-License-Identifier: Apache-2.0

package notes_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/notes"
)

const history = `# Changelog

## [Unreleased]

### Added

- Something that
  comes later.

## [1.2.3] - 2026-12-24

Upgrade notes: see
[the operations](docs/operations.md#upgrade), and [elsewhere](https://example.com/x).

    kubectl get
    pods

### Fixed

- One thing, in
  two lines.
- Another.
`

func made() *release.Release {
	return &release.Release{
		Source: release.Source{
			Version: "v1.2.3", Revision: strings.Repeat("ab", 20), Tagged: true, Time: time.Unix(0, 0),
			GoVersion: "go1.26.8", Toolchain: "go1.26.8", Registry: "registry.example.com/blixt",
		},
		Files: []release.File{
			{Name: "blixt_1.2.3_amd64.deb", Kind: release.KindPackage, SHA256: "0123", Size: 4567},
			{Name: "blixt_1.2.3_amd64.deb.spdx.json", Kind: release.KindSBOM, SHA256: "4567", Size: 89},
		},
		Images: []release.Image{{Repository: "registry.example.com/blixt/operator", Tag: "v1.2.3", Digest: "sha256:89ab"}},
	}
}

func write(t *testing.T, r *release.Release) string {
	t.Helper()
	text, err := notes.Write(r, []byte(history), "")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestNotesSayWhatIsNewAndWhatItIs(t *testing.T) {
	text := write(t, made())
	for _, want := range []string{
		"\n- One thing, in two lines.\n- Another.\n",
		"\nUpgrade notes: see [the operations](https://github.com/kubernetes-sigs/blixt/blob/v1.2.3/docs/operations.md#upgrade), and [elsewhere](https://example.com/x).\n",
		"\n    kubectl get\n    pods\n",
		"| blixt_1.2.3_amd64.deb | 4567 | 0123 |",
		"| registry.example.com/blixt/operator:v1.2.3 | sha256:89ab |",
		"helm install blixt oci://registry.example.com/blixt/charts/blixt --version 1.2.3 ",
		"cosign verify --key cosign.pub --insecure-ignore-tlog registry.example.com/blixt/operator:v1.2.3\n",
		"`make release VERSION=v1.2.3 REGISTRY=registry.example.com/blixt`",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, no := range []string{"comes later", "| blixt_1.2.3_amd64.deb.spdx.json |", "> **"} {
		if strings.Contains(text, no) {
			t.Errorf("%q is in\n%s", no, text)
		}
	}
}

// The builder and the platforms are in what is made, and who signs is not everywhere a workflow.
func TestNotesSayWhoSignsAndHowToMakeTheSame(t *testing.T) {
	const workflow = "https://github.com/o/r/.github/workflows/release.yaml@refs/tags/v1.2.3"
	r := made()
	r.Images[0].Manifests = []release.Manifest{{Platform: "linux/amd64"}}
	text, err := notes.Write(r, []byte(history), workflow)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"cosign verify --certificate-identity=" + workflow + " --certificate-oidc-issuer=https://token.actions.githubusercontent.com registry.example.com/blixt/operator:v1.2.3\n",
		"`make release VERSION=v1.2.3 REGISTRY=registry.example.com/blixt PLATFORMS=linux/amd64 BUILDER=" + workflow + "`",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestNotesWarn(t *testing.T) {
	for _, tc := range []struct {
		change func(*release.Release)
		want   string
	}{
		{func(r *release.Release) { r.Tagged = false }, "> **This is no release: no commit had the tag v1.2.3 when it was built.**"},
		{func(r *release.Release) { r.GoVersion = "go1.27.0" }, "> **It was built by go1.27.0, and not by go1.26.8, which go.mod asks for"},
		{func(r *release.Release) { r.Version = "v1.3.0-rc.1" }, "> **The changelog has no section for this version"},
	} {
		r := made()
		tc.change(r)
		if text := write(t, r); !strings.Contains(text, tc.want) {
			t.Errorf("no %q in\n%s", tc.want, text)
		}
	}
}
