// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestFlowLife(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "moves to flows when the client answers the backend", func(l *lb, ip ipVersion, proto uint8) {
		before := "new_flows"
		if proto == unix.IPPROTO_UDP {
			before = "udp_flows"
		}
		l.serve(ip, proto, local)
		c := l.openFlow(ip, proto, false)
		l.wantTable(c.forward(), before)
		l.wantTable(c.reply(), before)
		c.fromClient(opening(proto, c.client, c.vip), "forwarded") // repeated: it has got no answer
		l.wantTable(c.forward(), before)
		c.fromBackend(answer(proto, c.backend, c.client))
		c.fromBackend(answer(proto, c.backend, c.client))
		l.wantTable(c.forward(), before)
		c.fromClient(establishing(proto, c.client, c.vip), "forwarded"+andEstablished(proto))
		l.wantTable(c.forward(), livesIn(proto))
		l.wantTable(c.reply(), livesIn(proto))
	})
	for _, ip := range ipVersions {
		tcpCase := func(name string, run func(c localFlow)) {
			c[ip.name+" TCP "+name] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_TCP, local)
				run(localFlow{l, ip, unix.IPPROTO_TCP, port(ip.vip, "80"), ip.local, ip.client})
			}
		}
		for name, try := range map[string]packet{
			"acknowledgement of nothing":      tcp(ip.client, port(ip.vip, "80")).segment(ack, 1001, 0, ""),
			"acknowledgement of too little":   tcp(ip.client, port(ip.vip, "80")).segment(ack, 1001, 5000, ""),
			"acknowledgement of far too much": tcp(ip.client, port(ip.vip, "80")).segment(ack, 1001, 5001+1<<16, ""),
			"segment without ACK":             tcp(ip.client, port(ip.vip, "80")).segment(psh, 1001, 5001, "data"),
			"RST":                             tcp(ip.client, port(ip.vip, "80")).segment(rst|ack, 1003, 5001, ""),
			"SYN again":                       tcp(ip.client, port(ip.vip, "80")).segment(syn, 1000, 0, ""),
		} {
			tcpCase("does not establish: "+name, func(c localFlow) {
				c.open(false)
				c.fromBackend(answer(c.protocol, c.backend, c.client))
				c.fromClient(try, "forwarded")
				c.wantTable(c.forward(), "new_flows")
			})
		}
		tcpCase("does not establish: acknowledgement before the answer", func(c localFlow) {
			c.open(false)
			c.fromClient(establishing(c.protocol, c.client, c.vip), "forwarded")
			c.wantTable(c.forward(), "new_flows")
		})
		tcpCase("RST of the backend is no answer", func(c localFlow) {
			c.open(false)
			c.fromBackendCounting(c.reply().segment(rst|ack, 0, 1001, ""), "replied flow_closed")
			c.fromClient(c.clientPacket(ack, 1001, 1, ""), "forwarded")
			c.wantTable(c.forward(), "new_flows")
		})
		tcpCase("establishes with data on top of the first acknowledgement", func(c localFlow) {
			c.open(false)
			c.fromBackend(answer(c.protocol, c.backend, c.client))
			c.fromClient(c.clientPacket(ack|psh, 1001, 5001+1000, "late, but proven"), "forwarded flow_established")
		})
		tcpCase("acknowledgement wraps around", func(c localFlow) {
			c.open(false)
			c.fromBackend(c.reply().segment(syn|ack, 0xffffffff, 1001, ""))
			c.fromClient(c.clientPacket(ack, 1001, 0, ""), "forwarded flow_established")
		})
		tcpCase("FIN of one side does not end the flow", func(c localFlow) {
			c.open(true)
			c.fromClient(c.clientPacket(ack|fin, 1001, 5001, ""), "forwarded")
			c.wantEnds("the backend has not acknowledged it", 0, 0)
			c.publish(0, remote) // the ring does not matter
			for i := range uint32(3) {
				c.fromBackend(c.reply().segment(ack|psh, 5001+i, 1002, "more"))
				c.fromClient(c.clientPacket(ack, 1002, 5005+i, ""), "forwarded")
				c.wantEnds("acknowledged", BlixtFlowFlagFLOW_FIN, 0)
				c.wantTable(c.forward(), "flows")
			}
			c.fromBackend(c.reply().segment(ack|fin, 5007, 1002, ""))
			c.fromClient(c.clientPacket(ack, 1002, 5008, ""), "forwarded flow_closed")
			c.wantEnds("both", BlixtFlowFlagFLOW_FIN, BlixtFlowFlagFLOW_FIN)
			c.wantTable(c.forward(), "new_flows")
			c.fromBackend(c.reply().segment(ack|fin, 5007, 1002, "")) // late segments are still translated
			c.fromClient(c.clientPacket(ack, 1002, 5008, ""), "forwarded")
		})
		tcpCase("RST is recorded on the side that sent it", func(c localFlow) {
			c.open(true)
			c.fromBackendCounting(c.reply().segment(rst, 5001, 0, ""), "replied flow_closed")
			c.wantEnds("RST", 0, BlixtFlowFlagFLOW_RST)
		})
		tcpCase("a SYN after the end of a flow begins a new one", func(c localFlow) {
			for _, end := range []func(){
				func() { c.fromClient(c.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed") },
				func() {
					c.fromClient(c.clientPacket(fin|ack, 1001, 5001, ""), "forwarded")
					c.fromBackend(c.reply().segment(fin|ack, 5001, 1002, ""))
					c.fromClient(c.clientPacket(ack, 1002, 5002, ""), "forwarded flow_closed")
				},
			} {
				c.clear()
				c.config(0)
				c.serve(c.ip, c.protocol, local)
				c.open(true)
				end()
				c.fromClient(opening(c.protocol, c.client, c.vip), "flow_new forwarded")
				c.wantTable(c.forward(), "new_flows")
				c.wantTable(c.reply(), "new_flows")
			}
		})
		tcpCase("a RST begins no flow", func(c localFlow) {
			c.ingress(outside, c.clientPacket(rst, 1, 0, "")).dropped("drop_no_flow")
			c.ingress(outside, c.clientPacket(rst|ack, 1, 1, "")).dropped("drop_no_flow")
			c.wantTable(c.forward(), "none")
		})
		tcpCase("a segment of an unknown flow goes to the backend of the ring", func(c localFlow) {
			c.fromClient(c.clientPacket(ack|psh, 77777, 88888, "from another node"), "flow_new forwarded")
			c.fromBackend(c.reply().segment(ack|psh, 88888, 77794, "fine"))
			c.fromClient(c.clientPacket(ack, 77794, 88892, ""), "forwarded flow_established")
		})
	}
	forEachProtocol(c, "backend gone: its flows are reset at the next packet", func(l *lb, ip ipVersion, proto uint8) {
		for _, established := range []bool{false, true} {
			l.clear()
			l.config(0)
			l.serve(ip, proto, local)
			c := l.openFlow(ip, proto, established)
			l.publish(0, remote)
			l.removeBackend(local)
			in := establishing(proto, c.client, c.vip)
			if proto == unix.IPPROTO_TCP {
				l.ingress(outside, in).redirected(in.rstAnswer(rst, 5001, 0), "reject_backend_gone")
			} else {
				out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
				l.ingress(outside, in).redirected(out, "flow_new forwarded")
			}
			l.wantTable(c.forward(), map[uint8]string{unix.IPPROTO_TCP: "none", unix.IPPROTO_UDP: "udp_flows"}[proto])
			l.wantTable(c.reply(), "tombstone")
		}
	})
	forEachProtocol(c, "backend gone: a packet of it becomes a RST for the client", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		c := l.openFlow(ip, proto, true)
		l.removeBackend(local)
		re := c.reply()
		if proto == unix.IPPROTO_TCP {
			re = re.segment(ack|psh, 5001, 1001, "last words")
			l.egressForwarded(pods, re).toStack(re.from(c.vip).turnedIntoRST(), "reject_backend_gone")
		} else {
			l.egressForwarded(pods, re).dropped("reject_backend_gone")
		}
		l.wantTable(c.forward(), "none")
		l.wantTable(c.reply(), "tombstone")
	})
	forEachProtocol(c, "remote backend gone: a packet of it becomes a RST for the client", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		l.removeBackend(remote)
		re := answer(proto, ip.remote, out.src.String())
		if proto == unix.IPPROTO_TCP {
			l.ingress(inside, re).redirected(re.from(port(ip.vip, "80")).to(ip.client).turnedIntoRST(), "reject_backend_gone")
		} else {
			l.ingress(inside, re).dropped("reject_backend_gone")
		}
		l.wantTable(in, "none")
		l.wantTable(re, map[uint8]string{unix.IPPROTO_TCP: "tombstone", unix.IPPROTO_UDP: "none"}[proto])
	})
	forEachProtocol(c, "backend gone: the next backend with its id gets none of its flows", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		c := l.openFlow(ip, proto, true)
		l.removeBackend(local)
		l.removeBackend(local) // an odd generation again: the id is in use
		in := establishing(proto, c.client, c.vip)
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, in).redirected(in.rstAnswer(rst, 5001, 0), "reject_backend_gone")
		} else {
			c.fromClient(in, "flow_new forwarded")
		}
	})
	forEachProtocol(c, "backend gone: a SYN begins a flow to another one", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		c := l.openFlow(ip, proto, true)
		l.publish(0, remote)
		l.removeBackend(local)
		in := opening(proto, c.client, c.vip)
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
	})
	forEachProtocol(c, "ring changes: a flow stays where it is", func(l *lb, ip ipVersion, proto uint8) {
		for _, established := range []bool{false, true} {
			l.clear()
			l.config(0)
			l.serve(ip, proto, local)
			c := l.openFlow(ip, proto, established)
			l.publish(0, remote)
			c.fromClient(c.clientPacket(ack|psh, 1001, 0, "still here"), "forwarded")
			c.fromBackend(c.reply().segment(ack, 5001, 1001, "still here"))
			l.publish(0) // no backend at all
			c.fromClient(c.clientPacket(ack|psh, 1001, 0, "still here"), "forwarded")
			l.must(l.Frontends.Delete(BlixtFrontendKey{Addr: addrOf(ap(c.vip).Addr()), Port: htons(80), Protocol: proto}))
			if established || proto == unix.IPPROTO_UDP {
				c.fromClient(c.clientPacket(ack|psh, 1001, 0, "still here"), "forwarded")
			}
		}
	})
	forEachProtocol(c, "ring changes: the SYN of an unanswered flow goes to the backend of the new ring", func(l *lb, ip ipVersion, proto uint8) {
		if proto != unix.IPPROTO_TCP {
			return
		}
		l.serve(ip, proto, local)
		c := l.openFlow(ip, proto, false)
		l.publish(0, remote)
		in := opening(proto, c.client, c.vip)
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
		l.wantTable(c.reply(), "tombstone")
	})
	forEachProtocol(c, "idle in both directions: expired", func(l *lb, ip ipVersion, proto uint8) {
		for _, established := range []bool{false, true} {
			l.clear()
			l.config(0)
			l.serve(ip, proto, local)
			c := l.openFlow(ip, proto, established)
			l.age(c.forward(), idleTicks+2)
			l.age(c.reply(), idleTicks+2)
			l.publish(0, remote)
			in := establishing(proto, c.client, c.vip)
			out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
			l.ingress(outside, in).redirected(out, "flow_expired flow_new forwarded")
			l.wantTable(c.reply(), "tombstone")
		}
	})
	forEachProtocol(c, "idle in one direction: alive", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		c := l.openFlow(ip, proto, true)
		l.age(c.forward(), idleTicks+2)
		c.fromClient(c.clientPacket(ack, 1001, 5001, ""), "forwarded")
		l.age(c.reply(), idleTicks+2)
		c.fromBackend(c.reply().segment(ack, 5001, 1001, ""))
		l.age(c.forward(), idleTicks-1)
		l.age(c.reply(), idleTicks-1)
		c.fromClient(c.clientPacket(ack, 1001, 5001, ""), "forwarded")
	})
	forEachProtocol(c, "idle in both directions: a reply is not translated", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		c := l.openFlow(ip, proto, true)
		l.age(c.forward(), idleTicks+2)
		l.age(c.reply(), idleTicks+2)
		l.egressForwarded(pods, c.reply()).dropped("flow_expired drop_flow_gone")
		l.wantTable(c.forward(), "none")
	})
	forEachProtocol(c, "a packet keeps the flow alive", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		c := l.openFlow(ip, proto, true)
		l.age(c.forward(), 30)
		_, before := l.flow(c.forward())
		c.fromClient(c.clientPacket(ack, 1001, 5001, ""), "forwarded")
		if _, after := l.flow(c.forward()); after.LastSeen-before.LastSeen < 30 {
			l.Errorf("last_seen went from %d to %d, want 30 more", before.LastSeen, after.LastSeen)
		}
	})
	forEachProtocol(c, "draining: known flows are served, everything else is passed on", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		c := l.openFlow(ip, proto, true)
		fresh := localFlow{l, ip, proto, c.vip, c.backend, port(ap(ip.client).Addr().String(), "40001")}
		fresh.open(false)
		l.config(BlixtConfigFlagCONFIG_DRAIN)
		c.fromClient(c.clientPacket(ack, 1001, 5001, ""), "forwarded")
		c.fromBackend(c.reply().segment(ack, 5001, 1001, ""))
		fresh.fromBackend(answer(proto, c.backend, fresh.client))
		fresh.fromClient(establishing(proto, fresh.client, c.vip), "forwarded"+andEstablished(proto))
		stranger := port(ap(ip.client).Addr().String(), "40002")
		l.ingress(outside, opening(proto, stranger, c.vip)).untouched("drained")
		l.ingress(outside, opening(proto, stranger, port(ip.vip, "81"))).untouched("drained")
		l.ingress(outside, echo(ap(stranger).Addr().String(), ip.vip)).untouched("drained")
		l.ingress(outside, withoutPorts(unix.IPPROTO_SCTP, stranger, ip.vip)).untouched("drained")
		l.ingress(outside, establishing(proto, stranger, c.vip).withSize(1000).fragment(504, 0)).untouched("drained")
		l.ingress(outside, opening(proto, stranger, port(ip.shared, "81"))).untouched("not_ours")
		l.removeBackend(local)
		in := establishing(proto, c.client, c.vip)
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, in).redirected(in.rstAnswer(rst, 5001, 0), "reject_backend_gone")
		} else {
			l.ingress(outside, in).untouched("drained")
		}
	})
	c.run(t)
}
