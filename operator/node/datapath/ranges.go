// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// MaxPortRanges is how many ranges an address has room for, of one protocol.
const MaxPortRanges = int(bpf.BlixtLimitMAX_PORT_RANGES)

// rangeKey is the part of a frontend's key that ranges are by: Port is 0.
func rangeKey(k lb.Key) lb.Key { return lb.Key{Addr: k.Addr, Protocol: k.Protocol} }

// setPorts sets what an entry of `frontends` says about the ports of backends.
func setPorts(e *bpf.BlixtFrontend, f *lb.Frontend) {
	e.FirstPort = 0
	e.Flags &^= FrontendKeepPort | FrontendShiftPort
	switch {
	case f.Ports == nil:
	case f.Ports.Shift:
		e.FirstPort = f.Port
		e.Flags |= FrontendShiftPort
	default:
		e.Flags |= FrontendKeepPort
	}
}

// portRange returns the range of a frontend with Ports.
func portRange(key lb.Key, p *lb.Ports) bpf.BlixtPortRange {
	return bpf.BlixtPortRange{First: cmp.Or(p.First, key.Port), Last: p.Last, Port: ToPort(key.Port)}
}

// setRange records that the ranges of a frontend's address may change. If they are
// more than there is room for, all of them are planned anew.
func (t *Target) setRange(key lb.Key, old, now *lb.Frontend) {
	had, has := old != nil && old.Ports != nil, now != nil && now.Ports != nil
	if !had && !has || had && has && *old.Ports == *now.Ports {
		return
	}
	of := rangeKey(key)
	if has {
		if t.ranged[of] == nil {
			t.ranged[of] = map[lb.Key]bool{}
		}
		t.ranged[of][key] = true
	} else if delete(t.ranged[of], key); len(t.ranged[of]) == 0 {
		delete(t.ranged, of)
	}
	t.staleAddresses[key.Addr] = true
	t.keys++
	if len(t.ranged[of]) > MaxPortRanges {
		for other := range t.ranged[of] {
			t.staleFrontends[other] = true
		}
	}
}

// rangesOf returns the frontends of an address and protocol with ranges, in the order in
// which a port finds them: the smallest range first. So a range comes before all ports.
func (t *Target) rangesOf(of lb.Key) []lb.Key {
	size := func(k lb.Key) int { return t.frontends[k].Ports.Size(k.Port) }
	return slices.SortedFunc(maps.Keys(t.ranged[of]), func(a, b lb.Key) int {
		return cmp.Or(cmp.Compare(size(a), size(b)), a.Compare(b))
	})
}

// hasRange reports whether there is room for the range of a frontend.
func (t *Target) hasRange(key lb.Key) bool {
	all := t.rangesOf(rangeKey(key))
	return slices.Index(all, key) < MaxPortRanges
}

// mostRanges returns the largest number of ranges that an address has.
func (t *Target) mostRanges() (most int) {
	for _, all := range t.ranged {
		most = max(most, len(all))
	}
	return most
}

// withoutRange returns the frontend without a range that has no room.
func (p *planner) withoutRange(key lb.Key, f *lb.Frontend) *lb.Frontend {
	if f.Ports == nil || p.target.hasRange(key) {
		return f
	}
	fewer := *f
	fewer.Ports = nil
	return &fewer
}

// ranges returns the ranges of an address once the plan is carried out.
func (p *planner) ranges(of lb.Key) (all bpf.BlixtPortRanges, n int) {
	for _, key := range p.target.rangesOf(of) {
		s := cmp.Or(p.plan.served[key], p.have.Frontends[key])
		if s == nil || s.Source == nil || s.Source.Ports == nil || n == MaxPortRanges {
			continue // left out
		}
		all.Of[n] = portRange(key, s.Source.Ports)
		n++
	}
	return all, n
}

// addressRanges plans the ranges of an address, and reports whether it has any. Its
// frontends are there by then.
func (p *planner) addressRanges(ip netip.Addr) (has bool) {
	for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
		of := lb.Key{Addr: ip, Protocol: protocol}
		old, had := p.have.Ranges[of]
		next, n := p.ranges(of)
		switch {
		case n > 0 && (!had || old != next):
			p.add(stepRanges, putRanges{of, next, n})
		case n == 0 && had:
			p.add(stepGoneRanges, deleteRanges{of})
		}
		has = has || n > 0
	}
	return has
}

// rangedAddresses returns the addresses with ranges.
func (c *Contents) rangedAddresses() []netip.Addr {
	var ips []netip.Addr
	for key := range c.Ranges {
		ips = append(ips, key.Addr)
	}
	return ips
}

// putRanges sets the ranges of an address and protocol as a whole.
type putRanges struct {
	key    lb.Key // without a port
	ranges bpf.BlixtPortRanges
	n      int
}

func (o putRanges) write(t Tables) error            { return t.PutPortRanges(o.key, o.ranges) }
func (o putRanges) record(c *Contents, _ time.Time) { c.Ranges[o.key] = o.ranges }
func (o putRanges) count(w *Written)                { w.Ranges++ }
func (o putRanges) String() string {
	return fmt.Sprintf("put %d ranges of %s/%s", o.n, o.key.Addr, o.key.Protocol)
}

type deleteRanges struct{ key lb.Key }

func (o deleteRanges) write(t Tables) error            { return t.DeletePortRanges(o.key) }
func (o deleteRanges) record(c *Contents, _ time.Time) { delete(c.Ranges, o.key) }
func (o deleteRanges) count(w *Written)                { w.Ranges++ }
func (o deleteRanges) String() string {
	return fmt.Sprintf("delete ranges of %s/%s", o.key.Addr, o.key.Protocol)
}
