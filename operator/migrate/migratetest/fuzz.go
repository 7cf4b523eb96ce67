// SPDX-License-Identifier: Apache-2.0

package migratetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// Seeds has a fuzz target begin with the testdata.
func Seeds(f *testing.F) {
	f.Helper()
	inputs, err := filepath.Glob("testdata/*.in.*")
	if err != nil || len(inputs) == 0 {
		f.Fatalf("find testdata: %v, %d files", err, len(inputs))
	}
	for _, path := range inputs {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
}

// Fuzzed reads a text that may say anything. It fails the test if that takes long, if two
// readings differ, if the output is not valid, or if a note is no single line.
func Fuzzed(t *testing.T, text []byte, read func([]migrate.File) *migrate.Plan) {
	t.Helper()
	once := func() (out, said string) {
		start := time.Now()
		objects, notes := read([]migrate.File{{Name: "any.conf", Text: text}}).Objects(Host)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("reading %d bytes has taken %s", len(text), took)
		}
		out, err := migrate.YAML(objects, notes)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, n := range notes {
			if strings.Contains(n.String(), "\n") || n.Text == "" {
				t.Errorf("note %q is no single line", n)
			}
			b.WriteString(n.String() + "\n")
		}
		return out, b.String()
	}
	out, said := once()
	if out2, said2 := once(); out2 != out || said2 != said {
		t.Errorf("two readings differ:\n%s%s\n%s%s", out, said, out2, said2)
	}
	if _, errs := manifest.Parse("out.yaml", []byte(out)); len(errs) > 0 {
		t.Errorf("the output is not valid: %v\n%s", errs, out)
	}
}
