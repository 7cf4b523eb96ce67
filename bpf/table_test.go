// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// newLBWithTables returns a data plane with flow tables of these sizes, in entries.
func newLBWithTables(t *testing.T, flows, newFlows uint32) *lb {
	t.Helper()
	objs, err := load(func(spec *ebpf.CollectionSpec) {
		shrinkTables(spec)
		spec.Maps["flows"].MaxEntries = flows
		spec.Maps["new_flows"].MaxEntries = newFlows
		spec.Maps["udp_flows"].MaxEntries = newFlows
	})
	l := startLB(t, objs, err)
	t.Cleanup(func() { _ = objs.Close() })
	return l
}

// flood sends the opening packets of n flows from different clients.
func (l *lb) flood(protocol uint8, vip string, n int) {
	l.Helper()
	p := opening(protocol, "100.64.0.0:1", vip)
	if p.v6() {
		p = opening(protocol, "[2001:db8:77::]:1", vip)
	}
	frame := p.bytes()
	at := 14 + 12 + 2 // the low bytes of the source address
	if p.v6() {
		at = 14 + 8 + 14
	}
	ports := len(frame) - len(p.layer4())
	for i := range n {
		binary.BigEndian.PutUint16(frame[at:], uint16(i>>8))
		binary.BigEndian.PutUint16(frame[ports:], uint16(1024+i&0xff))
		if _, _, err := l.run(hook{dev: outside}, frame, 0); err != nil {
			l.Fatal(err)
		}
	}
}

// Defect 4 of the previous data plane was a table of 128 entries that a port scan filled.
func TestFloodLeavesEstablishedFlowsAlone(t *testing.T) {
	const established, flood = 50, 20000
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			t.Run(ip.name+" "+protocolName(protocol), func(t *testing.T) {
				l := newLBWithTables(t, 4096, 1024)
				l.serve(ip, protocol, local)
				var all []localFlow
				for i := range established {
					client := addrPort(ap(ip.client).Addr(), 50000+i).String()
					c := localFlow{l, ip, protocol, port(ip.vip, "80"), ip.local, client}
					c.open(true)
					all = append(all, c)
				}
				before := l.counters()
				l.flood(protocol, port(ip.vip, "80"), flood)
				after := l.counters()
				if n := after["flow_new"] - before["flow_new"]; n != flood {
					t.Errorf("flood began %d flows, want %d", n, flood)
				}
				if n := after["forwarded"] - before["forwarded"]; n != flood {
					t.Errorf("%d packets of the flood forwarded, want %d: new flows work while the table overflows", n, flood)
				}
				if protocol == unix.IPPROTO_TCP {
					l.publish(0, remote) // so that a lost flow would go elsewhere
				}
				l.forgetKept() // else packets of this tick need no table
				for _, c := range all {
					// A UDP flow may have been evicted: the ring leads to the same backend.
					c.fromClient(establishing(protocol, c.client, c.vip), "forwarded"+map[bool]string{true: " flow_new"}[l.tableOf(c.forward()) == "none"])
					c.fromBackend(c.reply().segmentIfTCP(ack, 1001))
				}
			})
		}
	}
}

// segmentIfTCP is the backend's first segment after its SYN.
func (p packet) segmentIfTCP(flags uint8, ackNo uint32) packet {
	if p.protocol == unix.IPPROTO_TCP {
		return p.segment(flags, 5001, ackNo, string(p.payload))
	}
	return p
}

// If flows is full, a flow stays in new_flows and works.
func TestFlowTableFull(t *testing.T) {
	l := newLBWithTables(t, 4, 1024)
	ip := ipVersions[0]
	l.serve(ip, unix.IPPROTO_TCP, local)
	client := func(i int) string { return netip.AddrPortFrom(ap(ip.client).Addr(), uint16(50000+i)).String() }
	for i := range 2 {
		c := localFlow{l, ip, unix.IPPROTO_TCP, port(ip.vip, "80"), ip.local, client(i)}
		c.open(true)
		l.wantTable(c.forward(), "flows")
	}
	c := localFlow{l, ip, unix.IPPROTO_TCP, port(ip.vip, "80"), ip.local, client(2)}
	c.open(false)
	c.fromBackend(answer(c.protocol, c.backend, c.client))
	for range 3 {
		c.fromClient(establishing(c.protocol, c.client, c.vip), "forwarded flow_table_full")
		c.fromBackend(c.reply().segment(ack, 5001, 1001, "x"))
	}
	l.wantTable(c.forward(), "new_flows")
	l.wantTable(c.reply(), "new_flows")
	// There is room again: the next packet establishes the flow.
	for _, p := range []packet{tcp(client(0), c.vip), tcp(ip.local, client(0))} {
		l.must(l.Flows.Delete(keyOf(p)))
	}
	c.fromClient(establishing(c.protocol, c.client, c.vip), "forwarded flow_established")
}

// The reply entry of a flow may be evicted before the forward one. Of a UDP flow
// that is looked at once a tick.
func TestHalfEvictedFlowBeginsAnew(t *testing.T) {
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			l := newLB(t)
			l.serve(ip, protocol, local)
			c := l.openFlow(ip, protocol, false)
			table := map[uint8]*ebpf.Map{unix.IPPROTO_TCP: l.NewFlows, unix.IPPROTO_UDP: l.UdpFlows}[protocol]
			l.age(c.forward(), 1)
			l.must(table.Delete(keyOf(c.reply())))
			c.fromClient(opening(protocol, c.client, c.vip), "flow_new forwarded")
			c.fromBackend(answer(protocol, c.backend, c.client))
			l.must(table.Delete(keyOf(c.forward())))
			c.fromClient(establishing(protocol, c.client, c.vip), "flow_new forwarded")
			c.fromBackend(answer(protocol, c.backend, c.client))
		}
	}
}
