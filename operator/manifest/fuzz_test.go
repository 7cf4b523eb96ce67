// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"os"
	"path/filepath"
	"testing"
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
