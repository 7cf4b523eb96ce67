// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// One lost segment of a fast download holds back the acknowledgement of all
// that follows it. When it has been repeated, the acknowledgement number moves
// by megabytes at once. The end of such a connection counts like any other.
func TestAcknowledgementOfMegabytes(t *testing.T) {
	const size, sent = 1000, 5 << 20
	c := cases{}
	for _, ip := range ipVersions {
		download := func(l *lb) (f localFlow, next uint32) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			f = l.openFlow(ip, unix.IPPROTO_TCP, true)
			for next = 5001; next < 5001+sent; next += size {
				p := f.reply().segment(ack, next, 1001, string(make([]byte, size)))
				if verdict, _, err := l.run(hook{dev: outside, egress: true, from: pods}, p.bytes(), 0); err != nil || verdict != tcxNext {
					l.Fatalf("verdict %d, error %v", int32(verdict), err)
				}
			}
			return f, next
		}
		c[ip.name+" the connection closes"] = func(l *lb) {
			f, next := download(l)
			f.fromClient(f.clientPacket(ack, 1001, next, ""), "forwarded")
			f.fromBackend(f.reply().segment(ack|fin, next, 1001, ""))
			f.fromClient(f.clientPacket(ack|fin, 1001, next+1, ""), "forwarded")
			f.fromBackendCounting(f.reply().segment(ack, next+1, 1002, ""), "replied flow_closed")
		}
		c[ip.name+" what has not been sent is not acknowledged"] = func(l *lb) {
			f, next := download(l)
			before := f.numbers()
			for _, number := range []uint32{next + 1, next + 1<<31, ^uint32(0) - 1<<20} {
				f.fromClient(f.clientPacket(ack, 1001, number, ""), "forwarded")
			}
			f.fromClient(f.clientPacket(ack, 1001+1<<21, next, ""), "forwarded")
			if after := f.numbers(); after != before {
				l.Errorf("next and ack of the client are %d, want %d", after, before)
			}
		}
	}
	c.run(t)
}

// numbers returns the client's next sequence number and its last acknowledgement number.
func (c localFlow) numbers() [2]uint32 {
	c.Helper()
	_, f := c.flow(c.forward())
	return [2]uint32{f.Next, f.Ack}
}

// A client that has not been answered, and gives up, may begin anew from the
// same port before its flow has expired.
func TestSecondNumberBeforeTheAnswer(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		twice := func(name string, run func(f localFlow)) {
			c[ip.name+" "+name] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_TCP, local)
				f := l.openFlow(ip, unix.IPPROTO_TCP, false)
				f.fromClient(f.clientPacket(syn, 777777, 0, ""), "forwarded")
				run(f)
			}
		}
		for name, seq := range map[string]uint32{"the last one is answered": 777778, "the first one is answered": 1001} {
			twice(name, func(f localFlow) {
				f.fromBackend(f.reply().segment(syn|ack, 5000, seq, ""))
				f.fromClient(f.clientPacket(ack, seq, 5001, ""), "forwarded flow_established")
				f.fromClient(f.clientPacket(rst, seq, 0, ""), "forwarded flow_closed")
			})
			twice(name+" with a refusal", func(f localFlow) {
				f.fromBackendCounting(f.reply().segment(rst|ack, 0, seq, ""), "replied flow_closed")
			})
		}
		twice("an answer to neither", func(f localFlow) {
			f.fromBackend(f.reply().segment(syn|ack, 5000, 0x12345678, ""))
			f.fromClient(f.clientPacket(ack, 0x12345678, 5001, ""), "forwarded")
			f.wantTable(f.forward(), "new_flows")
		})
	}
	c.run(t)
}

// What a tombstone ends may come by the device by which the flow's packets
// came, whether or not the FIB leads to the backend by it.
func TestTombstoneOfAnyDevice(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		f := l.openFlow(ip, proto, false)
		re := answer(proto, f.backend, f.client)
		l.egressForwarded(inside, re).toStack(re.from(f.vip), "replied") // the first answer
		l.removeBackend(local)
		l.publish(0)
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, establishing(proto, f.client, f.vip)).wantVerdict(redirect, "reject_backend_gone")
		} else {
			l.ingress(outside, f.forward()).dropped("reject_no_backend")
		}
		l.egressForwarded(inside, f.reply().segmentIfTCP(ack|psh, 1001)).wantVerdict(
			map[uint8]uint32{unix.IPPROTO_TCP: redirect, unix.IPPROTO_UDP: tcxDrop}[proto], "drop_flow_gone")
	})
	c.run(t)
}

// A flow that finds no room goes on, and is established as soon as there is
// room, however much it has transferred meanwhile.
func TestRoomThatComesLate(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			full := BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, FlowsNearlyFull: 1}
			l.must(l.Established.Put(uint32(0), uint32(1)))
			l.must(l.BlixtLayout2.Put(uint32(0), full))
			f := l.openFlow(ip, unix.IPPROTO_TCP, false)
			f.fromBackend(answer(f.protocol, f.backend, f.client))
			next := uint32(5001)
			for range 100 {
				f.fromClient(f.clientPacket(ack, 1001, next, ""), "forwarded flow_over_share")
				next += 40000
				f.fromBackend(f.reply().segment(ack, next-1000, 1001, string(make([]byte, 1000))))
			}
			full.FlowsNearlyFull = 0
			l.must(l.BlixtLayout2.Put(uint32(0), full))
			f.fromClient(f.clientPacket(ack, 1001, next, ""), "forwarded flow_established")
			f.fromBackend(f.reply().segment(ack|fin, next, 1001, ""))
			f.fromClient(f.clientPacket(ack|fin, 1001, next+1, ""), "forwarded")
			f.fromBackendCounting(f.reply().segment(ack, next+1, 1002, ""), "replied flow_closed")
		}
	}
	c.run(t)
}
