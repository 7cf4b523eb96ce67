// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
)

// TestMigrateDocuments runs the commands of docs/migrate/haproxy.md, ipvs.md and nginx.md, with the
// files that they show, and compares what they print. -update writes that into the document.
func TestMigrateDocuments(t *testing.T) {
	for _, name := range []string{"haproxy.md", "ipvs.md", "nginx.md"} {
		t.Run(name, func(t *testing.T) {
			path, err := filepath.Abs(filepath.Join("../../../docs/migrate", name))
			if err != nil {
				t.Fatal(err)
			}
			blocks, err := document.Read(path)
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
				if b.Comment == "tested: TestMigrateDocuments" {
					ran++
					checkConsole(t, path, b)
				}
			}
			if ran == 0 {
				t.Error("the document has no command of this test")
			}
		})
	}
}

// checkConsole runs the one command of a block.
func checkConsole(t *testing.T, path string, b document.Block) {
	t.Helper()
	line, want, _ := strings.Cut(b.Text, "\n")
	args, quiet := strings.CutSuffix(strings.TrimPrefix(line, "$ blixt "), " 2>/dev/null")
	var out, said bytes.Buffer
	c := command()
	c.SetArgs(strings.Fields(args))
	c.SetOut(&out)
	c.SetErr(&said)
	_ = c.Execute() // what it says is compared, and it says why it fails
	if quiet {
		said.Reset()
	}
	var got strings.Builder
	for l := range strings.Lines(said.String() + out.String()) {
		got.WriteString(strings.TrimRight(l, " \n") + "\n")
	}
	if got.String() == want {
		return
	}
	if !golden.Update() {
		t.Errorf("%s: %s prints\n%s, and not\n%s", b, line, got.String(), want)
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	shown := line + "\n" + want
	if err := os.WriteFile(path, bytes.Replace(text, []byte(shown), []byte(line+"\n"+got.String()), 1), 0o644); err != nil {
		t.Fatal(err)
	}
}
