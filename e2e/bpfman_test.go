// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// managed is a world in which bpfman loads the data plane.
type managed struct {
	*world
	bpfman *lab.Bpfman
}

// trusted is the file in the lab's directory with what bpfman trusts.
const trusted = "trusted.crt"

// newManaged makes one, with Blixt prepared but not started.
func newManaged(t *testing.T, name string, backends int) *managed {
	t.Helper()
	w := newWorld(t, name, backends, 0)
	manager, err := w.Bpfman("SSL_CERT_FILE=" + filepath.Join(w.Dir(), trusted))
	w.check(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("bpfman said:\n%s", manager.Log())
		}
	})
	c := serve(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)})
	b, err := w.Standard.Blixt(w.Balancer, executable, c)
	w.check(err)
	// All that is left to do for Blixt: addresses, and looking at links.
	b.Via = append(manager.Via(), "setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+net_admin")
	b.Args = []string{"--node-name", "balancer", "--flows", "65536", "--loader", "bpfman", "--interface", "eth0", "--interface", "eth1"}
	w.blixt, w.config = b, c
	return &managed{world: w, bpfman: manager}
}

// nothingLeft fails the test if bpfman has a program of ours, or the kernel a link.
func (m *managed) nothingLeft() {
	m.Helper()
	list, err := m.bpfman.Run("list", "programs")
	m.check(err)
	if strings.Contains(list, "blixt") {
		m.Errorf("bpfman still has\n%s", list)
	}
	for _, dev := range []string{"lo", "eth0", "eth1"} {
		// bpfman closes links without detaching: the kernel has a worker free them.
		m.check(lab.Eventually(patience, func() error {
			if ids := m.programs(dev); len(ids) > 0 {
				return fmt.Errorf("%s has programs %v", dev, ids)
			}
			return nil
		}))
	}
	pins, err := os.ReadDir(m.bpfman.Path("/run/bpfman/fs/maps"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(pins) > 0 {
		m.Errorf("maps are left: %v, %v", pins, err)
	}
	if _, err := os.Stat(lab.Pins(m.blixt.Name)); !errors.Is(err, fs.ErrNotExist) {
		m.Errorf("pins of the built-in loader: %v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(loader.DefaultRunDir, m.blixt.Name+".*")); len(files) > 0 {
		m.Errorf("files %v", files)
	}
}

// carries sends both protocols in both families, and fails the test unless
// each flow was Blixt's doing.
func (m *managed) carries() {
	m.Helper()
	before := m.status()
	const flows, questions = 5, 4
	for _, network := range []string{"tcp", "udp"} {
		for _, family := range []int{4, 6} {
			for range flows {
				c := m.dial(m.Client, network, vip(family, 80))
				for i := range questions {
					m.ask(c, fmt.Sprintf("question %d", i))
				}
			}
		}
	}
	after := m.status()
	for _, network := range []string{"tcp", "udp"} {
		for _, family := range []int{4, 6} {
			f, g := m.frontend(before, network, vip(family, 80)), m.frontend(after, network, vip(family, 80))
			if n := g.NewFlows - f.NewFlows; n != flows {
				m.Errorf("%s: %d new flows, want %d", f.Frontend, n, flows)
			}
			if to, back := g.Packets-f.Packets, g.ReplyPackets-f.ReplyPackets; to < flows*questions || back < flows*questions {
				m.Errorf("%s: %d packets to and %d from backends, want %d", f.Frontend, to, back, flows*questions)
			}
		}
	}
	if n := rise(before, after, "flow_new"); n != 4*flows {
		m.Errorf("flow_new rose by %d, want %d", n, 4*flows)
	}
}

// TestBpfmanLoads has bpfman load, attach and unload.
func TestBpfmanLoads(t *testing.T) {
	m := newManaged(t, "bpfman", 3)
	m.check(m.blixt.Start())
	m.carries()

	s := m.status()
	if s.Program.Loader != "bpfman" || !strings.HasPrefix(s.Program.Digest, "sha256:") || len(s.Program.Links) != 4 {
		t.Errorf("status says %+v", s.Program)
	}
	for _, dev := range []string{"eth0", "eth1"} {
		if ids := m.programs(dev); len(ids) != 2 || uint32(ids[0]) != s.Program.ProgramID || ids[0] != ids[1] {
			t.Errorf("%s has programs %v, want %d twice", dev, ids, s.Program.ProgramID)
		}
	}
	text, err := m.blixt.Run("status")
	m.check(err)
	if !strings.Contains(text, "Loaded by bpfman from "+s.Program.Digest) || !strings.Contains(text, "Attached to eth0 (") {
		t.Errorf("status prints\n%s", text)
	}
	list, err := m.bpfman.Run("list", "links")
	m.check(err)
	for _, l := range s.Program.Links {
		if !strings.Contains(list, fmt.Sprint(l.ID)) {
			t.Errorf("bpfman does not list link %d of %s %s:\n%s", l.ID, l.Interface, l.Direction, list)
		}
	}
	m.noChecksumErrors()
	m.check(m.blixt.Stop())
	m.nothingLeft()
}

// TestBpfmanAttachesToWhatComesUp leaves the choice of interfaces to Blixt.
func TestBpfmanAttachesToWhatComesUp(t *testing.T) {
	m := newManaged(t, "bpfman-up", 1)
	m.blixt.Args = slices.DeleteFunc(m.blixt.Args, func(arg string) bool { return arg == "--interface" || strings.HasPrefix(arg, "eth") })
	m.check(m.blixt.Start())
	for _, step := range []struct {
		command string
		links   int
	}{
		{"link add extra type veth peer name other", 0},
		{"link set extra up", 2},
		{"link set extra down", 0},
		{"link set extra up", 2},
		{"link set extra name renamed", 0},
		{"link set renamed name extra", 2},
		{"link del extra", 0},
		{"link add extra up type veth peer name other", 2}, // not the one of before
		{"link del extra", 0},
	} {
		m.Balancer.IP(step.command)
		m.check(m.Err())
		m.check(lab.Eventually(patience, func() error {
			n := 0
			for _, l := range m.status().Program.Links {
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
	m.carries()
	m.check(lab.Eventually(patience, func() error {
		list, err := m.bpfman.Run("list", "links")
		if err == nil && strings.Contains(list, "extra") {
			err = fmt.Errorf("bpfman lists\n%s", list)
		}
		return err
	}))
	m.check(m.blixt.Stop())
	m.nothingLeft()
}

// TestBpfmanProgramOutlivesBothProcesses kills Blixt and bpfman, in turn and
// both, while connections are in use all the time.
func TestBpfmanProgramOutlivesBothProcesses(t *testing.T) {
	m := newManaged(t, "bpfman-kill", 3)
	m.check(m.blixt.Start())
	tcp := m.newCrowd(60, "tcp", vip(4, 80), vip(6, 80))
	udp := m.newCrowd(20, "udp", vip(4, 80), vip(6, 80))
	before := m.status()
	links := func() string {
		t.Helper()
		list, err := m.bpfman.Run("list", "links")
		m.check(err)
		return list
	}
	listed := links()
	unharmed := func(what string) {
		t.Helper()
		tcp.unharmed(what)
		udp.unharmed(what)
		m.carries()
		after := m.status()
		if before.Program.ProgramID != after.Program.ProgramID || !slices.Equal(before.Program.Links, after.Program.Links) {
			t.Errorf("%s: %+v was replaced by %+v", what, before.Program, after.Program)
		}
	}
	m.check(m.blixt.Kill())
	unharmed("no blixt")
	m.check(m.blixt.Start())
	unharmed("a new blixt")
	if !strings.Contains(m.blixt.Log(), fmt.Sprintf("adopted program %d", before.Program.ProgramID)) {
		t.Error("blixt does not say that it adopted the program")
	}

	m.check(m.bpfman.Kill())
	unharmed("no bpfman")
	next := serve(map[int][]lab.Endpoint{80: lab.Endpoints(8080, m.Backends[0], m.Backends[1], m.Backends[2], m.Balancer)})
	m.check(m.blixt.Apply(next)) // which is no business of bpfman
	m.check(m.blixt.Apply(m.config))
	m.check(m.bpfman.Start())
	unharmed("a new bpfman")
	if now := links(); now != listed {
		t.Errorf("bpfman lists links\n%s, before it was killed\n%s", now, listed)
	}

	m.check(m.blixt.Kill())
	m.check(m.bpfman.Kill())
	unharmed("neither")
	m.check(m.bpfman.Start())
	m.blixt.Args = append(m.blixt.Args, "--keep")
	m.check(m.blixt.Start())
	unharmed("both again")
	m.check(m.blixt.Stop())
	unharmed("told to keep")
	m.blixt.Args = m.blixt.Args[:len(m.blixt.Args)-1]
	m.check(m.blixt.Start())
	tcp.end()
	udp.end()
	m.check(m.blixt.Stop())
	m.nothingLeft()
}

// TestBpfmanFailureIsUndone fails at every step that can.
func TestBpfmanFailureIsUndone(t *testing.T) {
	m := newManaged(t, "bpfman-fail", 1)
	args := m.blixt.Args
	for _, c := range []struct {
		name string
		args []string
		says []string
	}{
		{"no socket", []string{"--bpfman-socket", "/run/nobody.sock"}, []string{"no bpfman at /run/nobody.sock", "is bpfman running?"}},
		{"no such interface", []string{"--interface", "nosuch"}, []string{"attach to nosuch"}},
		{"no such namespace", []string{"--netns", "/run/netns/nosuch"}, []string{"attach to eth0 egress: bpfman: attach program", "No such file", "--netns"}},
		{"another namespace", []string{"--netns", m.Client.Path()}, []string{"attach to eth0 egress", "another network namespace", "--netns"}},
		{"a priority of nobody", []string{"--priority", "1001"}, []string{"priority 1001: want 1 to 1000"}},
		{"a size of nothing", []string{"--flows", "1"}, []string{"1 flows: want"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &managed{world: m.in(t), bpfman: m.bpfman}
			m.blixt.Args = slices.Concat(args, c.args)
			err := m.blixt.Start()
			m.refuses(err, c.says...)
			m.nothingLeft()
		})
	}
	t.Run("bpfman gone at the end", func(t *testing.T) {
		m := &managed{world: m.in(t), bpfman: m.bpfman}
		m.blixt.Args = args
		m.check(m.blixt.Start())
		m.check(m.bpfman.Kill())
		if err := m.blixt.Stop(); err == nil || !strings.Contains(m.blixt.Log(), "still serves") {
			t.Errorf("%v: %s", err, m.blixt.Log())
		}
		m.check(m.bpfman.Start())
		m.check(m.blixt.Start()) // and it is there to be taken over
		m.carries()
		m.check(m.blixt.Stop())
		m.nothingLeft()
	})
}

// refuses fails the test unless blixt ended with an error that says all this.
func (m *managed) refuses(err error, says ...string) {
	m.Helper()
	if err == nil {
		m.Fatal("blixt starts")
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			m.Errorf("%v\ndoes not say %q", err, text)
		}
	}
	m.check(m.blixt.Kill()) // that it has ended is known
}

// TestBpfmanLinksAreFoundWithoutANote loses the only word of which link is which.
func TestBpfmanLinksAreFoundWithoutANote(t *testing.T) {
	m := newManaged(t, "bpfman-note", 1)
	m.check(m.blixt.Start())
	crowd := m.newCrowd(20, "tcp", vip(4, 80), vip(6, 80))
	before := m.status()
	m.check(m.blixt.Kill())
	m.check(os.Remove(filepath.Join(loader.DefaultRunDir, m.blixt.Name+".bpfman.json")))
	m.check(m.blixt.Start())
	crowd.unharmed("no note")
	after := m.status()
	if before.Program.ProgramID != after.Program.ProgramID || len(after.Program.Links) != 4 {
		t.Errorf("%+v was replaced by %+v", before.Program, after.Program)
	}
	list, err := m.bpfman.Run("list", "links")
	m.check(err)
	if n := strings.Count(list, "gress"); n != 4 {
		t.Errorf("bpfman lists %d links, want 4:\n%s", n, list)
	}
	crowd.end()
	m.check(m.blixt.Stop())
	m.nothingLeft()
}
