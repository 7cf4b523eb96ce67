// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

const othersHead = `
## Kinds of others

What Blixt does with each field of the kinds that Gateway API and Kubernetes define. ` + "`TestFields`" + ` proves each line: it changes the
field in objects that are served, and compares. Fields that are not here do not exist in version v1 of Gateway API's standard channel.

- **read**: another value changes what is served, or what is said.
- **refused**: another value gets the condition that is named.
- **ignored**: it changes nothing; *said* means that ` + "`blixt check` and `blixt run`" + ` tell so.

One of each kind, with the objects of the examples above, as ` + "`blixt check`" + ` shows them:

<!-- tested: TestExamplesOfTheReferenceAreServed -->
` + "```console" + `
$ blixt check -f docs/reference/examples
%s` + "```" + `
`

// othersSection is made of the list that TestFields proves.
func othersSection(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "operator/gateway/testdata/fields/fields.yaml"))
	if err != nil {
		return "", err
	}
	var all []struct {
		Kind   string
		Fields []struct{ Field, Does, With, Said, Note string }
	}
	if err := yaml.Unmarshal(text, &all); err != nil {
		return "", fmt.Errorf("read fields.yaml: %w", err)
	}
	shown, err := os.ReadFile(filepath.Join(root, "operator/cmd/blixt/testdata/reference.txt"))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, othersHead, shown)
	for _, name := range []string{"gateway", "services"} {
		example, err := os.ReadFile(filepath.Join(root, "docs/reference/examples", name+".yaml"))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\n```yaml\n%s\n```\n", strings.TrimSpace(strip(string(example))))
	}
	for _, kind := range all {
		fmt.Fprintf(&b, "\n### %s\n\n| Field | Blixt | |\n|-|-|-|\n", kind.Kind)
		for _, f := range kind.Fields {
			does := map[string]string{"reads": "read", "ignores": "ignored", "refuses": "refused"}[f.Does]
			if f.Said != "" {
				does += ", said"
			}
			note := f.Note
			if f.With != "" {
				note = strings.TrimPrefix(note+". ", ". ") + "`" + f.With + "`"
			}
			anchor := field{kind: strings.ToLower(kind.Kind), path: f.Field}.anchor()
			fmt.Fprintf(&b, "| %s`%s` | %s | %s |\n", once(&b, anchor), f.Field, does, note)
		}
	}
	return b.String(), nil
}

// once returns an anchor unless the page has it: a field may have two lines.
func once(page *strings.Builder, anchor string) string {
	text := fmt.Sprintf("<a id=%q></a>", anchor)
	if strings.Contains(page.String(), text) {
		return ""
	}
	return text
}
