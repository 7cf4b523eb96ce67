// SPDX-License-Identifier: Apache-2.0

// Package migratetest tests readers of package migrate: what they make of files is compared
// with files, and has to be valid.
package migratetest

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

// Host are the options for sources that are hosts: their output is complete, and blixt check
// finds no mistake in it.
var Host = migrate.Options{WriteClass: true}

// Cases reads each testdata/NAME.in.EXT, or all files of a directory testdata/NAME.in as one
// source, and compares what comes out with NAME.out.yaml and NAME.notes.
func Cases(t *testing.T, o migrate.Options, read func([]migrate.File) *migrate.Plan) {
	t.Helper()
	inputs, err := filepath.Glob("testdata/*.in*")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("find testdata: %v, %d files", err, len(inputs))
	}
	known := map[string]bool{}
	for _, path := range inputs {
		base, _, _ := strings.Cut(path, ".in")
		known[base] = true
		t.Run(filepath.Base(base), func(t *testing.T) {
			text, notes := Written(t, o, read(Files(t, path)))
			golden.File(t, base+".out.yaml", []byte(text))
			golden.File(t, base+".notes", []byte(notes))
		})
	}
	outputs, err := filepath.Glob("testdata/*.out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range outputs {
		if !known[strings.TrimSuffix(path, ".out.yaml")] {
			t.Errorf("%s has no input", path)
		}
	}
}

// Files returns a file, or those of a directory by their names in it.
func Files(t testing.TB, path string) (all []migrate.File) {
	t.Helper()
	err := filepath.WalkDir(path, func(file string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(file)
		name := filepath.Base(path)
		if file != path {
			name, _ = filepath.Rel(path, file)
		}
		all = append(all, migrate.File{Name: name, Text: text})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Written returns the YAML of a plan and its notes. It fails the test if the YAML is not valid
// or, of a host, if blixt check would find a mistake.
func Written(t testing.TB, o migrate.Options, p *migrate.Plan) (text, notes string) {
	t.Helper()
	objects, all := p.Objects(o)
	text, err := migrate.YAML(objects, all)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, n := range all {
		b.WriteString(n.String() + "\n")
	}
	if _, errs := manifest.Parse("out.yaml", []byte(text)); len(errs) > 0 {
		t.Errorf("the output is not valid: %v\n%s", errs, text)
	}
	if !o.WriteClass || len(objects) == 0 {
		return text, b.String()
	}
	preview, err := standalone.NewPreview(standalone.PreviewOptions{
		Files:   source.Options{Given: []source.Given{{Name: "out.yaml", Text: text}}},
		Network: hostnet.Assume([]netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range preview.Remarks {
		if r.Level >= slog.LevelError {
			t.Errorf("blixt check finds a mistake: %s\n%s", r, text)
		}
	}
	return text, b.String()
}
