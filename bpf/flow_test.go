// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestFlowLife(t *testing.T) {
	c := cases{}
	everywhere(c, "moves to flows when the client answers the backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		c := l.converse(w, proto, false)
		l.wantIn(c.forward(), "new_flows")
		l.wantIn(c.reverse(), "new_flows")
		c.there(opening(proto, c.client, c.vip), "forwarded") // again: no answer came
		l.wantIn(c.forward(), "new_flows")
		c.here(answer(proto, c.backend, c.client))
		c.here(answer(proto, c.backend, c.client))
		l.wantIn(c.forward(), "new_flows")
		c.there(second(proto, c.client, c.vip), "forwarded flow_established")
		l.wantIn(c.forward(), "flows")
		l.wantIn(c.reverse(), "flows")
	})
	for _, w := range worlds {
		tcpCase := func(name string, run func(c conversation)) {
			c[w.name+" TCP "+name] = func(l *lb) {
				l.serve(w, unix.IPPROTO_TCP, local)
				run(conversation{l, w, unix.IPPROTO_TCP, port(w.vip, "80"), w.local, w.client})
			}
		}
		for name, try := range map[string]packet{
			"acknowledgement of nothing":      tcp(w.client, port(w.vip, "80")).segment(ack, 1001, 0, ""),
			"acknowledgement of too little":   tcp(w.client, port(w.vip, "80")).segment(ack, 1001, 5000, ""),
			"acknowledgement of far too much": tcp(w.client, port(w.vip, "80")).segment(ack, 1001, 5001+1<<20, ""),
			"segment without ACK":             tcp(w.client, port(w.vip, "80")).segment(psh, 1001, 5001, "data"),
			"RST":                             tcp(w.client, port(w.vip, "80")).segment(rst|ack, 1001, 5001, ""),
			"SYN again":                       tcp(w.client, port(w.vip, "80")).segment(syn, 1000, 0, ""),
		} {
			tcpCase("does not establish: "+name, func(c conversation) {
				c.open(false)
				c.here(answer(c.protocol, c.backend, c.client))
				c.there(try, "forwarded")
				c.wantIn(c.forward(), "new_flows")
			})
		}
		tcpCase("does not establish: acknowledgement before the answer", func(c conversation) {
			c.open(false)
			c.there(second(c.protocol, c.client, c.vip), "forwarded")
			c.wantIn(c.forward(), "new_flows")
		})
		tcpCase("RST of the backend is no answer", func(c conversation) {
			c.open(false)
			c.here(c.reverse().segment(rst|ack, 0, 1001, ""))
			c.there(c.says(ack, 1001, 1, ""), "forwarded")
			c.wantIn(c.forward(), "new_flows")
		})
		tcpCase("establishes with data on top of the first acknowledgement", func(c conversation) {
			c.open(false)
			c.here(answer(c.protocol, c.backend, c.client))
			c.there(c.says(ack|psh, 1001, 5001+1000, "late, but proven"), "forwarded flow_established")
		})
		tcpCase("acknowledgement wraps around", func(c conversation) {
			c.open(false)
			c.here(c.reverse().segment(syn|ack, 0xffffffff, 1001, ""))
			c.there(c.says(ack, 1001, 0, ""), "forwarded flow_established")
		})
		tcpCase("FIN of one side does not end the flow", func(c conversation) {
			c.open(true)
			c.there(c.says(ack|fin, 1001, 5001, ""), "forwarded")
			if f := c.end(c.forward()); f != BlixtFlowFlagFLOW_FIN {
				c.Errorf("client's end %#x, want FIN", f)
			}
			if f := c.end(c.reverse()); f != 0 {
				c.Errorf("backend's end %#x, want none", f)
			}
			c.publish(0, remote) // the ring has nothing to say about it
			for i := range uint32(3) {
				c.here(c.reverse().segment(ack|psh, 5001+i, 1002, "more"))
				c.there(c.says(ack, 1002, 5002+i, ""), "forwarded")
			}
			c.here(c.reverse().segment(ack|fin, 5004, 1002, ""))
			c.there(c.says(ack, 1002, 5005, ""), "forwarded")
			if f := c.end(c.reverse()); f != BlixtFlowFlagFLOW_FIN {
				c.Errorf("backend's end %#x, want FIN", f)
			}
		})
		tcpCase("RST is noted on the side it came from", func(c conversation) {
			c.open(true)
			c.here(c.reverse().segment(rst, 5001, 0, ""))
			if f, r := c.end(c.forward()), c.end(c.reverse()); f != 0 || r != BlixtFlowFlagFLOW_RST {
				c.Errorf("ends %#x and %#x, want none and RST", f, r)
			}
		})
		tcpCase("a new connection of an ended flow's socket begins anew", func(c conversation) {
			for _, end := range []uint8{fin | ack, rst} {
				c.clear()
				c.config(0)
				c.serve(c.w, c.protocol, local)
				c.open(true)
				c.there(c.says(end, 1001, 5001, ""), "forwarded")
				c.there(opening(c.protocol, c.client, c.vip), "flow_new forwarded")
				c.wantIn(c.forward(), "new_flows")
				c.wantIn(c.reverse(), "new_flows")
			}
		})
		tcpCase("a RST or a FIN begins a flow no more than it should", func(c conversation) {
			c.ingress(outside, c.says(rst, 1, 0, "")).dropped("drop_no_flow")
			c.ingress(outside, c.says(rst|ack, 1, 1, "")).dropped("drop_no_flow")
			c.wantIn(c.forward(), "none")
		})
		tcpCase("a segment of an unknown flow goes where the ring says", func(c conversation) {
			c.there(c.says(ack|psh, 77777, 88888, "from another node"), "flow_new forwarded")
			c.here(c.reverse().segment(ack|psh, 88888, 77794, "fine"))
			c.there(c.says(ack, 77794, 88892, ""), "forwarded flow_established")
		})
	}
	everywhere(c, "backend gone: its flows end at once", func(l *lb, w world, proto uint8) {
		for _, established := range []bool{false, true} {
			l.clear()
			l.config(0)
			l.serve(w, proto, local)
			c := l.converse(w, proto, established)
			l.publish(0, remote)
			l.gone(local)
			in := second(proto, c.client, c.vip)
			if proto == unix.IPPROTO_TCP {
				l.ingress(outside, in).redirected(in.refused(rst, 5001, 0), "reject_backend_gone")
			} else {
				out := in.snat(w.nodeIn, 0).to(w.remote).hop()
				l.ingress(outside, in).redirected(out, "flow_new forwarded")
			}
			l.wantIn(c.reverse(), "none")
		}
	})
	everywhere(c, "backend gone: its last words tell the client", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		c := l.converse(w, proto, true)
		l.gone(local)
		re := c.reverse()
		if proto == unix.IPPROTO_TCP {
			re = re.segment(ack|psh, 5001, 1001, "last words")
			l.forwarded(pods, re).next(re.from(c.vip).reset(), "reject_backend_gone")
		} else {
			l.forwarded(pods, re).dropped("reject_backend_gone")
		}
		l.wantIn(c.forward(), "none")
		l.wantIn(c.reverse(), "none")
	})
	everywhere(c, "remote backend gone: its last words tell the client", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		in := opening(proto, w.client, port(w.vip, "80"))
		out := in.snat(w.nodeIn, 0).to(w.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		l.gone(remote)
		re := answer(proto, w.remote, out.src.String())
		if proto == unix.IPPROTO_TCP {
			l.ingress(inside, re).redirected(re.from(port(w.vip, "80")).to(w.client).reset(), "reject_backend_gone")
		} else {
			l.ingress(inside, re).dropped("reject_backend_gone")
		}
		l.wantIn(in, "none")
		l.wantIn(re, "none")
	})
	everywhere(c, "backend gone: whoever gets its id gets no flow of it", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		c := l.converse(w, proto, true)
		l.gone(local)
		l.gone(local) // the generation after is in use again
		in := second(proto, c.client, c.vip)
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, in).redirected(in.refused(rst, 5001, 0), "reject_backend_gone")
		} else {
			c.there(in, "flow_new forwarded")
		}
	})
	everywhere(c, "backend gone: a SYN takes another one", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		c := l.converse(w, proto, true)
		l.publish(0, remote)
		l.gone(local)
		in := opening(proto, c.client, c.vip)
		l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote).hop(), "flow_new forwarded")
	})
	everywhere(c, "ring changes: a flow stays where it is", func(l *lb, w world, proto uint8) {
		for _, established := range []bool{false, true} {
			l.clear()
			l.config(0)
			l.serve(w, proto, local)
			c := l.converse(w, proto, established)
			l.publish(0, remote)
			c.there(c.says(ack|psh, 1001, 0, "still here"), "forwarded")
			c.here(c.reverse().segment(ack, 5001, 1001, "still here"))
			l.publish(0) // no backend at all
			c.there(c.says(ack|psh, 1001, 0, "still here"), "forwarded"+map[bool]string{
				true: " flow_established", false: ""}[proto == unix.IPPROTO_UDP && !established])
			l.must(l.Frontends.Delete(BlixtFrontendKey{Addr: addrOf(ap(c.vip).Addr()), Port: htons(80), Protocol: proto}))
			if established || proto == unix.IPPROTO_UDP {
				c.there(c.says(ack|psh, 1001, 0, "still here"), "forwarded")
			}
		}
	})
	everywhere(c, "ring changes: a SYN takes what it says now", func(l *lb, w world, proto uint8) {
		if proto != unix.IPPROTO_TCP {
			return
		}
		for _, established := range []bool{false, true} {
			l.clear()
			l.config(0)
			l.serve(w, proto, local)
			c := l.converse(w, proto, established)
			l.publish(0, remote)
			in := opening(proto, c.client, c.vip)
			l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote).hop(), "flow_new forwarded")
			l.wantIn(c.reverse(), "none")
		}
	})
	everywhere(c, "idle in both directions: forgotten", func(l *lb, w world, proto uint8) {
		for _, established := range []bool{false, true} {
			l.clear()
			l.config(0)
			l.serve(w, proto, local)
			c := l.converse(w, proto, established)
			l.age(c.forward(), idleTicks+2)
			l.age(c.reverse(), idleTicks+2)
			l.publish(0, remote)
			in := second(proto, c.client, c.vip)
			out := in.snat(w.nodeIn, 0).to(w.remote).hop()
			l.ingress(outside, in).redirected(out, "flow_expired flow_new forwarded")
			l.wantIn(c.reverse(), "none")
		}
	})
	everywhere(c, "idle in one direction: alive", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		c := l.converse(w, proto, true)
		l.age(c.forward(), idleTicks+2)
		c.there(c.says(ack, 1001, 5001, ""), "forwarded")
		l.age(c.reverse(), idleTicks+2)
		c.here(c.reverse().segment(ack, 5001, 1001, ""))
		l.age(c.forward(), idleTicks-1)
		l.age(c.reverse(), idleTicks-1)
		c.there(c.says(ack, 1001, 5001, ""), "forwarded")
	})
	everywhere(c, "idle in both directions: a reply is not translated any more", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		c := l.converse(w, proto, true)
		l.age(c.forward(), idleTicks+2)
		l.age(c.reverse(), idleTicks+2)
		l.forwarded(pods, c.reverse()).untouched("flow_expired not_ours")
		l.wantIn(c.forward(), "none")
	})
	everywhere(c, "a packet of either side keeps it alive", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		c := l.converse(w, proto, true)
		l.age(c.forward(), 30)
		_, before := l.flow(c.forward())
		c.there(c.says(ack, 1001, 5001, ""), "forwarded")
		if _, after := l.flow(c.forward()); after.LastSeen-before.LastSeen < 30 {
			l.Errorf("last_seen went from %d to %d, want 30 more", before.LastSeen, after.LastSeen)
		}
	})
	everywhere(c, "draining: known flows are served, all else is passed on", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		c := l.converse(w, proto, true)
		fresh := conversation{l, w, proto, c.vip, c.backend, port(ap(w.client).Addr().String(), "40001")}
		fresh.open(false)
		l.config(BlixtConfigFlagCONFIG_DRAIN)
		c.there(c.says(ack, 1001, 5001, ""), "forwarded")
		c.here(c.reverse().segment(ack, 5001, 1001, ""))
		fresh.here(answer(proto, c.backend, fresh.client))
		fresh.there(second(proto, fresh.client, c.vip), "forwarded flow_established")
		stranger := port(ap(w.client).Addr().String(), "40002")
		l.ingress(outside, opening(proto, stranger, c.vip)).untouched("drained")
		l.ingress(outside, opening(proto, stranger, port(w.vip, "81"))).untouched("drained")
		l.ingress(outside, echo(ap(stranger).Addr().String(), w.vip)).untouched("drained")
		l.ingress(outside, withoutPorts(unix.IPPROTO_SCTP, stranger, w.vip)).untouched("drained")
		l.ingress(outside, second(proto, stranger, c.vip).sized(1000).cut(504, 0)).untouched("drained")
		l.ingress(outside, opening(proto, stranger, port(w.shared, "81"))).untouched("not_ours")
		l.gone(local)
		in := second(proto, c.client, c.vip)
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, in).redirected(in.refused(rst, 5001, 0), "reject_backend_gone")
		} else {
			l.ingress(outside, in).untouched("drained")
		}
	})
	c.run(t)
}
