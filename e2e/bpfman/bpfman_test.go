// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package bpfman

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// TestBpfmanLoads has bpfman load, attach and unload.
func TestBpfmanLoads(t *testing.T) {
	m := labtest.NewManaged(t, "bpfman", 3)
	m.Check(m.Blixt.Start())
	m.CheckCarries()

	s := m.Status()
	if s.Program.Loader != "bpfman" || !strings.HasPrefix(s.Program.Digest, "sha256:") || len(s.Program.Links) != 4 {
		t.Errorf("status says %+v", s.Program)
	}
	for _, dev := range []string{"eth0", "eth1"} {
		if ids := m.Programs(dev); len(ids) != 2 || uint32(ids[0]) != s.Program.ProgramID || ids[0] != ids[1] {
			t.Errorf("%s has programs %v, want %d twice", dev, ids, s.Program.ProgramID)
		}
	}
	text, err := m.Blixt.Run("status")
	m.Check(err)
	if !strings.Contains(text, "Loaded by bpfman from "+s.Program.Digest) || !strings.Contains(text, "Attached to eth0 (") {
		t.Errorf("status prints\n%s", text)
	}
	list, err := m.Bpfman.Run("list", "links")
	m.Check(err)
	for _, l := range s.Program.Links {
		if !strings.Contains(list, fmt.Sprint(l.ID)) {
			t.Errorf("bpfman does not list link %d of %s %s:\n%s", l.ID, l.Interface, l.Direction, list)
		}
	}
	m.CheckChecksums()
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}

// TestBpfmanAttachesToWhatComesUp has Blixt choose the interfaces, of which some come
// up and go down.
func TestBpfmanAttachesToWhatComesUp(t *testing.T) {
	m := labtest.NewManaged(t, "bpfman-up", 1)
	m.Blixt.Args = slices.DeleteFunc(m.Blixt.Args, func(arg string) bool { return arg == "--interface" || strings.HasPrefix(arg, "eth") })
	m.Check(m.Blixt.Start())
	for _, step := range []struct {
		command string
		links   int
	}{
		{"link add extra type veth peer name other", 0},
		{"link set extra up", 2},
		{"link set extra down", 2}, // what comes first when it is up again must not reach the host
		{"link set extra up", 2},
		{"link set extra name renamed", 0},
		{"link set renamed name extra", 2},
		{"link del extra", 0},
		{"link add extra up type veth peer name other", 2}, // another interface of that name
		{"link del extra", 0},
	} {
		m.Balancer.IP(step.command)
		m.Check(m.Err())
		m.Check(lab.Eventually(labtest.Patience, func() error {
			n := 0
			for _, l := range m.Status().Program.Links {
				if l.Interface == "extra" {
					n++
				}
			}
			if n != step.links {
				return fmt.Errorf("%s: %d links, want %d", step.command, n, step.links)
			}
			return nil
		}))
	}
	m.CheckCarries()
	m.Check(lab.Eventually(labtest.Patience, func() error {
		list, err := m.Bpfman.Run("list", "links")
		if err == nil && strings.Contains(list, "extra") {
			err = fmt.Errorf("bpfman lists\n%s", list)
		}
		return err
	}))
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}

