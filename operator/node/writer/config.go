// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// mergeOptions returns c with the fields that come from options. The fields
// that come from a state (see withState), and the drain flag, are kept.
func (w *Writer) mergeOptions(c datapath.Config) datapath.Config {
	c.SnatMin, c.SnatMax = w.o.SNAT.First, w.o.SNAT.Last
	if w.o.Seed != nil {
		c.Seed = *w.o.Seed
	}
	c.Node4, c.Node6 = first(w.o.HostAddresses, netip.Addr.Is4), first(w.o.HostAddresses, netip.Addr.Is6)
	return c
}

// withState returns c with the fields that belong to a state: the quota, and which
// ports have no UDP frontend on an address that the host shares.
func (w *Writer) withState(c datapath.Config, s *lb.State) datapath.Config {
	q := quota(w.tables.Sizes().Flows, s)
	c.FlowsNearlyFull, c.FlowsShare = q.NearlyFull, q.Share
	shared := map[netip.Addr]bool{}
	for _, a := range s.Addresses {
		shared[a.IP] = !a.Exclusive
	}
	for i := range c.UnservedUdp {
		c.UnservedUdp[i] = ^uint64(0)
	}
	for _, f := range s.Frontends {
		if f.Protocol == lb.UDP && shared[f.Addr] {
			hash := bpf.PortHash(f.Port)
			c.UnservedUdp[hash/64] &^= 1 << (hash % 64)
		}
	}
	return c
}

// first returns the first address of a family, or the zero address.
func first(addresses []netip.Addr, is func(netip.Addr) bool) bpf.BlixtAddr {
	if i := slices.IndexFunc(addresses, is); i >= 0 {
		return datapath.ToAddr(addresses[i])
	}
	return bpf.BlixtAddr{}
}

// unchanged reports whether the maps still hold what was last applied.
func (w *Writer) unchanged() (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, err := w.tables.Config()
	if err != nil {
		return false, fmt.Errorf("read config: %w", err)
	}
	if w.record.Hash == "" { // nothing has been applied yet
		return true, nil
	}
	same := hashText(c.StateHash) == w.record.Hash && w.withState(w.mergeOptions(c), &w.record.State) == c &&
		lb.Version{Epoch: c.Epoch, Sequence: c.Sequence} == w.record.Version
	if same && w.contents != nil {
		if same, err = w.contents.Same(w.tables, w.o.Clock()); err != nil {
			return false, fmt.Errorf("read maps: %w", err)
		}
	}
	if !same {
		w.contents = nil
	}
	return same, nil
}
