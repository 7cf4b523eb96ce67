// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// holder is enum holder: who has a tuple that a new flow wants.
type holder int

const (
	holderNone holder = iota
	holderPast
	holderClosed
	holderHalfOpen
	holderLive
)

// inRange is in_snat_range of a port in network byte order.
func (x *tracer) inRange(port uint16) bool {
	n := uint32(datapath.FromPort(port))
	if n < privilegedEnd {
		if n < privilegedMin {
			return false
		}
		n = privilegedEnd + (n-privilegedMin)*privilegedSpread
	}
	return n >= uint32(x.config.SnatMin) && n <= uint32(x.config.SnatMax)
}

// reserved is reserved in reserve.h.
func (x *tracer) reserved(answer datapath.FlowKey) bool {
	for _, name := range []string{bpf.BlixtMapHostPorts, bpf.BlixtMapMasqueradedPorts} {
		r, found := find[bpf.BlixtHostPort](x, name, answer)
		limit := int32(hostTicks)
		if r.State == hostOpen {
			limit = hostTCPTicks
		}
		if found && int32(x.now-r.LastSeen) <= limit {
			return true
		}
	}
	return false
}

// hostOpen is HOST_OPEN.
const hostOpen = 1

// replyKey is the key of the reply entry of the new flow with a source port.
func (x *tracer) replyKey(src bpf.BlixtAddr, port uint32) datapath.FlowKey {
	return datapath.FlowKey{Src: x.to.Dst, Dst: src, Sport: x.to.Dport, Dport: datapath.ToPort(uint16(port)), Protocol: x.key.Protocol}
}

// holderOf is holder_of of the tuple of an answer; and holderNone if there is no entry.
func (x *tracer) holderOf(key datapath.FlowKey) holder {
	f, found := x.findFlow(key)
	if !found {
		return holderNone
	}
	flags, h := bpf.BlixtFlowFlag(f.Flags), holderHalfOpen
	if x.silent(f) > handshakeTicks {
		h = holderClosed
	}
	live := bpf.BlixtFlowFlagFLOW_ESTABLISHED
	if x.udp() {
		live = bpf.BlixtFlowFlagFLOW_ANSWERED
	}
	if flags&live != 0 {
		h = holderLive
	}
	if closed(f) {
		peer, has := x.findFlow(peerKey(key, f))
		reset := flags&bpf.BlixtFlowFlagFLOW_RST != 0 || has && bpf.BlixtFlowFlag(peer.Flags)&bpf.BlixtFlowFlagFLOW_RST != 0
		h = holderClosed
		if reset || x.silent(f) > timeWaitTicks {
			h = holderPast
		}
	}
	same := f.Dst == x.key.Src && f.Dport == x.key.Sport && f.Src == x.key.Dst && f.Sport == x.key.Dport
	if same || x.backendGone(f) || x.expired(key, f) {
		h = holderNone
	}
	return h
}

// claims is claim_tuple.
func (x *tracer) claims(key datapath.FlowKey, worst holder) bool {
	return x.holderOf(key) <= worst && !x.reserved(key)
}

// quiet is is_quiet.
func (x *tracer) quiet(key datapath.FlowKey) bool {
	if !x.udp() {
		return true
	}
	at, found := find[uint32](x, bpf.BlixtMapAnnouncedUdp, bpf.FlowTag(key)&(uint32(bpf.BlixtLimitMAX_ANNOUNCED_UDP)-1))
	return !found || at == 0 || x.now-at >= quietTicks
}

// frontends is is_frontends_port.
func (x *tracer) frontends(key datapath.FlowKey) bool {
	_, found := find[bpf.BlixtFrontend](x, bpf.BlixtMapFrontends, bpf.BlixtFrontendKey{Addr: key.Dst, Port: key.Dport, Protocol: key.Protocol})
	return found
}

// ports are source ports, in host byte order.
type ports struct{ first, count uint32 }

// tryPorts is try_ports. It returns 0 if no port will do.
func (x *tracer) tryPorts(src bpf.BlixtAddr, p ports, avoid uint32, replaced holder) uint32 {
	hash := clientHash(x.key, x.config.Seed)
	if avoid != 0 {
		hash += x.now
	}
	step := hash/p.count | 1
	for i := range uint32(portTries) {
		port := p.first + (hash+i*step)%p.count
		if port == avoid {
			continue
		}
		key := x.replyKey(src, port)
		if !x.quiet(key) && (x.unannounced || replaced < holderClosed) {
			continue
		}
		worst := replaced
		if worst == holderNone && i >= freePortTries {
			worst = holderPast
		}
		if !x.frontends(key) && x.claims(key, worst) {
			return port
		}
	}
	return 0
}

