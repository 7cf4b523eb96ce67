// SPDX-License-Identifier: Apache-2.0

// Package hostpage is what a page shows of a host: what its load balancer says of itself,
// what its files declare, and what is served of that.
package hostpage

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/overview"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
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
	kernel string

	mu       sync.Mutex
	reader   overview.Reader
	declared *standalone.Declared
	gateways []page.Declared // of declared, in the order of names
}

var _ page.Source = (*Source)(nil)

// New returns the source of a page.
func New(o Options) *Source {
	return &Source{
		o: o, kernel: kernel(), Local: observe.Local{Node: cmp.Or(o.Inside.NodeName(), o.Inside.Name()), Answerer: o.Inside.Answerer()},
		reader: overview.Reader{BPFFS: o.BPFFS, RunDir: o.Inside.RunDir()},
	}
}

// Overview implements page.Source.
func (s *Source) Overview(ctx context.Context) (*page.Overview, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	host := s.reader.ReadSelf(overview.Self{
		Name: s.o.Inside.Name(), Says: s.o.Inside.Status(), Report: func() (top.Report, error) { return s.report(ctx) },
	})
	found := host.Check()
	if found == nil {
		found = []finding.Finding{}
	}
	if now := s.o.Inside.Declared(); now != nil && now != s.declared {
		s.declared, s.gateways = now, newList(now)
	}
	verdict := finding.Verdict(found)
	return &page.Overview{
		Kind: "host", Name: s.o.Inside.Name(), Version: s.o.Inside.Version(),
		Status:   page.Status{Verdict: verdict, Findings: found},
		Gateways: withFlows(s.gateways, s.o.Inside.Active()),
		Nodes:    []page.Node{s.node(&host.Instances[0], verdict, found)},
	}, nil
}

// report asks this process about no Gateway.
func (s *Source) report(ctx context.Context) (r top.Report, err error) {
	err = s.Ask(ctx, observe.Query{Status: &observe.StatusQuery{Scope: &observe.Scope{}}}, func(_ string, piece json.RawMessage) error {
		return json.Unmarshal(piece, &r)
	})
	return r, err
}

// withFlows returns Gateways with how many flows they have.
func withFlows(all []page.Declared, flows map[string]uint64) []page.Declared {
	all = slices.Clone(all)
	if flows == nil { // nothing is served yet
		return all
	}
	active := make([]uint64, len(all))
	for i := range all {
		active[i] = flows[all[i].Name]
		all[i].Active = &active[i]
	}
	return all
}

// node returns the host as the only node.
func (s *Source) node(i *overview.Instance, verdict finding.Level, found []finding.Finding) page.Node {
	n := page.Node{Name: s.Node, Verdict: verdict, Version: s.o.Inside.Version(), Kernel: s.kernel}
	if verdict != finding.OK {
		n.Reason = found[0].Seen
	}
	if p := i.Program; p != nil {
		n.Frontends, n.Backends, n.Flows = p.Frontends, p.Backends, p.Flows
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
