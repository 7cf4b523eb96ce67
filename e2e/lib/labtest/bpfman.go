// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package labtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// Managed is a World in which bpfman loads the data plane.
type Managed struct {
	*World
	Bpfman *lab.Bpfman
}

// TrustFile is the name of the file in the lab's directory that has the certificates
// bpfman trusts.
const TrustFile = "trusted.crt"

// NewManaged makes the network and starts bpfman. Blixt is prepared but not started.
func NewManaged(t *testing.T, name string, backends int) *Managed {
	t.Helper()
	w := New(t, name, backends, 0)
	w.Config = ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)})
	return Manage(w)
}

// Manage starts bpfman in a network. Blixt is prepared but not started, with w.Config.
func Manage(w *World) *Managed {
	w.Helper()
	manager, err := w.Bpfman("SSL_CERT_FILE=" + filepath.Join(w.Dir(), TrustFile))
	w.Check(err)
	w.Cleanup(func() {
		if w.Failed() {
			w.Logf("bpfman said:\n%s", manager.Log())
		}
	})
	b, err := w.Standard.Blixt(w.Balancer, Binary, w.Config)
	w.Check(err)
	// Blixt needs no more: it assigns addresses and lists links.
	b.Via = append(manager.Via(), "setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all,+net_admin")
	b.Args = []string{"--node-name", "balancer", "--flows", "65536", "--loader", "bpfman", "--interface", "eth0", "--interface", "eth1"}
	w.Blixt = b
	return &Managed{World: w, Bpfman: manager}
}

// CheckNothingLeft fails the test if bpfman still has a program of ours, or the kernel
// a link.
func (m *Managed) CheckNothingLeft() {
	m.Helper()
	list, err := m.Bpfman.Run("list", "programs")
	m.Check(err)
	if strings.Contains(list, "blixt") {
		m.Errorf("bpfman still has\n%s", list)
	}
	for _, dev := range []string{"lo", "eth0", "eth1"} {
		// bpfman closes links without detaching: the kernel has a worker free them.
		m.Check(lab.Eventually(Patience, func() error {
			if ids := m.Programs(dev); len(ids) > 0 {
				return fmt.Errorf("%s has programs %v", dev, ids)
			}
			return nil
		}))
	}
	pins, err := os.ReadDir(m.Bpfman.Path("/run/bpfman/fs/maps"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(pins) > 0 {
		m.Errorf("maps are left: %v, %v", pins, err)
	}
	if _, err := os.Stat(lab.Pins(m.Blixt.Name)); !errors.Is(err, fs.ErrNotExist) {
		m.Errorf("pins of the built-in loader: %v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(loader.DefaultRunDir, m.Blixt.Name+".*")); len(files) > 0 {
		m.Errorf("files %v", files)
	}
}

// CheckCarries sends both protocols in both families, and fails the test unless Blixt
// has counted each flow.
func (m *Managed) CheckCarries() {
	m.Helper()
	before := m.Status()
	const flows, questions = 5, 4
	for _, network := range []string{"tcp", "udp"} {
		for _, family := range []int{4, 6} {
			for range flows {
				c := m.Dial(m.Client, network, VIP(family, 80))
				for i := range questions {
					m.Ask(c, fmt.Sprintf("question %d", i))
				}
			}
		}
	}
	after := m.Status()
	for _, network := range []string{"tcp", "udp"} {
		for _, family := range []int{4, 6} {
			f, g := m.Frontend(before, network, VIP(family, 80)), m.Frontend(after, network, VIP(family, 80))
			if n := g.NewFlows - f.NewFlows; n != flows {
				m.Errorf("%s: %d new flows, want %d", f.Frontend, n, flows)
			}
			if to, back := g.Packets-f.Packets, g.ReplyPackets-f.ReplyPackets; to < flows*questions || back < flows*questions {
				m.Errorf("%s: %d packets to and %d from backends, want %d", f.Frontend, to, back, flows*questions)
			}
		}
	}
	if n := Rise(before, after, "flow_new"); n != 4*flows {
		m.Errorf("flow_new rose by %d, want %d", n, 4*flows)
	}
}

// CheckRefused fails the test unless Blixt ended with an error that has all these
// words.
func (m *Managed) CheckRefused(err error, says ...string) {
	m.Helper()
	if err == nil {
		m.Fatal("blixt starts")
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			m.Errorf("%v\ndoes not say %q", err, text)
		}
	}
	m.Check(m.Blixt.Kill()) // that it has ended is known
}

// CheckChain fails the test unless exactly these programs are at every hook, in this
// order.
func (m *Managed) CheckChain(what string, ids ...uint32) {
	m.Helper()
	var want []ebpf.ProgramID
	for range 2 { // ingress and egress
		for _, id := range ids {
			want = append(want, ebpf.ProgramID(id))
		}
	}
	for _, dev := range []string{"eth0", "eth1"} {
		// A link that bpfman has closed ends a moment later.
		m.Check(lab.Eventually(Patience, func() error {
			if got := m.Programs(dev); !slices.Equal(got, want) {
				return fmt.Errorf("%s: %s has programs %v, want %v", what, dev, got, want)
			}
			return nil
		}))
	}
	list, err := m.Bpfman.Run("list", "links")
	m.Check(err)
	if n := strings.Count(list, "gress"); n != 4*len(ids) {
		m.Errorf("%s: bpfman lists %d links, want %d:\n%s", what, n, 4*len(ids), list)
	}
}
