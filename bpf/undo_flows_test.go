// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// of is the flow of another client with the same tuple from A.
func (f undoneFlow) of(client string) undoneFlow { f.client = client; return f }

// by is the flow with another tuple: from this node and port.
func (f undoneFlow) by(node, sport string) undoneFlow {
	f.source, f.peer = port(node, sport), node
	return f
}

// The n-th other client.
func (f undoneFlow) other(n int) string { return addrPort(ap(f.client).Addr(), 45000+n).String() }

// establish has the connection of an undone flow be established.
func (f undoneFlow) establish() undoneFlow {
	f.Helper()
	f.reply(inside, answer(f.protocol, f.ip.remote, f.client))
	in := f.establishing()
	f.fromA(in).toStack(f.delivered(in), "undone"+andEstablished(f.protocol))
	return f
}

// later returns a packet from the middle of the connection.
func (f undoneFlow) later() packet {
	p := proto(f.protocol, f.source, f.ip.remote)
	if f.protocol == unix.IPPROTO_TCP {
		p = p.segment(ack|psh, 1001, 5001, "GET / HTTP/1.1")
	}
	return p
}

// wantServed checks that packets of both directions are translated.
func (f undoneFlow) wantServed() {
	f.Helper()
	in := f.later()
	f.fromA(in).toStack(f.delivered(in), "undone")
	f.reply(inside, continuing(f.protocol, f.ip.remote, f.client))
}

// TestPortsAreUsedAgain is about a port of A's that two clients have in turns.
func TestPortsAreUsedAgain(t *testing.T) {
	c := nodeCases{}
	c.each("each message changes the client", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		m := f.message()
		for i := range 6 {
			g := f.of(f.other(i % 2))
			m.Client = ap(g.client)
			m.Time++
			in := g.opening()
			if proto == unix.IPPROTO_TCP {
				in.seq += uint32(i) << 24
				// The connection before has ended: else its SYN would be one of that.
				deleteAll[BlixtFlowKey, BlixtFlow](n.b, n.b.NewFlows)
			}
			n.b.ingress(inside, in.within(m, keyOfCluster)).toStack(g.delivered(in), "flow_undone undone")
			g.wantUndone(true)
		}
	})
	c.each("a live connection's port, of another client now", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens().establish()
		g := f.of(f.other(0))
		m := g.message()
		m.Time += 10
		in := g.opening()
		in.seq = 77777
		n.b.ingress(inside, in.within(m, keyOfCluster)).toStack(g.delivered(in), "flow_undone undone")
		g.wantUndone(true)
		if m, _ := n.b.flow(f.later().from(ip.remote).to(f.client)); m != nil {
			n.Errorf("the first client's reply entry is still there")
		}
	})
	c.each("a SYN that announces nobody is the node's own", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		in := f.opening()
		f.fromA(in).untouched("flow_plain not_ours")
		f.wantUndone(false)
		in = f.establishing()
		f.fromA(in).untouched("not_ours") // never asked about
		f.fromA(f.later()).untouched("not_ours")
		p := n.b.peerOf(ip.nodeIn)
		if p.Plain != 1 || p.Asked != 0 {
			n.Errorf("of the peer is known %+v, want 1 plain flow and no question", p)
		}
	}, unix.IPPROTO_TCP)
	c.each("a SYN that announces nobody ends a flow that has closed", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens().establish()
		in := f.opening().segment(rst, 1001, 0, "")
		f.fromA(in).toStack(f.delivered(in), "undone flow_closed")
		in = f.opening()
		in.seq = 99999
		f.fromA(in).untouched("flow_plain not_ours")
		f.wantUndone(false)
	}, unix.IPPROTO_TCP)
	c.each("datagrams without a message pass as they are", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		f.fromA(f.opening()).untouched("not_ours")
		f.wantUndone(false)
	}, unix.IPPROTO_UDP)
	c.each("datagrams are the client's for 24 ticks after a message", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens()
		f.heardAgo(24)
		in := f.later()
		f.fromA(in).toStack(f.delivered(in), "undone")
		f.heardAgo(26)
		f.fromA(in).untouched("not_ours")
		m := f.message()
		f.fromA(in.within(m, keyOfCluster)).toStack(f.delivered(in), "undone")
		f.fromA(in).toStack(f.delivered(in), "undone")
	}, unix.IPPROTO_UDP)
	c.each("a client that was silent for long is announced anew", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens()
		for _, reply := range []bool{false, true} {
			n.b.age(f.opening(), 70)
			if reply {
				n.b.age(f.later().from(ip.remote).to(ip.client), 70)
			}
			m := f.message()
			in := f.opening()
			in.seq += 1 << 20
			r := n.b.ingress(inside, in.within(m, keyOfCluster))
			f.wantUndone(true)
			if r.wantVerdict(tcxNext, r.counts.String()); r.counts["undone"] != 1 {
				n.Errorf("counters %v, want undone", r.counts)
			}
			r.wantPacket(f.delivered(in))
			f.reply(inside, answer(proto, ip.remote, ip.client))
		}
	})
	c.each("a client that was silent for long is announced by another port", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens()
		n.b.age(f.opening(), 70)
		n.b.age(f.later().from(ip.remote).to(ip.client), 70)
		g := f.by(ip.nodeIn, "30044")
		in := g.opening()
		in.seq += 1 << 20
		n.b.ingress(inside, in.within(g.message(), keyOfCluster)).toStack(g.delivered(in), "flow_undone undone")
		g.wantUndone(true)
		g.reply(inside, answer(proto, ip.remote, ip.client))
	})
	c.each("one client's port to two frontends", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens()
		g := f.by(ip.nodeIn, "30008")
		m := g.message()
		m.Service = 0x1234
		in := g.opening()
		r := n.b.ingress(inside, in.within(m, keyOfCluster))
		r.wantVerdict(tcxNext, "flow_undone undone")
		tuple, err := announce.TupleOf(r.out[14:])
		n.b.must(err)
		if tuple.Src.Addr() != ap(ip.client).Addr() || tuple.Src.Port() == ap(ip.client).Port() {
			n.Errorf("the second flow of the client comes from %v, want another port of %s", tuple.Src, ip.client)
		}
		g.client = tuple.Src.String()
		g.reply(inside, answer(proto, ip.remote, g.client))
		f.wantUndone(true)
		f.reply(inside, answer(proto, ip.remote, f.client))
	})
	c.run(t)
}