// scanPorts is scan_ports: which one of the ports is chosen, begins with a random one. It
// reports whether there is any.
func (x *tracer) scanPorts(src bpf.BlixtAddr, p ports, avoid uint32) bool {
	for port := p.first; port < p.first+p.count; port++ {
		key := x.replyKey(src, port)
		if port == avoid || x.reserved(key) || x.frontends(key) {
			continue
		}
		h := x.holderOf(key)
		if h < holderClosed && !x.quiet(key) {
			h = holderClosed
			if x.unannounced {
				h = holderLive
			}
		}
		if h < holderLive {
			return true
		}
	}
	return false
}

// claimPortOf is claim_port_of. port is 0 if it is chosen by chance; found is false if
// there is none.
func (x *tracer) claimPortOf(src bpf.BlixtAddr, p ports, privileged, avoid uint32) (port uint32, found bool) {
	search, known := find[bpf.BlixtPortSearch](x, bpf.BlixtMapPortSearches, 2*x.to.Backend+privileged)
	if p.count == 0 {
		return 0, false
	}
	if !known || search.Tick != x.now {
		search = bpf.BlixtPortSearch{}
	}
	if port := x.tryPorts(src, p, avoid, holder(search.Best)); port != 0 {
		return port, true
	}
	if search.Scanned < scanLimit {
		return 0, x.scanPorts(src, p, avoid)
	}
	if search.Exhausted != 0 {
		return 0, false
	}
	for _, h := range []holder{holderClosed, holderHalfOpen} {
		if port := x.tryPorts(src, p, avoid, h); port != 0 {
			return port, true
		}
	}
	return 0, false
}

// claimPort is claim_port.
func (x *tracer) claimPort(src bpf.BlixtAddr, avoid uint16) (port uint16, found bool) {
	first, last := uint32(x.config.SnatMin), uint32(x.config.SnatMax)
	if last < first {
		return 0, false
	}
	if uint32(datapath.FromPort(x.key.Sport)) < privilegedEnd && first >= privilegedEnd {
		from := (first - privilegedEnd + privilegedSpread - 1) / privilegedSpread
		p := ports{privilegedMin + from, (last-privilegedEnd)/privilegedSpread + 1 - from}
		if port, found := x.claimPortOf(src, p, 1, uint32(avoid)); found {
			return uint16(port), true
		}
	}
	n, found := x.claimPortOf(src, ports{first, last - first + 1}, 0, uint32(avoid))
	return uint16(n), found
}

// insert is insert_flow_pair. It returns false if that is the end of the packet.
func (x *tracer) insert() bool {
	if x.r.Way == wayRemote.name && x.to.Src == (bpf.BlixtAddr{}) {
		return true // no Network: the tuple is not known
	}
	keep := x.to.Flags&datapath.FlowSNAT == 0
	ownLast := keep && x.config.Flags&datapath.ConfigUpgrading != 0
	own := func() bool { return x.claims(x.replyKey(x.to.Src, uint32(datapath.FromPort(x.key.Sport))), holderPast) }
	if keep && !ownLast && own() {
		return true
	}
	port, found := x.claimPort(x.to.Src, 0)
	switch {
	case found:
		x.to.Sport = datapath.ToPort(port)
		if port == 0 {
			x.note("Most source ports towards the backend are taken: which one the flow gets, is decided by chance among those that are missed least.")
		}
	case !ownLast || !own():
		x.reject(bpf.BlixtCounterCOUNTER_REJECT_PORTS_EXHAUSTED, "all source ports %d-%d towards the backend are in use by live flows", x.config.SnatMin, x.config.SnatMax)
		return false
	}
	return true
}

// changePort is change_port: the client repeats a SYN that nobody has answered, and its
// flow gets another source port. It reports whether f has one now.
func (x *tracer) changePort(f *datapath.Flow) bool {
	reply, found := x.findEvictable(peerKey(x.key, f))
	if f.Flags&datapath.FlowSNAT == 0 || x.silent(f) == 0 || !found || !mirrors(x.key, reply) {
		return false
	}
	x.to = *f
	port, found := x.claimPort(f.Src, datapath.FromPort(f.Sport))
	if found {
		f.Sport = datapath.ToPort(port) // 0: not known
		x.note("The client repeats a SYN that nobody has answered: its flow gets another source port.")
	}
	return found
}
