// SPDX-License-Identifier: Apache-2.0

// Package changelog reads what a version changes from a file in the format of Keep a
// Changelog (keepachangelog.com/en/1.1.0).
package changelog

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Unreleased is the title of the section of what no version has yet.
const Unreleased = "Unreleased"

// UpgradeNotes is the heading of what somebody must do, which comes first.
const UpgradeNotes = "Upgrade notes"

// kinds are the headings that a section may have.
var kinds = []string{UpgradeNotes, "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}

// Section is what a version changes.
type Section struct {
	// Title is the version, without the letter v, or Unreleased.
	Title string
	// Text is the section without its heading, in Markdown.
	Text string
	// Changes are the entries of its lists.
	Changes []Change
}

// Change is an entry of a list.
type Change struct {
	// Kind is the heading above it: Upgrade notes, Added, Changed, Deprecated, Removed, Fixed
	// or Security.
	Kind string
	// Text is the entry in one line, in Markdown.
	Text string
}

// Of returns the section of a version, such as v1.2.3. For a prerelease, which has none, that
// of the version that it leads to stands. Until that has its number, what is unreleased does.
func Of(text []byte, version string) (*Section, error) {
	number := strings.TrimPrefix(version, "v")
	final, _, _ := strings.Cut(number, "-")
	all := sections(string(text))
	for _, title := range []string{number, final, Unreleased} {
		i := slices.IndexFunc(all, func(s *Section) bool { return s.Title == title })
		if i < 0 {
			continue
		}
		var err error
		if all[i].Changes, err = changes(all[i].Text); err != nil {
			return nil, fmt.Errorf("changelog: section %s: %w", title, err)
		}
		if len(all[i].Changes) == 0 {
			return nil, fmt.Errorf("changelog: section %s is empty: say what %s changes", title, version)
		}
		return all[i], nil
	}
	return nil, fmt.Errorf("changelog: there is no section for %s: begin one with ## [%s] - and the date", version, number)
}

var heading = regexp.MustCompile(`^## \[?([^\]\s]+)`)

func sections(text string) (all []*Section) {
	for line := range strings.Lines(text) {
		if m := heading.FindStringSubmatch(line); m != nil {
			all = append(all, &Section{Title: m[1]})
		} else if len(all) > 0 {
			all[len(all)-1].Text += line
		}
	}
	for _, s := range all {
		s.Text = strings.TrimSpace(s.Text) + "\n"
	}
	return all
}

func changes(text string) (all []Change, err error) {
	kind := ""
	for line := range strings.SplitSeq(text, "\n") {
		title, isHeading := strings.CutPrefix(line, "### ")
		entry, isEntry := strings.CutPrefix(line, "- ")
		switch {
		case isHeading && !slices.Contains(kinds, title):
			return nil, fmt.Errorf("heading %q: want one of %s", title, strings.Join(kinds, ", "))
		case isHeading:
			kind = title
		case isEntry && kind == "":
			return nil, fmt.Errorf("entry %q is below no heading: want one of %s above it", entry, strings.Join(kinds, ", "))
		case isEntry:
			all = append(all, Change{kind, entry})
		case len(all) > 0 && strings.HasPrefix(line, "  "):
			all[len(all)-1].Text += " " + strings.TrimSpace(line)
		}
	}
	return all, nil
}
