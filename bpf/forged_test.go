// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever cannot see the packets of a connection knows its addresses and ports
// at most. No packet of theirs may change what becomes of its flow.
func TestForgedPacketsChangeNothing(t *testing.T) {
	c := cases{}
	const far = 0x12345678 // from all sequence numbers of the connection
	for _, ip := range ipVersions {
		for name, forged := range map[string]struct {
			segments [][3]uint32 // flags, sequence number, acknowledgement number
		}{
			"a SYN":                              {[][3]uint32{{syn, far, 0}}},
			"the first SYN again":                {[][3]uint32{{syn, 1000, 0}}},
			"SYN and RST":                        {[][3]uint32{{syn | rst, far, 0}}},
			"SYN and RST of the right number":    {[][3]uint32{{syn | rst, 1001, 5001}}},
			"SYN and FIN":                        {[][3]uint32{{syn | fin, far, 0}}},
			"a RST":                              {[][3]uint32{{rst, far, 0}}},
			"a RST one number too far":           {[][3]uint32{{rst, 1002, 0}}},
			"RST and ACK":                        {[][3]uint32{{rst | ack, far, far}}},
			"a FIN":                              {[][3]uint32{{fin | ack, far, far}}},
			"a FIN without ACK":                  {[][3]uint32{{fin, 1001, 0}}},
			"a FIN of the right sequence number": {[][3]uint32{{fin | ack, 1001, far}}},
			"data, and a RST that fits it":       {[][3]uint32{{ack | psh, far, far}, {rst, far + 5, 0}}},
			"data at the right place, and a RST that fits it": {[][3]uint32{{ack | psh, 1001, far}, {rst, 1006, 0}}},
			"data with the right acknowledgement, and a RST that fits it": {
				[][3]uint32{{ack | psh, far, 5001}, {rst, far + 5, 0}}},
			"data of both sides that fit each other, and a RST that fits them": {
				[][3]uint32{{ack | psh, far, far}, {ack | psh, far, far + 5}, {rst, far + 5, 0}}},
		} {
			for _, side := range []string{"client", "backend"} {
				if side == "backend" && forged.segments[0][0]&syn != 0 {
					continue // the first case of its kind has no meaning: see below
				}
				c[ip.name+" of the "+side+": "+name] = func(l *lb) {
					l.serve(ip, unix.IPPROTO_TCP, local)
					f := l.openFlow(ip, unix.IPPROTO_TCP, true)
					l.publish(0, remote) // so that a lost flow would go elsewhere
					for i, s := range forged.segments {
						payload := ""
						if s[0]&psh != 0 {
							payload = "five!"
						}
						flags, seq, ackNo := uint8(s[0]), s[1], s[2]
						if fromClient := (side == "client") != (i == 1 && len(forged.segments) == 3); fromClient {
							f.fromClient(f.clientPacket(flags, seq, ackNo, payload), "forwarded")
							continue
						}
						// The same distances from the numbers of the backend.
						if seq-1000 < 10 {
							seq += 4000
						}
						if ackNo-5000 < 10 {
							ackNo -= 4000
						}
						f.fromBackend(f.reply().segment(flags, seq, ackNo, payload))
					}
					f.wantEnds("after the forged packets", 0, 0)
					l.wantTable(f.forward(), "flows")
					l.wantTable(f.reply(), "flows")
					f.fromBackend(f.reply().segment(ack|psh, 5001, 1001, "a push"))
					f.fromClient(f.clientPacket(ack, 1001, 5007, ""), "forwarded")
					// What is real still counts.
					f.fromClient(f.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed")
					f.wantEnds("after the real one", BlixtFlowFlagFLOW_RST, 0)
				}
			}
		}
	}
	c.run(t)
}

// TestClientThatBeganAnew is RFC 5961, 4: the backend sends a challenge ACK, the
// client's RST closes the flow, and its next SYN gets what the ring says.
func TestClientThatBeganAnew(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			f := l.openFlow(ip, unix.IPPROTO_TCP, true)
			f.fromClient(f.clientPacket(ack|psh, 1001, 5001, "hello"), "forwarded")
			l.publish(0, remote)
			again := opening(unix.IPPROTO_TCP, f.client, f.vip).segment(syn, 777777, 0, "")
			f.fromClient(again, "forwarded")
			f.fromBackend(f.reply().segment(ack, 5001, 1006, ""))                   // the challenge
			f.fromClient(f.clientPacket(rst, 1006, 0, ""), "forwarded flow_closed") // the answer
			l.ingress(outside, again).redirected(again.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
		}
	}
	c.run(t)
}

