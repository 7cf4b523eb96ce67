// SPDX-License-Identifier: Apache-2.0

// Package hostpage is what a page shows of a host: what its load balancer says of itself,
// what its files declare, and what is served of that.
package hostpage

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// Options are of what load balancer a page is.
type Options struct {
	Inside *standalone.Inside
	// BPFFS is where its program is pinned.
	BPFFS string
}

// Source implements page.Source for a host.
type Source struct {
	observe.Local
	o      Options
	reader overview.Reader
	kernel string

	mu       sync.Mutex
	declared declared
	host     *overview.Host
	read     time.Time // when host was read
}

var _ page.Source = (*Source)(nil)

// New returns the source of a page.
func New(o Options) *Source {
	return &Source{
		o:      o,
		Local:  observe.Local{Answerer: o.Inside.Answerer()},
		reader: overview.Reader{BPFFS: o.BPFFS, RunDir: o.Inside.RunDir()},
		kernel: kernel(),
	}
}

// hostEvery is how often the host is examined while somebody looks.
const hostEvery = 10 * time.Second

// Overview implements page.Source.
func (s *Source) Overview(context.Context) (*page.Overview, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.host == nil || now.Sub(s.read) >= hostEvery {
		s.host, s.read = s.reader.Read(), now
	}
	found := s.host.Check()
	if found == nil {
		found = []finding.Finding{}
	}
	s.declared.update(s.o.Inside.Declared())
	o := &page.Overview{
		Kind: "host", Name: s.o.Inside.Name(), Version: s.o.Inside.Version(),
		Status:   page.Status{Verdict: finding.Verdict(found), Findings: found},
		Gateways: s.declared.gateways,
		Nodes:    []page.Node{s.node(found)},
	}
	return o, nil
}

// node returns the host as the only node.
func (s *Source) node(found []finding.Finding) page.Node {
	n := page.Node{Name: s.o.Inside.Name(), Verdict: finding.Verdict(found), Version: s.o.Inside.Version(), Kernel: s.kernel}
	if len(found) > 0 && n.Verdict != finding.OK {
		n.Reason = found[0].Seen
	}
	for _, i := range s.host.Instances {
		if i.Name == s.o.Inside.Name() && i.Program != nil {
			n.Frontends, n.Backends, n.Flows = i.Program.Frontends, i.Program.Backends, i.Program.Flows
		}
	}
	return n
}

// kernel returns the release of the kernel.
func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
