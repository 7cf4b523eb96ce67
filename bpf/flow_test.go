// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

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
		l.ingress(outside, proto2(unix.IPPROTO_SCTP, stranger, w.vip)).untouched("drained")
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

func proto2(protocol uint8, src, dst string) packet {
	return packet{src: ap(src), dst: ap(port(dst, "0")), protocol: protocol, payload: make([]byte, 40)}
}

// TestCollisions is about flows whose translated tuples would be equal.
func TestCollisions(t *testing.T) {
	c := cases{}
	everywhere(c, "two VIPs, one client socket, one local backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		one, two := port(w.vip, "80"), port(w.shared, "80")
		l.frontend(1, proto, two, local)
		a := conversation{l, w, proto, one, w.local, w.client}
		a.open(true)
		in := opening(proto, w.client, two)
		out := in.to(w.local)
		out.src = addrPort(out.src.Addr(), int(in.snat(w.nodeIn, 0).src.Port()))
		l.ingress(outside, in).next(out, "flow_new forwarded flow_port_changed")
		// Replies find the VIP that they belong to.
		re := answer(proto, w.local, out.src.String())
		l.forwarded(pods, re).next(re.from(two).to(w.client), "replied")
		a.here(answer(proto, w.local, w.client))
		in = second(proto, w.client, two)
		out = in.to(w.local).from(out.src.String())
		l.ingress(outside, in).next(out, "forwarded flow_established")
		a.there(second(proto, w.client, one), "forwarded")
		// And so do errors.
		e := icmpError(ap(w.local).Addr().String(), ap(w.client).Addr().String(), 3, 3, 0, out, 0)
		want := icmpError(w.shared, ap(w.client).Addr().String(), 3, 3, 0, in, 0)
		if w.name == "IPv6" {
			e = icmpError(ap(w.local).Addr().String(), ap(w.client).Addr().String(), 1, 4, 0, out, 0)
			want = icmpError(w.shared, ap(w.client).Addr().String(), 1, 4, 0, in, 0)
		}
		l.forwarded(pods, e).next(want, "icmp_replied")
	})
	everywhere(c, "two VIPs, one client socket, one remote backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		one, two := port(w.vip, "80"), port(w.shared, "80")
		l.frontend(1, proto, two, remote)
		for i, vip := range []string{one, two} {
			in := opening(proto, w.client, vip)
			l.ingress(outside, in).redirected(in.snat(w.nodeIn, i).to(w.remote).hop(), "flow_new forwarded")
		}
		for i, vip := range []string{one, two} {
			re := answer(proto, w.remote, proto2(0, w.client, w.vip).snat(w.nodeIn, i).src.String())
			l.ingress(inside, re).redirected(re.from(vip).to(w.client).hop(), "replied")
		}
	})
	everywhere(c, "the port of a flow that is over is taken again", func(l *lb, w world, proto uint8) {
		for name, end := range map[string]func(conversation){
			"backend gone": func(c conversation) { c.gone(local) },
			"idle":         func(c conversation) { c.age(c.forward(), idleTicks+2); c.age(c.reverse(), idleTicks+2) },
		} {
			_ = name
			l.clear()
			l.config(0)
			l.serve(w, proto, local)
			two := port(w.shared, "80")
			l.backend(other, w.local) // the same endpoint, of another frontend
			l.frontend(1, proto, two, other)
			c := l.converse(w, proto, true)
			end(c)
			in := opening(proto, w.client, two)
			l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
		}
	})
	for _, w := range worlds {
		c[w.name+" TCP and UDP of one tuple"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			l.frontend(1, unix.IPPROTO_UDP, port(w.vip, "80"), remote)
			a := l.converse(w, unix.IPPROTO_TCP, true)
			in := opening(unix.IPPROTO_UDP, w.client, a.vip)
			out := in.snat(w.nodeIn, 0).to(w.remote).hop()
			l.ingress(outside, in).redirected(out, "flow_new forwarded")
			re := answer(unix.IPPROTO_UDP, w.remote, out.src.String())
			l.ingress(inside, re).redirected(re.from(a.vip).to(w.client).hop(), "replied")
			a.there(second(unix.IPPROTO_TCP, w.client, a.vip), "forwarded")
			a.here(answer(unix.IPPROTO_TCP, w.local, w.client))
		}
	}
	everywhere(c, "no port left", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		l.must(l.BlixtLayout1.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMin + 1}))
		vips := []string{port(w.vip, "80"), port(w.shared, "80"), port(w.shared, "81")}
		l.frontend(1, proto, vips[1], remote)
		l.frontend(2, proto, vips[2], remote)
		seen := map[uint16]bool{}
		for _, vip := range vips[:2] {
			r := l.ingress(outside, opening(proto, w.client, vip))
			if !r.stale {
				at := len(r.frame) - len(r.in.layer4())
				seen[binary.BigEndian.Uint16(r.out[at:])] = true
			}
			r.check(redirect, "flow_new forwarded")
		}
		if !l.complete && (len(seen) != 2 || !seen[snatMin] || !seen[snatMin+1]) {
			l.Errorf("source ports %v, want %d and %d", seen, snatMin, snatMin+1)
		}
		// Neither is established yet: a flood would keep all ports.
		l.ingress(outside, opening(proto, w.client, vips[2])).check(redirect, "flow_new forwarded")
	})
	everywhere(c, "no port left by established flows", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		l.must(l.BlixtLayout1.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMin + 1}))
		vips := []string{port(w.vip, "80"), port(w.shared, "80"), port(w.shared, "81")}
		l.frontend(1, proto, vips[1], remote)
		l.frontend(2, proto, vips[2], remote)
		for _, vip := range vips[:2] {
			l.ingress(outside, opening(proto, w.client, vip)).check(redirect, "flow_new forwarded")
		}
		for i := range 2 {
			l.ingress(inside, answer(proto, w.remote, port(w.nodeIn, fmt.Sprint(snatMin+i)))).check(redirect, "replied")
		}
		for _, vip := range vips[:2] {
			l.ingress(outside, second(proto, w.client, vip)).check(redirect, "forwarded flow_established")
		}
		third := opening(proto, w.client, vips[2])
		l.ingress(outside, third).dropped("drop_ports_exhausted")
		if proto == unix.IPPROTO_TCP { // one that is over makes room
			l.ingress(outside, second(proto, w.client, vips[0]).segment(rst, 1001, 0, "")).check(redirect, "forwarded")
			l.ingress(outside, third).check(redirect, "flow_new forwarded")
			l.ingress(outside, second(proto, w.client, vips[1])).check(redirect, "forwarded")
		}
	})
	c.run(t)
}

// TestPick holds the ring's arithmetic to its description in blixt.h, which
// every node has to agree on.
func TestPick(t *testing.T) {
	l := newLB(t)
	w := worlds[0]
	l.serve(w, unix.IPPROTO_UDP)
	const size = 7
	ids := make([]uint32, size)
	for i := range ids {
		ids[i] = uint32(10 + i)
		l.backend(ids[i], fmt.Sprintf("10.2.0.%d:53", 10+i))
	}
	for _, first := range []int{0, 1} { // even and odd slots
		l.publish(0, make([]uint32, 1-first+2)...)
		l.publish(0, ids...)
		for i := range 200 {
			p := udp(w.client, port(w.vip, "80"))
			p.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(first), byte(i)}), uint16(1+i*311))
			slot := uint64(clientHash(p.src)) * size >> 32
			l.ingress(outside, p).next(p.to(fmt.Sprintf("10.2.0.%d:53", 10+slot)), "flow_new forwarded")
			var n uint64
			l.must(l.BackendFlows.Lookup(ids[slot], &n))
			if n == 0 {
				t.Errorf("backend_flows of %d is 0, want more", ids[slot])
			}
		}
	}
}