// A backend that has lost the connection, as after a restart, answers the SYN of
// a client that uses the ports again. The numbers of that connection count then,
// or its end would not be seen.
func TestBackendThatBeganAnew(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			f := l.openFlow(ip, unix.IPPROTO_TCP, true)
			f.fromClient(f.clientPacket(syn, 777777, 0, ""), "forwarded")
			f.fromBackend(f.reply().segment(syn|ack, 0x70000000, 0x12345678, "")) // of another SYN: forged
			f.fromBackend(f.reply().segment(syn|ack, 0x80000000, 777778, ""))
			f.fromClient(f.clientPacket(ack, 777778, 0x80000001, ""), "forwarded")
			f.fromClient(f.clientPacket(rst, 1001, 0, ""), "forwarded") // the number of before
			l.wantTable(f.forward(), "flows")
			f.fromClient(f.clientPacket(fin|ack, 777778, 0x80000001, ""), "forwarded")
			f.fromBackend(f.reply().segment(fin|ack, 0x80000001, 777779, ""))
			f.fromClient(f.clientPacket(ack, 777779, 0x80000002, ""), "forwarded flow_closed")
		}
	}
	c.run(t)
}

// A half-open flow believes no more than an established one.
func TestForgedPacketsToHalfOpenFlows(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		half := func(name string, run func(f localFlow)) {
			c[ip.name+" "+name] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_TCP, local)
				run(l.openFlow(ip, unix.IPPROTO_TCP, false))
			}
		}
		half("a SYN after the answer", func(f localFlow) {
			f.fromBackend(answer(f.protocol, f.backend, f.client))
			f.publish(0, remote)
			f.fromClient(f.clientPacket(syn, 0x12345678, 0, ""), "forwarded")
			f.fromClient(establishing(f.protocol, f.client, f.vip), "forwarded flow_established")
		})
		half("a RST of another number, before and after the answer", func(f localFlow) {
			f.fromClient(f.clientPacket(rst, 0x12345678, 0, ""), "forwarded")
			f.fromBackend(f.reply().segment(rst|ack, 0, 0x12345678, ""))
			f.fromBackend(f.reply().segment(rst, 0, 0, ""))
			f.fromBackend(answer(f.protocol, f.backend, f.client))
			f.fromClient(f.clientPacket(rst, 0, 0, ""), "forwarded")
			f.fromBackend(f.reply().segment(rst|ack, 0, 0x12345678, ""))
			f.fromClient(establishing(f.protocol, f.client, f.vip), "forwarded flow_established")
		})
		half("a SYN-ACK that does not acknowledge the client's SYN", func(f localFlow) {
			f.fromBackend(f.reply().segment(syn|ack, 99, 0x12345678, ""))
			f.fromClient(f.clientPacket(ack, 1001, 100, ""), "forwarded")
			f.wantTable(f.forward(), "new_flows")
			f.fromBackend(answer(f.protocol, f.backend, f.client))
			f.fromBackend(f.reply().segment(syn|ack, 99, 0x12345678, ""))
			f.fromClient(establishing(f.protocol, f.client, f.vip), "forwarded flow_established")
		})
		half("a second SYN-ACK with another number, as a restarted backend sends it", func(f localFlow) {
			f.fromBackend(answer(f.protocol, f.backend, f.client))
			f.fromBackend(f.reply().segment(syn|ack, 900000, 1001, ""))
			f.fromClient(f.clientPacket(ack, 1001, 5001, ""), "forwarded") // the client has taken the first
			f.wantTable(f.forward(), "new_flows")
			f.fromClient(f.clientPacket(ack, 1001, 900001, ""), "forwarded flow_established")
		})
		half("a backend that refuses", func(f localFlow) {
			f.fromBackendCounting(f.reply().segment(rst|ack, 0, 1001, ""), "replied flow_closed")
			f.publish(0, remote)
			in := opening(f.protocol, f.client, f.vip)
			f.ingress(outside, in).redirected(in.snat(f.ip.nodeIn, 0).to(f.ip.remote).hop(), "flow_new forwarded")
		})
	}
	c.run(t)
}

