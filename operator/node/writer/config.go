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
	c.Flags &^= datapath.ConfigUpgrading | datapath.ConfigSampleDrops
	if w.o.Upgrading {
		c.Flags |= datapath.ConfigUpgrading
	}
	if w.o.SampleDrops {
		c.Flags |= datapath.ConfigSampleDrops
	}
	c = withPorts(c, w.o.SNAT)
	if w.o.Seed != nil {
		c.Seed = *w.o.Seed
	}
	c.MasqueradeMark = w.o.MasqueradeMark
	c.Node4, c.Node6 = first(w.o.HostAddresses, netip.Addr.Is4), first(w.o.HostAddresses, netip.Addr.Is6)
	return c
}

// withPorts returns c with other source ports. Flows keep theirs, so ports_min and
// ports_max enclose all that there ever were, from the first change on.
func withPorts(c datapath.Config, ports lb.PortRange) datapath.Config {
	if c.PortsMax == 0 && c.SnatMax != 0 && (lb.PortRange{First: c.SnatMin, Last: c.SnatMax}) != ports {
		c.PortsMin, c.PortsMax = c.SnatMin, c.SnatMax
	}
	if c.PortsMax != 0 {
		c.PortsMin, c.PortsMax = min(c.PortsMin, ports.First), max(c.PortsMax, ports.Last)
	}
	c.SnatMin, c.SnatMax = ports.First, ports.Last
	return c
}

// withState returns c with the fields that belong to the target: the quota, and
// which ports have no UDP frontend on an address that the host shares.
func (w *Writer) withState(c datapath.Config) datapath.Config {
	q := quota(w.tables.Sizes().Flows, w.target.TCPFrontends())
	c.FlowsNearlyFull, c.FlowsShare = q.NearlyFull, q.Share
	if keys := w.target.Keys(); w.unserved.keys != keys {
		w.unserved.keys = keys
		for i := range w.unserved.udp {
			w.unserved.udp[i] = ^uint64(0)
		}
		for port := range w.target.SharedUDPPorts() {
			hash := bpf.PortHash(port)
			w.unserved.udp[hash/64] &^= 1 << (hash % 64)
		}
	}
	c.UnservedUdp = w.unserved.udp
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
	same := hashText(c.StateHash) == w.record.Hash && w.withState(w.mergeOptions(c)) == c &&
		versionOf(c) == w.record.Version
	if same && w.contents != nil {
		if same, err = w.contents.Same(w.tables); err != nil {
			return false, fmt.Errorf("read maps: %w", err)
		}
	}
	if !same {
		w.contents = nil
	}
	return same, nil
}
