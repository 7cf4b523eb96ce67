//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/e2e/lib/machine"
	"github.com/kubernetes-sigs/blixt/e2e/lib/reader"
)

// named matches packages that documents install.
var named = regexp.MustCompile(`\./(blixt_\S+_amd64\.deb)`)

// TestDocuments follows the documents that install packages, on a host with systemd.
func TestDocuments(t *testing.T) {
	for _, file := range reader.WithSystemd {
		t.Run(file, func(t *testing.T) { followDocument(t, filepath.Join("../..", file)) })
	}
}

func followDocument(t *testing.T, path string) {
	blocks, err := document.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := reader.NewNetwork("blixt-e2e-quickstart")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &host{}
	h.start(t, n.Host, "quickstart")
	machines := map[string]*machine.Machine{"host": h.machine}
	for name, node := range n.Nodes() {
		if name == "host" || !reader.Names(blocks, name) {
			continue
		}
		m, err := machine.Start(node, machine.Options{Root: *rootDir, Dir: t.TempDir(), Name: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		machines[name] = m
	}
	for name, m := range machines {
		if err := reader.Equip(m); err != nil {
			t.Fatal(name, err)
		}
	}
	// Whatever version a document names is the one that is tested.
	text, err := os.ReadFile(file("deb", "0.9.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		for _, m := range named.FindAllStringSubmatch(b.Text, -1) {
			if err := os.WriteFile(h.path(filepath.Join(reader.Home, m[1])), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := reader.New(machines, reader.Home)
	if err != nil {
		t.Fatal(err)
	}
	r.Limit, r.Correct = limit, golden.Update()
	if err := errors.Join(r.Follow(blocks), r.Close(), r.Write(path)); err != nil {
		t.Error(err)
	}
}
