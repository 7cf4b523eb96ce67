// SPDX-License-Identifier: Apache-2.0

// Package notes writes what people read of a release.
package notes

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"text/template"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/changelog"
)

// Name is the name of the file.
const Name = "RELEASE_NOTES.md"

const layout = `# Blixt {{.Version}}
{{range .Warnings}}
> **{{.}}**
{{end}}
{{.Changes}}
## Install

In a cluster, with Helm or without it; [install.md]({{.Docs}}/install.md) has all ways, upgrades and removal:

    helm install blixt oci://{{.Registry}}/charts/blixt --version {{.Number}} --namespace blixt-system --create-namespace --wait
    kubectl apply --server-side -f install.yaml

On a host, without Kubernetes:

    sudo apt install ./blixt_{{.Number}}_amd64.deb
    sudo dnf install ./blixt-{{.Number}}-1.x86_64.rpm

## What it consists of

| Image | Digest |
|-|-|
{{range .Images}}| {{.Repository}}:{{.Tag}} | {{.Digest}} |
{{end}}
| File | Bytes | SHA-256 |
|-|-|-|
{{range .Files}}{{if .Installed}}| {{.Name}} | {{.Size}} | {{.SHA256}} |
{{end}}{{end}}
*.spdx.json list what each of them consists of, *.intoto.json say how they were built. The chart names the images by digest.

## Verify

[verify.md]({{.Docs}}/verify.md) tells what each of these proves:

    cosign verify-blob --bundle SHA256SUMS.sigstore.json {{.Signer}} SHA256SUMS
    sha256sum --check --ignore-missing SHA256SUMS
    cosign verify {{.Signer}} {{(index .Images 0).Repository}}:{{.Version}}

Commit {{.Revision}}, built by {{.GoVersion}}: who runs ` + "`{{.Command}}`" + ` gets the same bytes.
`

var page = template.Must(template.New(Name).Parse(layout))

// file is a file of the release, to users.
type file struct{ release.File }

// Installed tells whether people install it, or what is in it.
func (f file) Installed() bool {
	switch f.Kind {
	case release.KindArchive, release.KindPackage, release.KindChart, release.KindManifests, release.KindDocs:
		return true
	}
	return false
}

// Write returns the notes of a release, in Markdown. The builder is the URI of the workflow
// that signs it, or nothing for a machine of one's own, where a key does.
func Write(r *release.Release, history []byte, builder string) ([]byte, error) {
	section, err := changelog.Of(history, r.Version)
	if err != nil {
		return nil, err
	}
	data := struct {
		release.Source
		Warnings        []string
		Changes, Docs   string
		Signer, Command string
		Images          []release.Image
		Files           []file
	}{
		Source: r.Source, Warnings: warnings(r, section), Images: r.Images,
		Docs: release.Home + "/blob/" + r.Version + "/docs", Changes: absolute(unwrapped(section.Text), r.Version),
		Signer: "--key cosign.pub --insecure-ignore-tlog", Command: command(r, builder),
	}
	if builder != "" {
		data.Signer = "--certificate-identity=" + builder + " --certificate-oidc-issuer=https://token.actions.githubusercontent.com"
	}
	for _, f := range r.Files {
		data.Files = append(data.Files, file{f})
	}
	var out bytes.Buffer
	if err := page.Execute(&out, data); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// command is what makes the same release: its platforms decide on the digests of images, and
// its builder is in statements.
func command(r *release.Release, builder string) string {
	text := "make release VERSION=" + r.Version + " REGISTRY=" + r.Registry
	if all := r.Images[0].Manifests; len(all) == 1 {
		text += " PLATFORMS=" + all[0].Platform
	}
	if builder != "" {
		text += " BUILDER=" + builder
	}
	return text
}

// warnings are what one must know before anything else.
func warnings(r *release.Release, section *changelog.Section) (all []string) {
	if !r.Tagged {
		all = append(all, fmt.Sprintf("This is no release: no commit had the tag %s when it was built.", r.Version))
	}
	if r.GoVersion != r.Toolchain {
		all = append(all, fmt.Sprintf("It was built by %s, and not by %s, which go.mod asks for: who builds it by that gets other digests.", r.GoVersion, r.Toolchain))
	}
	if section.Title == changelog.Unreleased {
		all = append(all, "The changelog has no section for this version: these are all changes since the previous one.")
	}
	return all
}

// unwrapped puts each paragraph and each entry of a list into one line, as GitHub shows
// where the lines of notes end.
func unwrapped(text string) string {
	var out strings.Builder
	open := false // the line before may go on
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		trimmed := strings.TrimSpace(line)
		begins := trimmed == "" || strings.HasPrefix(line, "    ") || strings.ContainsAny(trimmed[:1], "#|>-")
		switch {
		case open && !begins:
			out.WriteString(" " + trimmed)
		case out.Len() > 0:
			out.WriteString("\n" + line)
		default:
			out.WriteString(line)
		}
		open = trimmed != "" && !strings.HasPrefix(line, "    ") && !strings.ContainsAny(trimmed[:1], "#|")
	}
	return out.String() + "\n"
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// absolute has links that begin in the source's directory lead to it.
func absolute(text, version string) string {
	return link.ReplaceAllStringFunc(text, func(found string) string {
		target := link.FindStringSubmatch(found)[1]
		if strings.Contains(target, ":") || strings.HasPrefix(target, "#") || strings.HasPrefix(target, "/") {
			return found
		}
		return "](" + release.Home + "/blob/" + version + "/" + target + ")"
	})
}