// TestConnectionEnds goes through the ways in which connections end.
func TestConnectionEnds(t *testing.T) {
	c := cases{}
	const closed = "forwarded flow_closed"
	for _, ip := range ipVersions {
		end := func(name string, run func(f localFlow)) {
			c[ip.name+" "+name] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_TCP, local)
				f := l.openFlow(ip, unix.IPPROTO_TCP, true)
				run(f)
			}
		}
		end("a FIN after a lost segment", func(f localFlow) {
			f.fromClient(f.clientPacket(fin|ack, 2001, 5001, ""), "forwarded") // 1001 to 2000 were lost before us
			f.fromBackend(f.reply().segment(ack, 5001, 1001, ""))
			f.wantEnds("not acknowledged", 0, 0)
			f.fromClient(f.clientPacket(ack, 1001, 5001, string(make([]byte, 1000))), "forwarded")
			f.fromBackend(f.reply().segment(ack|fin, 5001, 2002, ""))
			f.wantEnds("acknowledged", BlixtFlowFlagFLOW_FIN, 0)
			f.fromClient(f.clientPacket(ack, 2002, 5002, ""), closed)
		})
		end("FINs that cross each other", func(f localFlow) {
			f.fromClient(f.clientPacket(fin|ack, 1001, 5001, ""), "forwarded")
			f.fromBackend(f.reply().segment(ack|fin, 5001, 1001, ""))
			f.fromClient(f.clientPacket(ack, 1002, 5002, ""), "forwarded")
			f.wantEnds("one acknowledged", 0, BlixtFlowFlagFLOW_FIN)
			f.fromBackendCounting(f.reply().segment(ack, 5002, 1002, ""), "replied flow_closed")
		})
		end("a RST by the number that the other side has acknowledged", func(f localFlow) {
			f.fromClient(f.clientPacket(ack|psh, 1001, 5001, "lost behind us"), "forwarded")
			f.fromClient(f.clientPacket(rst, 1001, 0, ""), closed) // the client's answer to the backend's last ACK
		})
		end("half closed, and silent", func(f localFlow) {
			f.fromClient(f.clientPacket(fin|ack, 1001, 5001, ""), "forwarded")
			f.fromBackend(f.reply().segment(ack, 5001, 1002, ""))
			f.wantTable(f.forward(), "flows")
			for _, p := range []packet{f.forward(), f.reply()} {
				if _, e := f.flow(p); e.IdleTicks > idleTicks {
					f.Errorf("a half-closed flow may be idle for %d ticks, an open one for %d", e.IdleTicks, idleTicks)
				}
			}
		})
		end("closed flows hold no room", func(f localFlow) {
			f.wantEstablished(1, 1)
			f.fromClient(f.clientPacket(rst, 1001, 0, ""), closed)
			f.wantTable(f.forward(), "new_flows")
			f.wantTable(f.reply(), "new_flows")
			f.wantEstablished(0, 0)
		})
	}
	c.run(t)
}

// wantEstablished checks how many flows the data plane counts as established: of
// frontend 0, and of all.
func (l *lb) wantEstablished(frontend, all uint32) {
	l.Helper()
	for i, want := range map[uint32]uint32{0: all, 1: frontend} {
		var n uint32
		l.must(l.Established.Lookup(i, &n))
		if n != want {
			l.Errorf("established[%d] is %d, want %d", i, n, want)
		}
	}
}

