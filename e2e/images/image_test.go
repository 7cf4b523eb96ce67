// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package images

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestBpfmanPullsTheImage has Blixt name an image to bpfman by its digest.
func TestBpfmanPullsTheImage(t *testing.T) {
	m := labtest.NewManaged(t, "bpfman-image", 2)
	registry := startRegistry(m)
	image := registry.push("blixt/bytecode")
	args := m.Blixt.Args
	m.Blixt.Args = append(args, "--bytecode", image, "--ca-file", registry.ca)
	// bpfman does not trust the registry because Blixt does.
	m.CheckRefused(m.Blixt.Start(), "bpfman: load "+image, "Failed to pull", "with a certificate that its machine trusts")
	m.CheckNothingLeft()
	registry.trust()
	m.Blixt.Args[len(m.Blixt.Args)-1] = registry.ca
	m.Check(m.Blixt.Start())
	m.CheckCarries()
	s := m.Status()
	if s.Program.Image != image {
		t.Errorf("status says that it was read from %q, want %q", s.Program.Image, image)
	}
	got, err := m.Bpfman.Run("get", "program", fmt.Sprint(s.Program.ProgramID))
	m.Check(err)
	if !strings.Contains(got, image) {
		t.Errorf("bpfman has not pulled %s:\n%s", image, got)
	}
	// The same object in a file is not another version.
	m.Check(m.Blixt.Kill())
	m.Blixt.Args = append(args, "--bytecode", filepath.Join(m.Dir(), "out"))
	m.Check(m.Blixt.Start())
	if now := m.Status().Program; now.ProgramID != s.Program.ProgramID || now.Image != image {
		t.Errorf("%+v replaced %+v", now, s.Program)
	}
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}
