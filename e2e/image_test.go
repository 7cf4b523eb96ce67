// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// startRegistry starts one that Blixt and bpfman find at the same address, as
// each has a socket in its own network. Returns the address.
func (m *managed) startRegistry() (addr, ca string) {
	m.Helper()
	quiet := log.New(io.Discard, "", 0)
	handler := registry.New(registry.Logger(quiet))
	addr, ca = "127.0.0.1:0", filepath.Join(m.Dir(), "registry.crt")
	for _, listen := range []func(network, addr string) (net.Listener, error){m.bpfman.Listen, m.Balancer.Listen} {
		l, err := listen("tcp", addr)
		m.check(err)
		s := httptest.NewUnstartedServer(handler)
		m.check(s.Listener.Close())
		s.Listener, s.Config.ErrorLog = l, quiet
		s.StartTLS()
		m.Cleanup(s.Close)
		addr = l.Addr().String()
		m.check(os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644))
	}
	return addr, ca
}

// TestBpfmanPullsTheImage has Blixt name an image to bpfman by its digest.
func TestBpfmanPullsTheImage(t *testing.T) {
	m := newManaged(t, "bpfman-image", 2)
	registry, ca := m.startRegistry()
	out := filepath.Join(m.Dir(), "out")
	_, err := m.Balancer.Run(patience, executable, "bytecode", "build", "-d", out, "--flows", "65536")
	m.check(err)
	image, err := m.Balancer.Run(patience, executable, "bytecode", "push", out, registry+"/blixt/bytecode:v1", "--ca-file", ca)
	m.check(err)
	image = strings.TrimSpace(image)
	args := m.blixt.Args
	m.blixt.Args = append(args, "--bytecode", image, "--ca-file", ca)
	// That Blixt trusts the registry does not make bpfman do so.
	m.refuses(m.blixt.Start(), "bpfman: load "+image, "Failed to pull", "with a certificate that its machine trusts")
	m.nothingLeft()
	m.check(m.bpfman.Kill())
	m.check(os.Rename(ca, filepath.Join(m.Dir(), trusted)))
	m.check(m.bpfman.Start())
	m.blixt.Args[len(m.blixt.Args)-1] = filepath.Join(m.Dir(), trusted)
	m.check(m.blixt.Start())
	m.carries()
	s := m.status()
	got, err := m.bpfman.Run("get", "program", fmt.Sprint(s.Program.ProgramID))
	m.check(err)
	if !strings.Contains(got, image) {
		t.Errorf("bpfman has not pulled %s:\n%s", image, got)
	}
	// The same object handed over as a file is no other version.
	m.check(m.blixt.Kill())
	m.blixt.Args = append(args, "--bytecode", out)
	m.check(m.blixt.Start())
	if now := m.status().Program; now.ProgramID != s.Program.ProgramID {
		t.Errorf("program %d replaced %d", now.ProgramID, s.Program.ProgramID)
	}
	m.check(m.blixt.Stop())
	m.nothingLeft()
}
