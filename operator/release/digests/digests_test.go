// SPDX-License-Identifier: Apache-2.0

package digests_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/release/digests"
)

const values = `# digest: of nothing
image:
  digest: "sha256:ours"
bpfman:
  enabled: true # digest: ""
  images:
    # -- Of the operator
    operator:
      repository: quay.io/bpfman/bpfman-operator
      tag: v0.6.0
      digest: "" # the tag's
    daemon: {digest: 'sha256:old', tag: v0.6.0, repository: quay.io/bpfman/bpfman}
    registrar:
      digest: sha256:same
      repository: quay.io/bpfman/csi-node-driver-registrar
      tag: v2.13.0
monitoring: {digest: ""}
`

func resolve(image string) (string, error) {
	digest, known := map[string]string{
		"quay.io/bpfman/bpfman-operator:v0.6.0":            "sha256:new1",
		"quay.io/bpfman/bpfman:v0.6.0":                     "sha256:new2",
		"quay.io/bpfman/csi-node-driver-registrar:v2.13.0": "sha256:same",
	}[image]
	if !known {
		return "", errors.New("not found")
	}
	return digest, nil
}

func TestUpdate(t *testing.T) {
	got, changes, err := digests.Update([]byte(values), resolve)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(strings.Replace(values, `digest: "" # the tag's`, `digest: sha256:new1 # the tag's`, 1), `'sha256:old'`, "sha256:new2", 1)
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if want := []string{
		`quay.io/bpfman/bpfman-operator:v0.6.0 is sha256:new1, not ""`,
		`quay.io/bpfman/bpfman:v0.6.0 is sha256:new2, not "sha256:old"`,
	}; !slices.Equal(changes, want) {
		t.Errorf("got %q, want %q", changes, want)
	}
	if again, changes, err := digests.Update(got, resolve); err != nil || changes != nil || string(again) != want {
		t.Errorf("a second time: %v %q", err, changes)
	}
}

func TestUpdate_Errors(t *testing.T) {
	for _, c := range []struct{ name, values, want string }{
		{"no YAML", "bpfman: {", "yaml"},
		{"empty", "", "no bpfman.images"},
		{"no images", "bpfman: {images: {}}", "no bpfman.images"},
		{"no map", "bpfman: {images: [a]}", "no bpfman.images"},
		{"no tag", "bpfman: {images: {agent: {repository: a, digest: ''}}}", "bpfman.images.agent: want repository, tag and digest"},
		{"no such image", "bpfman: {images: {agent: {repository: a, tag: v1, digest: ''}}}", "bpfman.images.agent: a:v1: not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := digests.Update([]byte(c.values), resolve); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}
