// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	build = Build{
		Version: "v1.2.3", Registry: "registry.example.com/blixt", Platforms: []string{"linux/amd64", "linux/arm64"},
		Revision: strings.Repeat("c0", 20), Tagged: true,
		GoVersion: "go1.26.8", Tools: []string{"pkg:golang/github.com/goreleaser/nfpm/v2@v2.48.0"},
	}
	image = Subject{Name: "registry.example.com/blixt/operator", SHA256: "sha256:" + strings.Repeat("ab", 32)}
	file  = Subject{Name: "blixt_1.2.3_amd64.deb", SHA256: strings.Repeat("01", 32)}
)

const want = `{
  "_type": "https://in-toto.io/Statement/v1",
  "subject": [
    {
      "name": "blixt_1.2.3_amd64.deb",
      "digest": {
        "sha256": "0101010101010101010101010101010101010101010101010101010101010101"
      }
    },
    {
      "name": "registry.example.com/blixt/operator",
      "digest": {
        "sha256": "abababababababababababababababababababababababababababababababab"
      }
    }
  ],
  "predicateType": "https://slsa.dev/provenance/v1",
  "predicate": {
    "buildDefinition": {
      "buildType": "https://github.com/kubernetes-sigs/blixt/blob/main/docs/verify.md#provenance-version-1",
      "externalParameters": {
        "version": "v1.2.3",
        "registry": "registry.example.com/blixt",
        "platforms": [
          "linux/amd64",
          "linux/arm64"
        ],
        "source": "git+https://github.com/kubernetes-sigs/blixt@refs/tags/v1.2.3"
      },
      "resolvedDependencies": [
        {
          "uri": "git+https://github.com/kubernetes-sigs/blixt@refs/tags/v1.2.3",
          "digest": {
            "gitCommit": "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0"
          }
        },
        {
          "uri": "pkg:generic/go@1.26.8",
          "name": "Go"
        },
        {
          "uri": "pkg:golang/github.com/goreleaser/nfpm/v2@v2.48.0"
        }
      ]
    },
    "runDetails": {
      "builder": {
        "id": "https://github.com/kubernetes-sigs/blixt/blob/main/docs/verify.md#built-locally"
      }
    }
  }
}
`

func TestStatement(t *testing.T) {
	for _, subjects := range [][]Subject{{image, file}, {file, image}} {
		got, err := build.Statement(subjects...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("subjects %v (-want +got):\n%s", subjects, diff)
		}
	}
}

// The statement says what was, not what was wished for.
func TestUntaggedSourceNamesNoTag(t *testing.T) {
	b := build
	b.Tagged, b.Builder = false, "https://example.com/release.yml@refs/heads/main"
	got, err := b.Statement(image)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(got), "refs/tags") || !strings.Contains(string(got), b.Revision) || !strings.Contains(string(got), `"id": "`+b.Builder+`"`) {
		t.Errorf("got %s", got)
	}
}

// A fork has commits and tags that its origin has not.
func TestSourceOfAForksWorkflow(t *testing.T) {
	b := build
	b.Builder = "https://github.com/o/r/.github/workflows/release.yaml@refs/tags/v1.2.3"
	got, err := b.Statement(image)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(got), `"git+https://github.com/o/r@refs/tags/v1.2.3"`); n != 2 || strings.Contains(string(got), "git+https://github.com/kubernetes-sigs") {
		t.Errorf("got %s", got)
	}
}

func TestNothingIsStatedOfTheUnknown(t *testing.T) {
	for _, c := range []struct {
		text     string
		revision string
		subjects []Subject
	}{
		{"of nothing", build.Revision, nil},
		{"is no commit", "", []Subject{image}},
		{"is no commit", "HEAD", []Subject{image}},
		{"is no commit", strings.Repeat("C0", 20), []Subject{image}},
		{`blixt.deb: "" is no SHA-256`, build.Revision, slices.Insert([]Subject{image}, 0, Subject{Name: "blixt.deb"})},
		{`blixt.deb: "sha512:`, build.Revision, []Subject{{Name: "blixt.deb", SHA256: "sha512:" + file.SHA256}}},
	} {
		b := build
		b.Revision = c.revision
		if got, err := b.Statement(c.subjects...); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("revision %q, subjects %v: got %s, %v, want an error with %q", c.revision, c.subjects, got, err, c.text)
		}
	}
}
