// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// menu returns the files that docs/site/data/menu.yaml names, in order.
func menu(t *testing.T) (all []string) {
	t.Helper()
	var sections []struct {
		Name  string
		Pages []any // a file, or a map of one file to its name in the menu
	}
	if err := yaml.UnmarshalStrict([]byte(read(t, "docs/site/data/menu.yaml")), &sections); err != nil {
		t.Fatal(err)
	}
	for _, s := range sections {
		if s.Name == "" || len(s.Pages) == 0 {
			t.Errorf("the section %q has no name, or no pages", s.Name)
		}
		for _, p := range s.Pages {
			switch p := p.(type) {
			case string:
				all = append(all, p)
			case map[string]any:
				for file := range p {
					all = append(all, file)
				}
			}
		}
	}
	return all
}

var titles = regexp.MustCompile(`(?m)^# +(.+)$`)

// Each document is in the menu of the site, once, and has a title that no other one has.
func TestMenuHasAllDocuments(t *testing.T) {
	listed := menu(t)
	seen, named := map[string]bool{}, map[string]string{}
	for _, file := range listed {
		if seen[file] {
			t.Errorf("docs/site/data/menu.yaml has %s twice", file)
		}
		seen[file] = true
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			t.Errorf("docs/site/data/menu.yaml names %s, which does not exist", file)
			continue
		}
		text := fence.ReplaceAllString(read(t, file), "")
		title := titles.FindStringSubmatch(text)
		if title == nil || !strings.HasPrefix(text, title[0]) && !strings.HasPrefix(text, "<!--") {
			t.Errorf("%s does not begin with its title, as: # Policies", file)
			continue
		}
		if n := len(titles.FindAllString(text, -1)); n != 1 {
			t.Errorf("%s has %d headings of the first level: one is the title", file, n)
		}
		if other := named[title[1]]; other != "" {
			t.Errorf("%s has the title of %s: %s", file, other, title[1])
		}
		named[title[1]] = file
	}
	for _, file := range files(t, ".md") {
		if (strings.HasPrefix(file, "docs/") || strings.HasPrefix(file, "examples/")) && !slices.Contains(listed, file) {
			t.Errorf("%s is not in docs/site/data/menu.yaml", file)
		}
	}
}