// A half-closed or closed flow does not live as long as the frontend's
// connections may be idle, if that is long.
func TestTransitoryTimeouts(t *testing.T) {
	const transitory, embryonic, long = 240_000_000_000 >> 30, 63_000_000_000 >> 30, 7560
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			k := BlixtFrontendKey{Addr: addrOf(ap(port(ip.vip, "80")).Addr()), Port: htons(80), Protocol: unix.IPPROTO_TCP}
			l.must(l.Frontends.Put(k, BlixtFrontend{IdleTicks: long}))
			f := localFlow{l, ip, unix.IPPROTO_TCP, port(ip.vip, "80"), ip.local, ip.client}
			want := func(when string, ticks uint32) {
				l.Helper()
				for _, p := range []packet{f.forward(), f.reply()} {
					if _, e := l.flow(p); e.IdleTicks != ticks {
						l.Errorf("%s: %v -> %v may be idle for %d ticks, want %d", when, p.src, p.dst, e.IdleTicks, ticks)
					}
				}
			}
			f.open(false)
			want("not answered", embryonic)
			f.fromBackend(answer(f.protocol, f.backend, f.client))
			want("answered", transitory)
			f.fromClient(establishing(f.protocol, f.client, f.vip), "forwarded flow_established")
			want("established", long)
			f.fromClient(f.clientPacket(fin|ack, 1001, 5001, ""), "forwarded")
			want("a FIN that is not acknowledged", long)
			f.fromBackend(f.reply().segment(ack, 5001, 1002, ""))
			want("half closed", transitory)
			f.fromBackend(f.reply().segment(ack|fin, 5001, 1002, ""))
			f.fromClient(f.clientPacket(ack, 1002, 5002, ""), "forwarded flow_closed")
			want("closed", transitory)
		}
	}
	c.run(t)
}

// Another CPU may end a flow and reuse its element while a packet is at work
// with it. The tag tells: the packet must not get the other flow's tuple.
func TestElementOfAnotherFlow(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		f := l.openFlow(ip, proto, true)
		m, e := l.flow(f.forward())
		e.Tag++
		e.Dst = addrOf(ap(port(ip.vip, "9")).Addr()) // as if of another flow
		l.must(m.Put(keyOf(f.forward()), e))
		l.forgetKept()
		in := establishing(proto, f.client, f.vip)
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		m, e = l.flow(f.reply())
		e.Tag++
		l.must(m.Put(keyOf(f.reply()), e))
		l.forgetKept()
		l.egressForwarded(pods, f.reply()).untouched("not_ours")
	})
	c.run(t)
}

// A frontend that has its share of a nearly full table establishes no more
// flows; others do.
func TestShareOfEstablishedFlows(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name] = func(l *lb) {
			l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, FlowsNearlyFull: 3, FlowsShare: 2}))
			l.serve(ip, unix.IPPROTO_TCP, local)
			l.backend(other, ip.local)
			l.frontend(1, unix.IPPROTO_TCP, port(ip.shared, "80"), other)
			open := func(vip string, client int, counter string) localFlow {
				f := localFlow{l, ip, unix.IPPROTO_TCP, vip, ip.local, addrPort(ap(ip.client).Addr(), 50000+client).String()}
				f.open(false)
				f.fromBackend(answer(f.protocol, f.backend, f.client))
				f.fromClient(establishing(f.protocol, f.client, f.vip), "forwarded "+counter)
				return f
			}
			first := open(port(ip.vip, "80"), 0, "flow_established")
			open(port(ip.vip, "80"), 1, "flow_established")
			open(port(ip.vip, "80"), 2, "flow_established") // more than its share of a table that is not nearly full
			late := open(port(ip.vip, "80"), 3, "flow_over_share")
			l.wantTable(late.forward(), "new_flows")
			open(port(ip.shared, "80"), 4, "flow_established")
			late.fromBackend(late.reply().segment(ack, 5001, 1001, "it works all the same"))
			first.fromClient(first.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed")
			late.fromClient(establishing(late.protocol, late.client, late.vip), "forwarded flow_over_share")
		}
	}
	c.run(t)
}