// heardAgo has the last message about a UDP flow be so many ticks old.
func (f undoneFlow) heardAgo(ticks uint32) {
	f.Helper()
	m, e := f.b.flow(f.opening())
	if m == nil {
		f.Fatal("no flow")
	}
	e.Next = f.b.tick() - ticks
	f.b.must(m.Put(keyOf(f.opening()), e))
	f.b.forgetKept()
}

// TestTakeOver is about a client whose packets come in by another node than before.
func TestTakeOver(t *testing.T) {
	c := nodeCases{}
	for _, established := range []bool{false, true} {
		c.each(map[bool]string{false: "begun", true: "established"}[established]+": D announces it in front of a packet", func(n *nodes, ip ipVersion, proto uint8) {
			f := n.flowFromA(ip, proto, ip.client).opens()
			if established {
				f.establish()
			}
			g := f.by(addressesOfD[ip.name], "30077")
			m := g.message()
			m.Boot, m.Time = bootOfD, 5 // another clock
			n.b.ingress(inside, g.later().alone(m, keyOfCluster)).dropped("")
			g.wantUndone(true)
			if !established {
				g.establish()
			}
			g.wantServed()
			f.wantUndone(false)
			n.b.wantTable(g.opening(), livesIn(proto))
			// And back, by another port of A's.
			h := f.by(ip.nodeIn, "30009")
			m = h.message()
			n.b.ingress(inside, h.later().alone(m, keyOfCluster)).dropped("")
			h.wantServed()
			g.wantUndone(false)
			if got := n.b.undoneEntries(); got != 2 {
				n.Errorf("%d entries undo something, want 2", got)
			}
		})
	}
	c.each("a message of D's about another frontend takes nothing", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens().establish()
		g := f.by(addressesOfD[ip.name], "30077")
		m := g.message()
		m.Boot, m.Service = bootOfD, 0x1234
		n.b.ingress(inside, g.later().alone(m, keyOfCluster)).dropped("flow_undone")
		f.wantUndone(true)
		f.wantServed()
	})
	c.run(t)
}

