// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestBpfmanPullsTheImage has Blixt name an image to bpfman by its digest.
func TestBpfmanPullsTheImage(t *testing.T) {
	m := newManaged(t, "bpfman-image", 2)
	registry := m.startRegistry()
	image := registry.push("blixt/bytecode")
	args := m.blixt.Args
	m.blixt.Args = append(args, "--bytecode", image, "--ca-file", registry.ca)
	// That Blixt trusts the registry does not make bpfman do so.
	m.refuses(m.blixt.Start(), "bpfman: load "+image, "Failed to pull", "with a certificate that its machine trusts")
	m.nothingLeft()
	registry.trust()
	m.blixt.Args[len(m.blixt.Args)-1] = registry.ca
	m.check(m.blixt.Start())
	m.carries()
	s := m.status()
	if s.Program.Image != image {
		t.Errorf("status says that it was read from %q, want %q", s.Program.Image, image)
	}
	got, err := m.bpfman.Run("get", "program", fmt.Sprint(s.Program.ProgramID))
	m.check(err)
	if !strings.Contains(got, image) {
		t.Errorf("bpfman has not pulled %s:\n%s", image, got)
	}
	// The same object handed over as a file is no other version.
	m.check(m.blixt.Kill())
	m.blixt.Args = append(args, "--bytecode", filepath.Join(m.Dir(), "out"))
	m.check(m.blixt.Start())
	if now := m.status().Program; now.ProgramID != s.Program.ProgramID || now.Image != image {
		t.Errorf("%+v replaced %+v", now, s.Program)
	}
	m.check(m.blixt.Stop())
	m.nothingLeft()
}