// A backend on this node that does not know yet that its flow is gone must not
// be heard with its own address. Traffic that never was ours must be.
// late sends a packet of a backend on this node whose flow is gone. It is answered with a RST, or dropped.
func (l *lb) late(p packet, answered bool) {
	l.Helper()
	r := l.egressForwarded(pods, p)
	if answered {
		r.wantVerdict(redirect, "drop_flow_gone")
		r.wantPacket(p.rstAnswer(rst, p.ack, 0))
	} else {
		r.dropped("drop_flow_gone")
	}
}

// The server of a connection that was reset because its backend is gone hears so, too: when it
// next sends something.
func TestServerHearsOfTheEnd(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		vip := port(ip.vip, "80")
		in := establishing(unix.IPPROTO_TCP, ip.client, vip)
		c[ip.name+" on this node"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			f := l.openFlow(ip, unix.IPPROTO_TCP, true)
			l.removeBackend(local)
			l.ingress(outside, in).redirected(in.rstAnswer(rst, 5001, 0), "reject_backend_gone")
			l.late(f.reply().segment(ack, 5000, 1001, "k"), true) // keepalive
		}
		c[ip.name+" elsewhere"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, remote)
			open := opening(unix.IPPROTO_TCP, ip.client, vip)
			out := open.snat(ip.nodeIn, 0).to(ip.remote)
			l.ingress(outside, open).redirected(out.hop(), "flow_new forwarded")
			re := answer(unix.IPPROTO_TCP, ip.remote, out.src.String())
			l.ingress(inside, re).wantVerdict(redirect, "replied")
			l.ingress(outside, in).wantVerdict(redirect, "forwarded flow_established")
			l.removeBackend(remote)
			data := re.segment(ack|psh, 5001, 1001, "more")
			l.ingress(inside, data).redirected(data.from(vip).to(ip.client).turnedIntoRST(), "reject_backend_gone")
			r := l.ingress(inside, data) // repeated, as nobody has acknowledged it
			r.wantVerdict(redirect, "drop_flow_gone")
			r.wantPacket(data.rstAnswer(rst, 1001, 0))
			// A new flow takes the tuple.
			l.backend(remote, ip.remote)
			l.ingress(outside, open).redirected(out.hop(), "flow_new forwarded")
		}
		c[ip.name+" on this node, of a client on it"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			pod := map[string]string{"IPv4": "10.2.0.99:40000", "IPv6": "[fd00:2::99]:40000"}[ip.name]
			open := opening(unix.IPPROTO_TCP, pod, vip)
			l.egressForwarded(pods, open).wantVerdict(redirect, "flow_new forwarded")
			_, f := l.flow(open)
			source := addrPort(ap(vip).Addr(), int(htons(f.Sport))).String()
			re := answer(unix.IPPROTO_TCP, ip.local, source)
			l.egressForwarded(pods, re).wantVerdict(redirect, "replied")
			l.egressForwarded(pods, establishing(unix.IPPROTO_TCP, pod, vip)).wantVerdict(redirect, "forwarded flow_established")
			l.removeBackend(local)
			last := establishing(unix.IPPROTO_TCP, pod, vip)
			l.egressForwarded(pods, last).wantVerdict(redirect, "reject_backend_gone")
			l.late(re.segment(ack, 5000, 1001, "k"), true)
		}
	}
	c.run(t)
}