// TestBpfmanProgramOutlivesBothProcesses kills Blixt, bpfman, and both, while
// connections are in use.
func TestBpfmanProgramOutlivesBothProcesses(t *testing.T) {
	m := labtest.NewManaged(t, "bpfman-kill", 3)
	m.Check(m.Blixt.Start())
	tcp := m.StartClients(60, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	udp := m.StartClients(20, "udp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	before := m.Status()
	links := func() string {
		t.Helper()
		list, err := m.Bpfman.Run("list", "links")
		m.Check(err)
		return list
	}
	listed := links()
	unharmed := func(what string) {
		t.Helper()
		tcp.CheckUnharmed(what)
		udp.CheckUnharmed(what)
		m.CheckCarries()
		after := m.Status()
		if before.Program.ProgramID != after.Program.ProgramID || !reflect.DeepEqual(before.Program.Links, after.Program.Links) {
			t.Errorf("%s: %+v was replaced by %+v", what, before.Program, after.Program)
		}
	}
	m.Check(m.Blixt.Kill())
	unharmed("no blixt")
	m.Check(m.Blixt.Start())
	unharmed("a new blixt")
	if !strings.Contains(m.Blixt.Log(), fmt.Sprintf("adopted program %d", before.Program.ProgramID)) {
		t.Error("blixt does not say that it adopted the program")
	}

	m.Check(m.Bpfman.Kill())
	unharmed("no bpfman")
	next := labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, m.Backends[0], m.Backends[1], m.Backends[2], m.Balancer)})
	m.Check(m.Blixt.Apply(next)) // which does not need bpfman
	m.Check(m.Blixt.Apply(m.Config))
	m.Check(m.Bpfman.Start())
	unharmed("a new bpfman")
	if now := links(); now != listed {
		t.Errorf("bpfman lists links\n%s, before it was killed\n%s", now, listed)
	}

	m.Check(m.Blixt.Kill())
	m.Check(m.Bpfman.Kill())
	unharmed("neither")
	m.Check(m.Bpfman.Start())
	m.Blixt.Args = append(m.Blixt.Args, "--keep")
	m.Check(m.Blixt.Start())
	unharmed("both again")
	m.Check(m.Blixt.Stop())
	unharmed("told to keep")
	m.Blixt.Args = m.Blixt.Args[:len(m.Blixt.Args)-1]
	m.Check(m.Blixt.Start())
	tcp.Stop()
	udp.Stop()
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}

// TestBpfmanFailureIsUndone has each step fail that can.
func TestBpfmanFailureIsUndone(t *testing.T) {
	m := labtest.NewManaged(t, "bpfman-fail", 1)
	args := m.Blixt.Args
	for _, c := range []struct {
		name string
		args []string
		says []string
	}{
		{"no socket", []string{"--bpfman-socket", "/run/nobody.sock"}, []string{"no bpfman at /run/nobody.sock", "is bpfman running?"}},
		{"no such namespace", []string{"--netns", "/run/netns/nosuch"}, []string{"attach to eth0 egress: bpfman: attach program", "No such file", "--netns"}},
		{"another namespace", []string{"--netns", m.Client.Path()}, []string{"attach to eth0 egress", "another network namespace", "--netns"}},
		{"a priority of nobody", []string{"--priority", "1001"}, []string{"priority 1001: want 1 to 1000"}},
		{"a size of nothing", []string{"--flows", "1"}, []string{"1 flows: want"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &labtest.Managed{World: m.In(t), Bpfman: m.Bpfman}
			m.Blixt.Args = slices.Concat(args, c.args)
			err := m.Blixt.Start()
			m.CheckRefused(err, c.says...)
			m.CheckNothingLeft()
		})
	}
	t.Run("bpfman gone at the end", func(t *testing.T) {
		m := &labtest.Managed{World: m.In(t), Bpfman: m.Bpfman}
		m.Blixt.Args = args
		m.Check(m.Blixt.Start())
		m.Check(m.Bpfman.Kill())
		if err := m.Blixt.Stop(); err == nil || !strings.Contains(m.Blixt.Log(), "still serves") {
			t.Errorf("%v: %s", err, m.Blixt.Log())
		}
		m.Check(m.Bpfman.Start())
		m.Check(m.Blixt.Start()) // it adopts the program
		m.CheckCarries()
		m.Check(m.Blixt.Stop())
		m.CheckNothingLeft()
	})
}

// TestBpfmanLinksAreFoundWithoutANote deletes the file that records which link is
// which.
func TestBpfmanLinksAreFoundWithoutANote(t *testing.T) {
	m := labtest.NewManaged(t, "bpfman-note", 1)
	m.Check(m.Blixt.Start())
	clients := m.StartClients(20, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	before := m.Status()
	m.Check(m.Blixt.Kill())
	m.Check(os.Remove(filepath.Join(loader.DefaultRunDir, m.Blixt.Name+".bpfman.json")))
	m.Check(m.Blixt.Start())
	clients.CheckUnharmed("no note")
	after := m.Status()
	if before.Program.ProgramID != after.Program.ProgramID || len(after.Program.Links) != 4 {
		t.Errorf("%+v was replaced by %+v", before.Program, after.Program)
	}
	list, err := m.Bpfman.Run("list", "links")
	m.Check(err)
	if n := strings.Count(list, "gress"); n != 4 {
		t.Errorf("bpfman lists %d links, want 4:\n%s", n, list)
	}
	clients.Stop()
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}