// TestQuestions is about segments of flows that B does not know.
func TestQuestions(t *testing.T) {
	c := nodeCases{}
	// asks sends a segment that B does not know, and returns the question.
	asks := func(f undoneFlow) *result {
		f.Helper()
		f.b.hasUndone()
		in := f.later()
		r := f.fromA(in)
		r.wantVerdict(redirect, "announce_asked")
		q := r.message()
		f.b.wantMessage(q, announce.Message{Flags: announce.Ask | announce.Alone, Boot: bootOfB, Client: q.Client}, r.began, keyOfCluster)
		if q.Src.String() != f.ip.remote || q.Dst.String() != f.source {
			f.Errorf("the question goes from %v to %v, want from %s to %s", q.Src, q.Dst, f.ip.remote, f.source)
		}
		if err := checkSums(r.out, 14); err != nil {
			f.Error(err)
		}
		return r
	}
	c.each("are asked, and answered by A", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		found := n.a.ingress(outside, in).message()
		f := n.flowFromA(ip, proto, ip.client)
		f.source = found.Src.String()
		r := asks(f)
		if p := n.b.peerOf(ip.nodeIn); p.Asked != 1 {
			n.Errorf("of the peer is known %+v, want 1 question", p)
		}
		// A answers, to B.
		answered := n.a.sendFrame(hook{dev: inside}, packet{src: ap(ip.remote), dst: ap(f.source), protocol: proto}, toNode(r.out))
		answered.wantVerdict(redirect, "announced")
		m := answered.message()
		n.a.wantMessage(m, announce.Message{Flags: announce.Alone, Boot: bootOfA, Client: ap(ip.client), Idle: m.Idle}, answered.began, keyOfCluster)
		if m.Service != found.Service || m.Tuple != found.Tuple {
			n.Errorf("the answer is about service %#x of %v, want %#x of %v", m.Service, m.Tuple, found.Service, found.Tuple)
		}
		if err := checkSums(answered.out, 14); err != nil {
			n.Error(err)
		}
		if got := f.hear(toNode(answered.out)); got.verdict != tcxDrop || got.counts["flow_undone"] != 1 {
			n.Errorf("B does %s with the answer, counters %v, want it dropped and flow_undone", verdictNames[got.verdict], got.counts)
		}
		f.wantServed()
	}, unix.IPPROTO_TCP)
	c.each("of nobody's are answered so, and never asked again", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		r := asks(f)
		answered := n.a.sendFrame(hook{dev: inside}, packet{src: ap(ip.remote), dst: ap(f.source), protocol: proto}, toNode(r.out))
		answered.wantVerdict(redirect, "")
		m := answered.message()
		n.a.wantMessage(m, announce.Message{Flags: announce.Alone | announce.Plain, Boot: bootOfA, Client: m.Client, Idle: m.Idle}, answered.began, keyOfCluster)
		if got := f.hear(toNode(answered.out)); got.verdict != tcxDrop || got.counts["flow_plain"] != 1 {
			n.Errorf("B does %s with the answer, counters %v, want it dropped and flow_plain", verdictNames[got.verdict], got.counts)
		}
		for range 3 {
			f.fromA(f.later()).untouched("not_ours")
		}
		f.wantUndone(false)
	}, unix.IPPROTO_TCP)
	c.each("are not asked as long as nothing was undone: no flow can be lost then", func(n *nodes, ip ipVersion, proto uint8) {
		n.b.must(n.b.Counters.Put(uint32(BlixtCounterCOUNTER_FLOW_UNDONE), make([]uint64, ebpf.MustPossibleCPU())))
		f := n.flowFromA(ip, proto, ip.client)
		f.fromA(f.later()).untouched("flow_plain not_ours")
		f.b.hasUndone()
		f.fromA(f.later()).untouched("not_ours")
	}, unix.IPPROTO_TCP)
	c.each("are not asked about a RST", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		f.fromA(f.later().segment(rst, 1001, 0, "")).untouched("not_ours")
	}, unix.IPPROTO_TCP)
	c.each("are not asked of a stranger, or about another port", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		stranger := map[string]string{"IPv4": "10.1.0.66", "IPv6": "fd00:1::66"}[ip.name]
		f.by(stranger, sourcePort).fromA(f.by(stranger, sourcePort).later()).untouched("not_ours")
		f.by(ip.nodeIn, "29999").fromA(f.by(ip.nodeIn, "29999").later()).untouched("not_ours")
	}, unix.IPPROTO_TCP)
	c.run(t)
}

// toNode gives a frame that has left by B's or A's device of the nodes the link header with which the other one gets it.
func toNode(frame []byte) []byte {
	frame = append([]byte{}, frame...)
	copy(frame, deviceMAC[:])
	copy(frame[6:], peerMAC[:])
	return frame
}

