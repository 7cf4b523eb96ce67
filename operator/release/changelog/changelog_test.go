// SPDX-License-Identifier: Apache-2.0

package changelog_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/release/changelog"
)

const text = `# Changelog

Words before any version.

## [Unreleased]

### Added

- What is next.

## [1.2.0] - 2026-12-01

A word about it.

### Upgrade notes

- Restart it.

### Added

- One thing,
  in two lines.
- Another.

### Security

- A hole, closed.

## [1.1.0] - 2026-11-01

### Fixed

- Something old.
`

func TestSectionOfVersion(t *testing.T) {
	got, err := changelog.Of([]byte(text), "v1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(text, "2026-12-01\n\n")
	rest, _, _ = strings.Cut(rest, "\n## [1.1.0]")
	want := &changelog.Section{Title: "1.2.0", Text: rest, Changes: []changelog.Change{
		{Kind: "Upgrade notes", Text: "Restart it."}, {Kind: "Added", Text: "One thing, in two lines."}, {Kind: "Added", Text: "Another."}, {Kind: "Security", Text: "A hole, closed."},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("section (-want +got):\n%s", diff)
	}
}

// 1.1.0 does not stand for 11.1.0.
func TestVersionWithoutSectionIsUnreleased(t *testing.T) {
	for _, version := range []string{"v1.3.0", "v1.3.0-rc.1", "v11.1.0", "v1.2"} {
		if got, err := changelog.Of([]byte(text), version); err != nil || got.Title != changelog.Unreleased {
			t.Errorf("section of %s: got %+v (%v), want what is unreleased", version, got, err)
		}
	}
}

func TestPrereleaseHasTheSectionOfItsVersion(t *testing.T) {
	for text, want := range map[string]string{
		text: "1.2.0",
		"## [Unreleased]\n\n## [1.2.0] - 2026-12-01\n### Added\n- One.\n": "1.2.0",
		"## [1.2.0-rc.1]\n### Added\n- One.\n" + text:                     "1.2.0-rc.1",
	} {
		if got, err := changelog.Of([]byte(text), "v1.2.0-rc.1"); err != nil || got.Title != want {
			t.Errorf("got %+v (%v), want section %s", got, err, want)
		}
	}
}

func TestWrongChangelogIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "there is no section for v1.0.0: begin one with ## [1.0.0]",
		"## [1.0.0]\n":                        "section 1.0.0 is empty",
		"## [Unreleased]\n\n### Added\n":      "section Unreleased is empty",
		"## [1.0.0]\n\n### New\n\n- A":        `heading "New": want one of Upgrade notes, Added, Changed`,
		"## [1.0.0]\n\n- A\n\n### Added\n- B": `entry "A" is below no heading`,
	} {
		if _, err := changelog.Of([]byte(text), "v1.0.0"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", text, err, want)
		}
	}
}

func TestChangelogOfThisRepository(t *testing.T) {
	text, err := os.ReadFile("../../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := changelog.Of(text, "v0.0.0"); err != nil {
		t.Error(err)
	}
}
