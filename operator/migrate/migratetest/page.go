// SPDX-License-Identifier: Apache-2.0

package migratetest

import (
	"os"
	"strings"
	"testing"
)

// Page fails the test unless a page of the documentation shows a case of testdata: its input,
// its notes, as of standard input, and its output without comments.
func Page(t *testing.T, page, base string) {
	t.Helper()
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	shown := read(page)
	var objects strings.Builder
	for line := range strings.Lines(read(base + ".out.yaml")) {
		if !strings.HasPrefix(line, "#") {
			objects.WriteString(line)
		}
	}
	name := base[strings.LastIndex(base, "/")+1:] + ".in.yaml:"
	for what, want := range map[string]string{
		"input": read(base + ".in.yaml"), "notes": strings.ReplaceAll(read(base+".notes"), name, "stdin:"), "output": strings.TrimLeft(objects.String(), "\n"),
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%s does not show the %s of %s:\n%s", page, what, base, want)
		}
	}
}