// TestOpens is about SYNs that have data, so that a message goes ahead of them.
func TestOpens(t *testing.T) {
	c := nodeCases{}
	opens := func(f undoneFlow) (in packet) {
		m := f.message()
		m.Flags = announce.Opens
		in = f.opening()
		in.payload = []byte("GET / HTTP/1.1\r\n\r\n")
		f.fromA(in.alone(m, keyOfCluster)).dropped("flow_undone")
		return in
	}
	c.each("the SYN behind the message keeps its data", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		in := opens(f)
		f.fromA(in).toStack(f.delivered(in), "undone")
		f.wantUndone(true)
		// The server accepts it, and the connection goes on.
		re := answer(proto, ip.remote, ip.client)
		re.ack = in.seq + 1 + uint32(len(in.payload))
		f.reply(inside, re)
		next := in.segment(ack, re.ack, re.seq+1, "")
		next.tcpOption = nil
		f.fromA(next).toStack(f.delivered(next), "undone flow_established")
	}, unix.IPPROTO_TCP)
	c.each("the repeated SYN is served, too", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		in := opens(f)
		f.fromA(in).toStack(f.delivered(in), "undone")
		m := f.message()
		m.Flags = announce.Opens
		f.fromA(in.alone(m, keyOfCluster)).dropped("")
		f.fromA(in).toStack(f.delivered(in), "undone")
	}, unix.IPPROTO_TCP)
	c.each("after a message that does not open, a SYN is asked about", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		f.fromA(f.later().alone(f.message(), keyOfCluster)).dropped("flow_undone")
		in := f.opening()
		in.seq = 55555
		f.fromA(in).wantVerdict(redirect, "announce_asked")
	}, unix.IPPROTO_TCP)
	c.run(t)
}

// TestUndoneErrors is about ICMP errors that quote packets of an undone flow.
func TestUndoneErrors(t *testing.T) {
	c := nodeCases{}
	for name := range quotes(ipVersions[0], unix.IPPROTO_TCP) {
		c.each("quoting "+name, func(n *nodes, ip ipVersion, proto uint8) {
			q, ok := quotes(ip, proto)[name]
			if !ok {
				return
			}
			f := n.flowFromA(ip, proto, ip.client).opens().establish()
			k := icmpKinds[ip.name][len(name)%4]
			fail := func(from, to string, about packet) packet {
				return icmpError(from, to, k.kind, k.code, k.rest, q.make(withLostHops(about)), q.size)
			}
			addr := func(s string) string { return ap(s).Addr().String() }
			router := map[string]string{"IPv4": "10.77.0.1", "IPv6": "fd00:77::1"}[ip.name]
			// A router between the nodes about what B has sent to A: the pod knows its client.
			re := continuing(proto, ip.remote, f.source)
			n.b.ingress(inside, fail(router, addr(ip.remote), re)).toStack(fail(router, addr(ip.remote), re.to(f.client)), "icmp_forwarded")
			// The pod about what it got: A knows its own port.
			in := f.later()
			e := fail(addr(ip.remote), addr(f.client), in.from(f.client))
			n.b.ingress(pods, e).untouched("not_ours")
			n.b.egressTo(inside, pods, e).redirected(fail(addr(ip.remote), addr(f.source), in), "icmp_replied")
		})
	}
	c.run(t)
}

// TestUndoneFragments is about datagrams in pieces.
func TestUndoneFragments(t *testing.T) {
	c := nodeCases{}
	c.each("of a flow that is known", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens()
		in := f.later().withSize(1000).withID(4242)
		in.df = false
		for _, cut := range [][2]int{{0, 512}, {512, 0}} {
			piece := in.fragment(cut[0], cut[1])
			want := f.delivered(in)
			want.id = 4242
			r := f.fromA(piece)
			r.wantVerdict(tcxNext, "undone")
			if tuple := r.out[14:]; len(tuple) != len(piece.ipBytes()) {
				n.Errorf("a fragment of %d bytes became one of %d", len(piece.ipBytes()), len(tuple))
			}
			f.wantFrom(r, ip.client)
		}
	}, unix.IPPROTO_UDP)
	c.run(t)
}

// wantFrom checks the source address of the packet that has passed.
func (f undoneFlow) wantFrom(r *result, client string) {
	f.Helper()
	ip := r.out[14:]
	src := ap(client).Addr().AsSlice()
	at := 12
	if len(src) == 16 {
		at = 8
	}
	if string(ip[at:at+len(src)]) != string(src) {
		f.Errorf("the packet comes from % x, want from %s", ip[at:at+len(src)], client)
	}
}

// serviceHash is what names a frontend in messages: see service_hash in announcement.h.
func serviceHash(addr string) uint16 {
	a := addrOf(ap(addr).Addr())
	h := (binary.NativeEndian.Uint64(a.Bytes[:8]) + uint64(htons(ap(addr).Port()))) * 0xff51afd7ed558ccd
	h ^= h >> 32
	h = (h + binary.NativeEndian.Uint64(a.Bytes[8:])) * 0xc4ceb9fe1a85ec53
	return uint16(h >> 48)
}

