// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
)

// TestMigratePageOfNginx runs the command of docs/migrate/nginx.md with the file that it shows, and
// compares what it prints.
func TestMigratePageOfNginx(t *testing.T) {
	const page = "../../../docs/migrate/nginx.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := document.Parse(page, text)
	home, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	ran := 0
	for _, b := range blocks {
		if file, is := strings.CutPrefix(b.Comment, "file: "); is {
			if err := os.WriteFile(file, []byte(b.Text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if b.Comment != "tested: TestMigratePageOfNginx" {
			continue
		}
		ran++
		line, shown, _ := strings.Cut(b.Text, "\n")
		got, _ := runBlixt(t, strings.Fields(strings.TrimPrefix(line, "$ blixt "))...)
		text = []byte(strings.Replace(string(text), shown, got, 1))
	}
	if ran != 1 {
		t.Errorf("the page has %d commands of this test", ran)
	}
	t.Chdir(home)
	golden.File(t, page, text)
}
