// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// peerKey is peer_key in flow.h: the key of the other direction.
func peerKey(key datapath.FlowKey, f *datapath.Flow) datapath.FlowKey {
	return datapath.FlowKey{Src: f.Dst, Dst: f.Src, Sport: f.Dport, Dport: f.Sport, Protocol: key.Protocol}
}

func closed(f *datapath.Flow) bool {
	return bpf.BlixtFlowFlag(f.Flags)&bpf.BlixtFlowFlagFLOW_CLOSED != 0
}

// findFlow is find_flow.
func (x *tracer) findFlow(key datapath.FlowKey) (*datapath.Flow, bool) {
	if f, found := x.findEvictable(key); found || x.udp() {
		return f, found
	}
	if key == x.forgotten {
		return nil, false
	}
	f, found := find[datapath.Flow](x, bpf.BlixtMapFlows, key)
	return &f, found
}

// findEvictable is find_evictable.
func (x *tracer) findEvictable(key datapath.FlowKey) (*datapath.Flow, bool) {
	if key == x.forgotten {
		return nil, false
	}
	name := bpf.BlixtMapNewFlows
	if x.udp() {
		name = bpf.BlixtMapUdpFlows
	}
	f, found := find[datapath.Flow](x, name, key)
	return &f, found
}

// yields is yields of a SYN.
func (x *tracer) yields(f *datapath.Flow) bool {
	flags := bpf.BlixtFlowFlag(f.Flags)
	return !x.udp() && flags&bpf.BlixtFlowFlagFLOW_REPLY == 0 &&
		(flags&bpf.BlixtFlowFlagFLOW_CLOSED != 0 || flags&(bpf.BlixtFlowFlagFLOW_ANSWERED|bpf.BlixtFlowFlagFLOW_ESTABLISHED) == 0)
}

// isAdmitted is is_admitted of a forward entry.
func (x *tracer) isAdmitted(f *datapath.Flow) bool {
	flags := bpf.BlixtFlowFlag(f.Flags)
	if flags&(bpf.BlixtFlowFlagFLOW_CLOSED|bpf.BlixtFlowFlagFLOW_ADOPTED) != 0 {
		return false
	}
	return x.udp() || flags&(bpf.BlixtFlowFlagFLOW_ANSWERED|bpf.BlixtFlowFlagFLOW_ESTABLISHED) == 0
}

// silent is silent: for how many ticks an entry has seen no packet.
func (x *tracer) silent(f *datapath.Flow) uint32 { return uint32(max(int32(x.now-f.LastSeen), 0)) }

func (x *tracer) idle(f *datapath.Flow) bool { return int32(x.now-f.LastSeen) > int32(f.IdleTicks) }

// expired is expired.
func (x *tracer) expired(key datapath.FlowKey, f *datapath.Flow) bool {
	if !x.idle(f) {
		return false
	}
	peer, found := x.findFlow(peerKey(key, f))
	return !found || x.idle(peer)
}

// backendGone is backend_gone.
func (x *tracer) backendGone(f *datapath.Flow) bool {
	b, found := find[datapath.Backend](x, bpf.BlixtMapBackends, f.Backend)
	return !found || b.Generation != f.Generation
}

// mirrors is mirrors: whether the entry at the peer's key is the other one of this flow.
func mirrors(key datapath.FlowKey, peer *datapath.Flow) bool {
	return peer.Dst == key.Src && peer.Src == key.Dst && peer.Dport == key.Sport && peer.Sport == key.Dport
}

// halfEvicted is half_evicted.
func (x *tracer) halfEvicted(f *datapath.Flow) bool {
	if peer, found := x.findEvictable(peerKey(x.key, f)); found && mirrors(x.key, peer) {
		return false
	}
	if x.udp() {
		return true
	}
	_, found := find[datapath.Flow](x, bpf.BlixtMapFlows, x.key)
	return !found
}

// forget is forget: new flows find no reply entry of this one.
func (x *tracer) forget(f *datapath.Flow) {
	key := peerKey(x.key, f)
	if peer, found := x.findFlow(key); found && mirrors(x.key, peer) {
		x.forgotten = key
	}
}

// serve is serve_flow of the forward entry f. It reports whether that is the end of the
// packet; otherwise the packet may begin another flow, and Result.Ended says why. moved
// is whether its entries get another source port first.
func (x *tracer) serve(f *datapath.Flow, moved bool) bool {
	ended := func(why string) bool {
		x.r.Ended = why
		x.forget(f)
		x.charged = x.isAdmitted(f)
		return false
	}
	b, found := find[datapath.Backend](x, bpf.BlixtMapBackends, f.Backend)
	if !found || b.Generation != f.Generation {
		return ended("its backend is gone")
	}
	// If another frontend has its port by now, or none, it stays.
	if b.Flags&datapath.BackendNotServing != 0 && x.udp() && x.frontend != nil && x.frontend.Index == f.Frontend {
		if r := x.selectBackend(x.frontend); r.Backend != datapath.BackendReject && r.Backend != f.Backend {
			return ended("its backend does not serve any more, and the ring has another one")
		}
	}
	if x.expired(x.key, f) {
		ended("it has expired")
		x.charged = false
		return false
	}
	flags := bpf.BlixtFlowFlag(f.Flags)
	half := !x.udp() && flags&(bpf.BlixtFlowFlagFLOW_ESTABLISHED|bpf.BlixtFlowFlagFLOW_CLOSED) == 0
	x.due = half || f.LastSeen != x.now
	if x.due && !moved && (half || x.udp()) && x.halfEvicted(f) {
		ended("the entry of its other direction was evicted")
		x.charged = false
		return false
	}
	if x.due && x.udp() && x.shared && x.o.Network != nil {
		if has, err := x.o.Network.HasSocket(x.protocol, x.r.Client, x.r.Server, x.in); err != nil {
			x.err = err
			return true
		} else if has {
			return ended("the host has got a socket for it")
		}
	}
	x.checkSource(f)
	x.show(f.Backend, b, f.Dport)
	if x.due && !x.host && x.protected(x.key.Src) {
		x.drop(bpf.BlixtCounterCOUNTER_DROP_PROTECTED, "the host's IPsec policies cover the client, so it gets no answer in clear text")
		return true
	}
	x.to = *f
	x.r.Way = wayOf(flags).name
	x.r.Announced = flags&bpf.BlixtFlowFlagFLOW_ANNOUNCED != 0
	x.send()
	return true
}

// checkSource is check_source, as far as it is for people: a flow keeps a source that the
// FIB does not name any more, for a while.
func (x *tracer) checkSource(f *datapath.Flow) {
	const snat = uint32(bpf.BlixtFlowFlagFLOW_SNAT)
	if f.LastSeen == x.now || f.Flags&(datapath.FlowReply|snat|datapath.FlowStack|flowReenter) != snat {
		return
	}
	x.to = *f
	bytes := x.bytes
	x.bytes = 0
	rc := x.findRoute(bpf.BlixtAddr{}, x.key.Sport)
	x.bytes = bytes
	if rc == routedYes && x.route.src != f.Src && x.route.src != (bpf.BlixtAddr{}) {
		x.note(fmt.Sprintf("The host would send from %s now, and the flow has another source: it gets a new one, or ends, unless its backend answers.", datapath.FromAddr(x.route.src)))
	}
}
