// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	sigsjson "sigs.k8s.io/json"
	sigsyaml "sigs.k8s.io/yaml"
)

// FuzzRead feeds arbitrary files: every error has a line of the file.
func FuzzRead(f *testing.F) {
	for _, pattern := range []string{"testdata/rejected/*", "../../examples/standalone/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("find %s: %v, %d files", pattern, err, len(files))
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	// Aliases that lead back to where they are.
	f.Add([]byte("&a\nkind: List\nitems: [*a]\n"))
	f.Add([]byte("&a\n<<: {<<: *a}\n"))
	f.Add([]byte("&a\napiVersion: v1\nkind: Service\nmetadata: &m {name: x, <<: *m}\nspec: *a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := 1
		for _, b := range text {
			if b == '\n' || b == '\r' {
				lines++
			}
		}
		_, wrong := Parse("a.yaml", text)
		for _, err := range wrong {
			if err.Reason == "" || err.Line < 0 || err.Line > lines+1 {
				t.Errorf("bad error for %d lines: %+v", lines, err)
			}
		}
	})
}

// FuzzPlainValue compares the values that are read without sigs.k8s.io/yaml with its own.
func FuzzPlainValue(f *testing.F) {
	for _, text := range []string{
		"a: 10.0.0.1\nb: [1, -2, 0, 007, 0x1f, 0o17, 1_000, 1e3, .5, 1., +1, 9223372036854775808]\n", "y: n\nYes: Off\nTRUE: tRuE\n~: null\n",
		"2026-01-01: 2026-01-01T00:00:00Z\n", "a: |\n  yes\nb: 'on'\nc: >-\n  x\n", "a: &x b\nc: *x\n<<: {d: e}\n", "!!str 5: !!int '7'\n", "=: <<\n? [a]\n: b\n",
		"a: 1:30\nb: 0b11\nc: .inf\nd: -.NaN\ne: ''\nf: \"\\x00\"\ng:\n", "- a\n- - b\n  - {c: }\n", "a: 1\na: 2\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var node yaml.Node
		if yaml.Unmarshal(text, &node) != nil || len(node.Content) == 0 {
			return
		}
		got, sure := plainValue(node.Content[0])
		asJSON, err := sigsyaml.YAMLToJSON(text)
		if !sure || mayHaveTags(text) || err != nil {
			return
		}
		var want any
		if err := sigsjson.UnmarshalCaseSensitivePreserveInts(asJSON, &want); err != nil {
			return
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-sigs.k8s.io/yaml +plain):\n%s", text, diff)
		}
	})
}
