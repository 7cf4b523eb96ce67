// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// small returns a data plane whose tables of flows have room for few.
func small(t *testing.T, flows, newFlows uint32) *lb {
	t.Helper()
	objs, err := load(func(spec *ebpf.CollectionSpec) {
		shrink(spec)
		spec.Maps["flows"].MaxEntries = flows
		spec.Maps["new_flows"].MaxEntries = newFlows
	})
	l := startLB(t, objs, err)
	t.Cleanup(func() { _ = objs.Close() })
	return l
}

// flood sends the opening packet of n flows of different clients.
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

// Defect 4 of the predecessor was a table of 128 entries that a port scan filled.
func TestFloodLeavesEstablishedFlowsAlone(t *testing.T) {
	const established, flood = 50, 20000
	for _, w := range worlds {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			t.Run(w.name+" "+protocolName(protocol), func(t *testing.T) {
				l := small(t, 4096, 1024)
				l.serve(w, protocol, local)
				var all []conversation
				for i := range established {
					client := addrPort(ap(w.client).Addr(), 50000+i).String()
					c := conversation{l, w, protocol, port(w.vip, "80"), w.local, client}
					c.open(true)
					all = append(all, c)
				}
				before := l.counters()
				l.flood(protocol, port(w.vip, "80"), flood)
				after := l.counters()
				if n := after["flow_new"] - before["flow_new"]; n != flood {
					t.Errorf("flood began %d flows, want %d", n, flood)
				}
				if n := after["forwarded"] - before["forwarded"]; n != flood {
					t.Errorf("%d packets of the flood forwarded, want %d: new flows work while the table overflows", n, flood)
				}
				l.publish(0, remote) // so that a lost flow would show
				for _, c := range all {
					c.there(second(protocol, c.client, c.vip), "forwarded")
					c.here(c.reverse().segmentIfTCP(ack, 5001, 1001))
				}
			})
		}
	}
}

func (p packet) segmentIfTCP(flags uint8, seq, ackNo uint32) packet {
	if p.protocol == unix.IPPROTO_TCP {
		return p.segment(flags, seq, ackNo, string(p.payload))
	}
	return p
}

// A flow whose table is full stays among the new ones and works.
func TestFlowTableFull(t *testing.T) {
	l := small(t, 4, 1024)
	w := worlds[0]
	l.serve(w, unix.IPPROTO_TCP, local)
	client := func(i int) string { return netip.AddrPortFrom(ap(w.client).Addr(), uint16(50000+i)).String() }
	for i := range 2 {
		c := conversation{l, w, unix.IPPROTO_TCP, port(w.vip, "80"), w.local, client(i)}
		c.open(true)
		l.wantIn(c.forward(), "flows")
	}
	c := conversation{l, w, unix.IPPROTO_TCP, port(w.vip, "80"), w.local, client(2)}
	c.open(false)
	c.here(answer(c.protocol, c.backend, c.client))
	for range 3 {
		c.there(second(c.protocol, c.client, c.vip), "forwarded flow_table_full")
		c.here(c.reverse().segment(ack, 5001, 1001, "x"))
	}
	l.wantIn(c.forward(), "new_flows")
	l.wantIn(c.reverse(), "new_flows")
	// Room again: the next packet takes it.
	for _, p := range []packet{tcp(client(0), c.vip), tcp(w.local, client(0))} {
		l.must(l.Flows.Delete(keyOf(p)))
	}
	c.there(second(c.protocol, c.client, c.vip), "forwarded flow_established")
}

// The reply entry of an unanswered flow may be evicted before the forward one.
func TestHalfEvictedFlowBeginsAnew(t *testing.T) {
	for _, w := range worlds {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			l := newLB(t)
			l.serve(w, protocol, local)
			c := l.converse(w, protocol, false)
			l.must(l.NewFlows.Delete(keyOf(c.reverse())))
			c.there(opening(protocol, c.client, c.vip), "flow_new forwarded")
			c.here(answer(protocol, c.backend, c.client))
			l.must(l.NewFlows.Delete(keyOf(c.forward())))
			c.there(second(protocol, c.client, c.vip), "flow_new forwarded")
			c.here(answer(protocol, c.backend, c.client))
		}
	}
}
