// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
)

//go:generate go test -run=^TestCommandsReference$ -update

func TestCommandsReference(t *testing.T) {
	golden.File(t, "../../../docs/commands.md", []byte(commandsReference(command())))
}

// TestManPages has mandoc read each page as man does: nothing is wrong with it, and it says
// what --help says.
func TestManPages(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Fatal("make test installs mandoc:", err)
	}
	dir, again := t.TempDir(), t.TempDir()
	for _, dir := range []string{dir, again} {
		if out, code := runBlixt(t, "man", dir); code != 0 || out != "" {
			t.Fatalf("exit code %d, output %s", code, out)
		}
	}
	all := documented(command())
	for _, c := range all {
		path := filepath.Join(dir, pageName(c)+".1")
		// A page without a date is the same on each day. Dashes of names are no error.
		lint := exec.Command(mandoc, "-T", "lint", "-W", "warning", path)
		found, _ := lint.CombinedOutput()
		for line := range strings.Lines(string(found)) {
			if !strings.Contains(line, "missing date") && !strings.Contains(line, "outdated mandoc.db") {
				t.Errorf("%s", line)
			}
		}
		shown := exec.Command(mandoc, "-T", "utf8", "-O", "width=900", path)
		text, err := shown.Output()
		if err != nil {
			t.Fatal(err)
		}
		plain := string(overstrike(text))
		words := strings.Join(strings.Fields(plain), " ")
		if want := strings.Join(strings.Fields(description(c)), " "); !strings.Contains(words, want) {
			t.Errorf("%s does not have its description:\n%s\nwant\n%s", pageName(c), words, want)
		}
		c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(plain, flagName(f)) {
				t.Errorf("%s does not have %s", pageName(c), flagName(f))
			}
		})
		for line := range strings.Lines(c.Example) {
			if !strings.Contains(plain, strings.TrimSpace(line)) {
				t.Errorf("%s does not have the example %s", pageName(c), line)
			}
		}
		one, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if two, err := os.ReadFile(filepath.Join(again, pageName(c)+".1")); err != nil || !bytes.Equal(one, two) {
			t.Errorf("%s is another page the second time (%v)", pageName(c), err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(all) || len(all) < 20 {
		t.Errorf("%d pages of %d commands (%v)", len(entries), len(all), err)
	}
}

// overstrike removes what makes letters bold or underlined on paper.
func overstrike(text []byte) []byte {
	var out []byte
	for _, b := range text {
		if b == '\b' && len(out) > 0 {
			out = out[:len(out)-1]
			continue
		}
		out = append(out, b)
	}
	return out
}