// TestTakeOverByTheBackendsNode is about an address that moves from A to B, the
// node of the backend, and back.
func TestTakeOverByTheBackendsNode(t *testing.T) {
	c := nodeCases{}
	about := func(f undoneFlow, vip string) announce.Message {
		m := f.message()
		m.Service = serviceHash(vip)
		return m
	}
	establish := func(f undoneFlow) { // its client is behind another device, by which its packets come in again
		f.reply(outside, answer(f.protocol, f.ip.remote, f.client))
		f.fromA(f.establishing()).wantVerdict(redirect, "undone"+andEstablished(f.protocol))
	}
	serve := func(n *nodes, ip ipVersion, proto uint8) { // B balances, too, and has the pod
		n.b.serve(ip, proto, local)
		n.b.backend(local, ip.remote)
		var b BlixtBackend
		n.b.must(n.b.Backends.Lookup(uint32(local), &b))
		b.Flags |= uint16(BlixtBackendFlagBACKEND_LOCAL)
		n.b.must(n.b.Backends.Put(uint32(local), b))
	}
	c.each("what a client sends goes on", func(n *nodes, ip ipVersion, proto uint8) {
		vip := port(ip.vip, "80")
		serve(n, ip, proto)
		f := n.flowFromA(ip, proto, farClient[ip.name])
		in := f.opening()
		f.fromA(in.within(about(f, vip), keyOfCluster)).wantVerdict(redirect, "flow_undone undone")
		establish(f)
		own := f.later().from(f.client).to(vip)
		n.b.ingress(outside, own).toStack(own.to(ip.remote), "flow_new forwarded")
		f.wantUndone(false)
		re := continuing(proto, ip.remote, f.client)
		n.b.egressTo(outside, pods, re).toStack(re.from(vip), "replied")
		// And back: A announces the client again.
		m := about(f, vip)
		m.Time++
		n.b.ingress(inside, f.later().alone(m, keyOfCluster)).dropped("flow_undone")
		f.wantUndone(true)
	})
	c.each("what somebody forges moves nothing", func(n *nodes, ip ipVersion, proto uint8) {
		vip := port(ip.vip, "80")
		serve(n, ip, proto)
		f := n.flowFromA(ip, proto, farClient[ip.name])
		in := f.opening()
		f.fromA(in.within(about(f, vip), keyOfCluster)).wantVerdict(redirect, "flow_undone undone")
		establish(f)
		forged := f.later().from(f.client).to(vip)
		forged.seq += 1 << 24
		n.b.ingress(outside, forged)
		f.wantUndone(true)
		f.fromA(f.later()).wantVerdict(redirect, "undone")
	}, unix.IPPROTO_TCP)
	// A is gone, with all acknowledgements that were on their way: the client, which only
	// receives, has nothing to send, and learns nothing by A.
	c.each("what the pod repeats gets to a client that has fallen silent", func(n *nodes, ip ipVersion, proto uint8) {
		vip := port(ip.vip, "80")
		serve(n, ip, proto)
		f := n.flowFromA(ip, proto, farClient[ip.name])
		f.fromA(f.opening().within(about(f, vip), keyOfCluster)).wantVerdict(redirect, "flow_undone undone")
		establish(f)
		data := continuing(proto, ip.remote, f.client)
		n.b.egressTo(outside, pods, data).redirected(data.to(f.source), "undone")
		again := func() (byA, directly int) {
			for range 40 {
				n.b.forgetKept() // a segment is repeated after a while
				r := n.b.egressTo(outside, pods, data)
				switch r.verdict {
				case redirect:
					byA++
				case tcxNext:
					directly++
					r.toStack(data.from(vip), "undone")
				}
			}
			return byA, directly
		}
		n.b.age(f.opening(), ^uint32(0)) // -1: a tick may begin meanwhile
		if byA, directly := again(); byA != 40 {
			n.Errorf("the client was heard a moment ago: %d repeated segments go by A, %d directly, want all by A", byA, directly)
		}
		n.b.age(f.opening(), 3)
		if byA, directly := again(); byA == 0 || directly == 0 || byA+directly != 40 {
			n.Errorf("the client is silent: %d repeated segments go by A, %d directly, want some of each", byA, directly)
		}
		next := data
		next.seq += 1000
		n.b.egressTo(outside, pods, next).redirected(next.to(f.source), "undone") // it is not repeated
	}, unix.IPPROTO_TCP)
	c.run(t)
}
