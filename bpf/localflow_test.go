// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func keyOf(p packet) BlixtFlowKey {
	return BlixtFlowKey{Src: addrOf(p.src.Addr()), Dst: addrOf(p.dst.Addr()), Sport: htons(p.src.Port()), Dport: htons(p.dst.Port()),
		Protocol: p.protocol}
}

// flow finds the entry for a packet.
func (l *lb) flow(p packet) (m *ebpf.Map, f BlixtFlow) {
	l.Helper()
	for _, m := range []*ebpf.Map{l.Flows, l.NewFlows} {
		if m.Lookup(keyOf(p), &f) == nil {
			return m, f
		}
	}
	return nil, f
}

// in says which table has the entry for a packet.
func (l *lb) in(p packet) string {
	l.Helper()
	switch m, _ := l.flow(p); m {
	case l.Flows:
		return "flows"
	case l.NewFlows:
		return "new_flows"
	}
	return "none"
}

// flags returns those of the entry for a packet that are set by the end of a flow.
func (l *lb) end(p packet) BlixtFlowFlag {
	l.Helper()
	_, f := l.flow(p)
	return BlixtFlowFlag(f.Flags) & (BlixtFlowFlagFLOW_FIN | BlixtFlowFlagFLOW_RST)
}

// age moves the last packet of an entry into the past.
func (l *lb) age(p packet, ticks uint32) {
	l.Helper()
	m, f := l.flow(p)
	if m == nil {
		l.Fatalf("no flow of %v -> %v to age", p.src, p.dst)
	}
	f.LastSeen -= ticks
	l.must(m.Put(keyOf(p), f))
}

// A conversation is one flow to a local backend, whose packets keep their
// source: what happens to entries is the same for others.
type conversation struct {
	*lb
	w        world
	protocol uint8
	vip      string
	backend  string
	client   string
}

func (c conversation) says(flags uint8, seq, ackNo uint32, payload string) packet {
	p := proto(c.protocol, c.client, c.vip).says(payload)
	if c.protocol == unix.IPPROTO_TCP {
		p = p.segment(flags, seq, ackNo, payload)
	}
	return p
}

// there passes a packet of the client, here one of the backend.
func (c conversation) there(p packet, counters string) {
	c.Helper()
	c.ingress(outside, p).next(p.to(c.backend), counters)
}

func (c conversation) here(p packet) {
	c.Helper()
	r := p.to(c.client).from(c.backend)
	c.forwarded(pods, r).next(r.from(c.vip), "replied")
}

func (c conversation) forward() packet { return proto(c.protocol, c.client, c.vip) }
func (c conversation) reverse() packet { return proto(c.protocol, c.backend, c.client) }

// converse opens a flow and, if asked, establishes it.
func (l *lb) converse(w world, protocol uint8, established bool) conversation {
	l.Helper()
	c := conversation{l, w, protocol, port(w.vip, "80"), w.local, w.client}
	c.open(established)
	return c
}

func (c conversation) open(established bool) {
	c.Helper()
	c.there(opening(c.protocol, c.client, c.vip), "flow_new forwarded")
	if established {
		c.here(answer(c.protocol, c.backend, c.client))
		c.there(second(c.protocol, c.client, c.vip), "forwarded flow_established")
	}
}

func (l *lb) wantIn(p packet, table string) {
	l.Helper()
	if got := l.in(p); got != table {
		l.Errorf("entry of %v -> %v is in %s, want %s", p.src, p.dst, got, table)
	}
}

// withoutPorts is a packet of a protocol that has none.
func withoutPorts(protocol uint8, src, dst string) packet {
	return packet{src: ap(src), dst: ap(port(dst, "0")), protocol: protocol, payload: make([]byte, 40)}
}
