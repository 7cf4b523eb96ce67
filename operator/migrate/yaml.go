// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// maxPlaces is how many places a comment names.
const maxPlaces = 8

// YAML returns the objects as a file, with where each comes from, and with its notes. The
// notes that no object has are at its head.
func YAML(objects []Object, notes []Note) (string, error) {
	var b strings.Builder
	said := map[Note]bool{}
	for _, o := range objects {
		for _, n := range o.Notes {
			said[n] = true
		}
	}
	head := false
	for _, n := range notes {
		if !said[n] {
			comment(&b, n.String())
			head = true
		}
	}
	if len(objects) == 0 {
		comment(&b, "There is nothing that Blixt could serve.")
	} else if head {
		b.WriteString("\n")
	}
	for i, o := range objects {
		if i > 0 {
			b.WriteString("---\n")
		}
		if len(o.From) > 0 {
			comment(&b, "from "+placesText(o.From))
		}
		for _, n := range sorted(o.Notes) {
			comment(&b, n.String())
		}
		text, err := marshal(o.Value)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// comment writes a line that is a comment whatever is in it.
func comment(b *strings.Builder, text string) { fmt.Fprintf(b, "# %s\n", phrase.Printable(text)) }

// placesText returns places, such as a.conf:3 and a.conf:5-9.
func placesText(all []Place) string {
	var parts []string
	for i := 0; i < len(all); i++ {
		first := all[i]
		for i+1 < len(all) && all[i+1].File == first.File && all[i+1].Line == all[i].Line+1 {
			i++
		}
		text := first.String()
		if all[i].Line > first.Line {
			text += fmt.Sprintf("-%d", all[i].Line)
		}
		if len(parts) == maxPlaces {
			parts = append(parts, "more")
			break
		}
		parts = append(parts, text)
	}
	return phrase.Join(parts)
}

// marshal returns an object without what only a cluster sets, with its name first.
func marshal(o KubeObject) (string, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", o.GetName(), err)
	}
	delete(content, "status")
	prune(content)
	var b strings.Builder
	for _, key := range []string{"apiVersion", "kind", "metadata", ""} {
		part := content
		if key != "" {
			part = map[string]any{key: content[key]}
		}
		text, err := yaml.Marshal(part)
		if err != nil {
			return "", fmt.Errorf("write %s: %w", o.GetName(), err)
		}
		b.Write(text)
		delete(content, key)
	}
	return b.String(), nil
}

// prune removes null, conditions that say nothing, and target ports that nobody has set.
func prune(in map[string]any) {
	for key, value := range in {
		switch v := value.(type) {
		case nil:
			delete(in, key)
		case int64:
			if key == "targetPort" && v == 0 {
				delete(in, key)
			}
		case map[string]any:
			if prune(v); len(v) == 0 && key == "conditions" {
				delete(in, key)
			}
		case []any:
			for _, one := range v {
				if m, is := one.(map[string]any); is {
					prune(m)
				}
			}
		}
	}
}
