// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// findFrontend is find_frontend_at in frontend.h: the frontend that serves the packet's
// port, and that frontend's own port.
func (x *tracer) findFrontend(a bpf.BlixtAddress) (f bpf.BlixtFrontend, port uint16, found bool) {
	key := bpf.BlixtFrontendKey{Addr: x.key.Dst, Port: x.key.Dport, Protocol: uint8(x.protocol)}
	port = datapath.FromPort(key.Port)
	if f, found = find[bpf.BlixtFrontend](x, bpf.BlixtMapFrontends, key); found || a.Flags&datapath.AddressRanges == 0 {
		return f, port, found
	}
	key.Port = 0
	ranges, _ := find[bpf.BlixtPortRanges](x, bpf.BlixtMapPortRanges, key)
	for _, r := range ranges.Of {
		if r.Last != 0 && port >= r.First && port <= r.Last {
			key.Port = r.Port
			f, found = find[bpf.BlixtFrontend](x, bpf.BlixtMapFrontends, key)
			return f, datapath.FromPort(r.Port), found
		}
	}
	return f, port, false
}

// backendPort is port_at_backend in frontend.h, of ports in network byte order; 0: there
// is none.
func (x *tracer) backendPort(b datapath.Backend) uint16 {
	f := x.frontend
	if f.Flags&datapath.FrontendKeepPort != 0 {
		return x.key.Dport
	}
	if f.Flags&datapath.FrontendShiftPort == 0 {
		return b.Port
	}
	shifted := int(datapath.FromPort(b.Port)) + int(datapath.FromPort(x.key.Dport)) - int(f.FirstPort)
	if shifted <= 0 || shifted >= 1<<16 {
		return 0
	}
	return datapath.ToPort(uint16(shifted))
}

// prefix is keep_bits in affinity.h.
func prefix(a bpf.BlixtAddr, bits uint8) bpf.BlixtAddr {
	for i := range a.Bytes {
		keep := min(max(int(bits)-8*i, 0), 8)
		a.Bytes[i] &= byte(0xff << (8 - keep))
	}
	return a
}

// ringHash is ring_hash in affinity.h.
func (x *tracer) ringHash(f *bpf.BlixtFrontend) uint32 {
	key := x.key
	if f.Flags&datapath.FrontendAffinity != 0 {
		key.Src, key.Sport = prefix(key.Src, f.AffinityBits), 0
	}
	return clientHash(key, x.config.Seed)
}

// remembered is remembered_backend in affinity.h.
func (x *tracer) remembered(f *bpf.BlixtFrontend, selected uint32) uint32 {
	key := bpf.BlixtAffinityKey{Group: f.Affinity, Client: prefix(x.key.Src, f.AffinityBits)}
	a, found := find[bpf.BlixtAffinity](x, bpf.BlixtMapAffinities, key)
	valid := func() bool { return found && int32(x.now-a.LastNew) <= int32(f.AffinityTicks) }
	if !valid() {
		a, found = find[bpf.BlixtAffinity](x, bpf.BlixtMapUdpAffinities, key)
	}
	if !valid() {
		return selected
	}
	if b, found := find[datapath.Backend](x, bpf.BlixtMapBackends, selected); found && selected != datapath.BackendReject && b.Addr == a.Backend {
		return selected
	}
	id, _ := find[uint32](x, bpf.BlixtMapAffinityBackends, bpf.BlixtAffinityBackendKey{Frontend: f.Index, Addr: a.Backend})
	b, found := find[datapath.Backend](x, bpf.BlixtMapBackends, id)
	if !found || id == datapath.BackendReject || b.Generation&1 == 0 || b.Frontend != f.Index || b.Addr != a.Backend {
		return selected
	}
	x.note("The client had this backend before, and gets it again: not the one of its slot.")
	return id
}
