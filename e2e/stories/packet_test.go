// SPDX-License-Identifier: Apache-2.0

package stories

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// clients is how many hashes of clients are looked up in a ring, evenly spread.
const clients = 4096

// A view is what packets find in the tables.
type view struct {
	addresses map[netip.Addr]bpf.BlixtAddress
	frontends map[lb.Key]frontend
	backends  []bpf.BlixtBackend // by id
}

// frontend is what packets find of a frontend.
type frontend struct {
	idleTicks uint32
	// backends are those that new flows go to, by client.
	backends [clients]target
	// known are those that have their flows; false: UDP flows move to others.
	known map[target]bool
}

// target is a backend. The zero target rejects.
type target struct {
	addr  netip.AddrPort
	local bool
}

// look reads the tables as the data plane does.
func look(t datapath.Tables) (view, error) {
	v := view{frontends: map[lb.Key]frontend{}}
	var err error
	if v.addresses, err = t.Addresses(); err != nil {
		return v, err
	}
	entries, err := t.Frontends()
	if err != nil {
		return v, err
	}
	refs, err := t.Published()
	if err != nil {
		return v, err
	}
	if v.backends, err = t.Backends(); err != nil {
		return v, err
	}
	for key, entry := range entries {
		ref := refs[entry.Index]
		if ref.Generation() == 0 {
			return v, fmt.Errorf("%s leads to index %d, which is not published", key, entry.Index)
		}
		ring, err := t.Ring(ref.Offset(), ref.Size())
		if err != nil {
			return v, err
		}
		f := frontend{idleTicks: entry.IdleTicks, known: map[target]bool{}}
		for i := range f.backends {
			if len(ring) == 0 {
				break // everything is rejected
			}
			id := ring[i*len(ring)/clients]
			if id == 0 {
				continue
			}
			b := v.backends[id]
			if b.Generation%2 == 0 || b.Frontend != entry.Index {
				return v, fmt.Errorf("%s: a slot has backend %d, which is not in use: %+v", key, id, b)
			}
			f.backends[i] = newTarget(b)
		}
		for _, b := range v.backends {
			if b.Generation%2 != 0 && b.Frontend == entry.Index {
				f.known[newTarget(b)] = b.Flags&datapath.BackendNotServing == 0
			}
		}
		v.frontends[key] = f
	}
	return v, nil
}

func newTarget(b bpf.BlixtBackend) target {
	return target{
		addr:  netip.AddrPortFrom(datapath.FromAddr(b.Addr), datapath.FromPort(b.Port)),
		local: b.Flags&datapath.BackendLocal != 0,
	}
}

func (t target) String() string {
	switch {
	case !t.addr.IsValid():
		return "rejected"
	case t.local:
		return t.addr.String() + ", local"
	}
	return t.addr.String()
}

func (t target) compare(o target) int { return t.addr.Compare(o.addr) }

// shares counts the clients of each target.
func (f *frontend) shares() map[target]int {
	n := map[target]int{}
	for b := range f.known {
		n[b] = 0
	}
	for _, b := range f.backends {
		n[b]++
	}
	return n
}

// String says what is served, without ids and offsets, which depend on what happened
// before.
func (v view) String() string {
	var b strings.Builder
	for _, ip := range slices.SortedFunc(maps.Keys(v.addresses), netip.Addr.Compare) {
		kind := "shared with the host"
		if v.addresses[ip].Flags&uint32(bpf.BlixtAddressFlagADDRESS_EXCLUSIVE) != 0 {
			kind = "exclusive"
		}
		fmt.Fprintf(&b, "address %s %s\n", ip, kind)
	}
	for _, key := range slices.SortedFunc(maps.Keys(v.frontends), lb.Key.Compare) {
		fmt.Fprintf(&b, "frontend %s\n", key)
		f := v.frontends[key]
		shares := f.shares()
		for _, to := range slices.SortedFunc(maps.Keys(shares), target.compare) {
			only := ""
			switch {
			case shares[to] > 0:
			case key.Protocol == lb.UDP && !f.known[to]:
				only = ", its flows move"
			default:
				only = ", keeps its flows"
			}
			fmt.Fprintf(&b, "%4.0f%% %s%s\n", float64(shares[to])*100/clients, to, only)
		}
	}
	return b.String()
}

// reset says whose flows have ended since an earlier view, because the generation of
// the backend is another one.
func (v view) reset(earlier view) string {
	var ended []target
	for id, b := range earlier.backends {
		if b.Generation%2 != 0 && v.backends[id].Generation != b.Generation {
			ended = append(ended, newTarget(b))
		}
	}
	slices.SortFunc(ended, target.compare)
	var b strings.Builder
	for _, t := range slices.Compact(ended) {
		fmt.Fprintf(&b, "flows to %s are reset\n", t.addr)
	}
	return b.String()
}