func TestTombstones(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "late packets are dropped, and those of TCP answered", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		f := l.openFlow(ip, proto, true)
		l.removeBackend(local)
		in := establishing(proto, f.client, f.vip)
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, in).redirected(in.rstAnswer(rst, 5001, 0), "reject_backend_gone")
		} else {
			l.ingress(outside, in).dropped("reject_no_backend")
		}
		for _, flags := range []uint8{ack | psh, ack | fin, rst} {
			late := f.reply().segmentIfTCP(flags, 1001)
			l.late(late, proto == unix.IPPROTO_TCP && flags != rst)
		}
		direct := localFlow{l, ip, proto, f.vip, f.backend, port(ap(ip.client).Addr().String(), "40001")}
		l.egressForwarded(pods, answer(proto, direct.backend, direct.client)).untouched("not_ours")
	})
	forEachProtocol(c, "the same tuple past us", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		f := l.openFlow(ip, proto, true)
		l.removeBackend(local)
		l.publish(0)
		l.egressForwarded(pods, f.reply().segmentIfTCP(ack, 1001)).wantVerdict(map[uint8]uint32{unix.IPPROTO_TCP: tcxNext, unix.IPPROTO_UDP: tcxDrop}[proto], "reject_backend_gone")
		l.wantTable(f.reply(), "tombstone")
		if proto == unix.IPPROTO_UDP {
			l.age(f.reply(), 60_000_000_000>>30+1)
		} else {
			l.late(f.reply().segment(syn|ack, 5000, 1001, ""), true) // repeated
		}
		re := answer(proto, f.backend, f.client)
		re.ack = 4711
		l.egressForwarded(pods, re).untouched("not_ours")
		l.wantTable(f.reply(), "none")
		l.egressForwarded(pods, f.reply().segmentIfTCP(ack, 4711)).untouched("not_ours")
	})
	for _, ip := range ipVersions {
		c[ip.name+" TCP as the sweep leaves them"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			f := localFlow{l, ip, unix.IPPROTO_TCP, port(ip.vip, "80"), ip.local, ip.client}
			l.interested(keyOf(f.reply()).Src, BlixtInterestFlagINTEREST_FROM)
			l.must(l.NewFlows.Put(keyOf(f.reply()), Tombstone(keyOf(f.reply()), BlixtFlowFlagFLOW_STACK, 0)))
			l.late(f.reply().segment(ack|psh, 5001, 1001, "a push after hours"), true)
			l.egressForwarded(pods, f.reply().segment(syn|ack, 1, 1, "")).untouched("not_ours")
			l.wantTable(f.reply(), "none")
		}
	}
	forEachProtocol(c, "a flow of the same tuple takes its place", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		f := l.openFlow(ip, proto, true)
		l.age(f.forward(), 10000)
		l.age(f.reply(), 10000)
		l.egressForwarded(pods, f.reply().segmentIfTCP(ack, 1001)).dropped("flow_expired drop_flow_gone")
		l.wantTable(f.reply(), "tombstone")
		f.open(true)
		l.wantTable(f.reply(), livesIn(proto))
	})
	c.run(t)
}

// No number of UDP flows, forged or not, takes room from TCP.
func TestUDPTakesNothingFromTCP(t *testing.T) {
	for _, ip := range ipVersions {
		t.Run(ip.name, func(t *testing.T) {
			l := newLBWithTables(t, 64, 64)
			l.serve(ip, unix.IPPROTO_TCP, local)
			l.backend(other, ip.local)
			l.frontend(1, unix.IPPROTO_UDP, port(ip.vip, "53"), other)
			f := localFlow{l, ip, unix.IPPROTO_TCP, port(ip.vip, "80"), ip.local, ip.client}
			f.open(false)
			f.fromBackend(answer(f.protocol, f.backend, f.client))
			for i := range 500 { // each twice, and answered: all that a forger can bring about
				u := localFlow{l, ip, unix.IPPROTO_UDP, port(ip.vip, "53"), ip.local, addrPort(ap(ip.client).Addr(), 20000+i).String()}
				u.fromClient(u.forward(), "flow_new forwarded")
				u.fromBackend(u.reply())
				u.fromClient(u.forward(), "forwarded")
			}
			l.wantTable(f.forward(), "new_flows")
			f.fromClient(establishing(f.protocol, f.client, f.vip), "forwarded flow_established")
			l.wantEstablished(1, 1)
		})
	}
}
