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

// flow returns the packet's entry and the table that has it, or nil.
func (l *lb) flow(p packet) (m *ebpf.Map, f BlixtFlow) {
	l.Helper()
	for _, m := range []*ebpf.Map{l.Flows, l.NewFlows, l.UdpFlows} {
		if m.Lookup(keyOf(p), &f) == nil {
			return m, f
		}
	}
	return nil, f
}

// tableOf returns the name of the table that has the packet's entry, "none", or
// "tombstone" if the entry is one.
func (l *lb) tableOf(p packet) string {
	l.Helper()
	m, f := l.flow(p)
	if BlixtFlowFlag(f.Flags)&BlixtFlowFlagFLOW_GONE != 0 {
		return "tombstone"
	}
	switch m {
	case l.Flows:
		return "flows"
	case l.NewFlows:
		return "new_flows"
	case l.UdpFlows:
		return "udp_flows"
	}
	return "none"
}

// endFlags returns the flags for FIN and RST of the packet's entry.
func (l *lb) endFlags(p packet) BlixtFlowFlag {
	l.Helper()
	_, f := l.flow(p)
	return BlixtFlowFlag(f.Flags) & (BlixtFlowFlagFLOW_FIN | BlixtFlowFlagFLOW_RST)
}

// age moves the last packet of an entry into the past, by ticks.
func (l *lb) age(p packet, ticks uint32) {
	l.Helper()
	m, f := l.flow(p)
	if m == nil {
		l.Fatalf("no flow of %v -> %v to age", p.src, p.dst)
	}
	f.LastSeen -= ticks
	l.must(m.Put(keyOf(p), f))
	l.forgetKept()
}

// A localFlow is a flow to a local backend: its packets keep their source. The
// entries of other flows have the same life.
type localFlow struct {
	*lb
	ip       ipVersion
	protocol uint8
	vip      string
	backend  string
	client   string
}

func (c localFlow) clientPacket(flags uint8, seq, ackNo uint32, payload string) packet {
	p := proto(c.protocol, c.client, c.vip).withPayload(payload)
	if c.protocol == unix.IPPROTO_TCP {
		p = p.segment(flags, seq, ackNo, payload)
	}
	return p
}

// fromClient sends a packet of the client, and checks that the backend gets it.
func (c localFlow) fromClient(p packet, counters string) {
	c.Helper()
	c.ingress(outside, p).toStack(p.to(c.backend), counters)
}

// fromBackend sends a packet of the backend, and checks that the client gets it.
func (c localFlow) fromBackend(p packet) {
	c.Helper()
	c.fromBackendCounting(p, "replied")
}

func (c localFlow) fromBackendCounting(p packet, counters string) {
	c.Helper()
	r := p.to(c.client).from(c.backend)
	c.egressForwarded(pods, r).toStack(r.from(c.vip), counters)
}

// wantEnds checks which end of the connection is recorded for the client and for the backend.
func (c localFlow) wantEnds(when string, client, backend BlixtFlowFlag) {
	c.Helper()
	if f, r := c.endFlags(c.forward()), c.endFlags(c.reply()); f != client || r != backend {
		c.Errorf("%s: ends %#x of the client and %#x of the backend, want %#x and %#x", when, f, r, client, backend)
	}
}

func (c localFlow) forward() packet { return proto(c.protocol, c.client, c.vip) }
func (c localFlow) reply() packet   { return proto(c.protocol, c.backend, c.client) }

// openFlow begins a flow, and establishes it if asked.
func (l *lb) openFlow(ip ipVersion, protocol uint8, established bool) localFlow {
	l.Helper()
	c := localFlow{l, ip, protocol, port(ip.vip, "80"), ip.local, ip.client}
	c.open(established)
	return c
}

// livesIn returns the table of flows whose backend and client have answered.
func livesIn(protocol uint8) string {
	if protocol == unix.IPPROTO_TCP {
		return "flows"
	}
	return "udp_flows"
}

// andEstablished is the counter that rises with the first answer to a backend's
// answer: UDP flows are never established.
func andEstablished(protocol uint8) string {
	if protocol == unix.IPPROTO_TCP {
		return " flow_established"
	}
	return ""
}

func (c localFlow) open(established bool) {
	c.Helper()
	c.fromClient(opening(c.protocol, c.client, c.vip), "flow_new forwarded")
	if established {
		c.fromBackend(answer(c.protocol, c.backend, c.client))
		c.fromClient(establishing(c.protocol, c.client, c.vip), "forwarded"+andEstablished(c.protocol))
	}
}

func (l *lb) wantTable(p packet, table string) {
	l.Helper()
	if got := l.tableOf(p); got != table {
		l.Errorf("entry of %v -> %v is in %s, want %s", p.src, p.dst, got, table)
	}
}

// withoutPorts makes a packet of a protocol without ports.
func withoutPorts(protocol uint8, src, dst string) packet {
	return packet{src: ap(src), dst: ap(port(dst, "0")), protocol: protocol, payload: make([]byte, 40)}
}
