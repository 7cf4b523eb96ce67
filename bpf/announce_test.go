// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"maps"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// nodeCases are tests of nodes A and B, by the behaviour that they show.
type nodeCases map[string]func(n *nodes)

func (c nodeCases) run(t *testing.T) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(c)) {
		t.Run(name, func(t *testing.T) { c[name](newNodes(t)) })
	}
}

// each adds a case for each IP version with each of the protocols.
func (c nodeCases) each(name string, run func(n *nodes, ip ipVersion, protocol uint8), protocols ...uint8) {
	if len(protocols) == 0 {
		protocols = []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}
	}
	for _, ip := range ipVersions {
		for _, protocol := range protocols {
			c[ip.name+" "+protocolName(protocol)+" "+name] = func(n *nodes) { run(n, ip, protocol) }
		}
	}
}

// told is the message that A sends about a client from now on.
func (n *nodes) told(client string) announce.Message {
	m := about(client)
	m.Service = 0 // not compared
	return m
}

// TestAnnounceWithin is about what A sends within the packets of a flow.
func TestAnnounceWithin(t *testing.T) {
	c := nodeCases{}
	c.each("the first packet has the message", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "flow_new forwarded announced")
		if _, f := n.a.flow(in); BlixtFlowFlag(f.Flags)&BlixtFlowFlagFLOW_ANNOUNCED == 0 {
			n.a.Errorf("flags of the flow %#x, want FLOW_ANNOUNCED among them", f.Flags)
		}
	})
	c.each("a repeated SYN has it once more, and then no more", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "flow_new forwarded announced")
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "forwarded announced")
		n.a.ingress(outside, in).redirected(out, "forwarded")
		n.a.ingress(outside, in).redirected(out, "forwarded")
	}, unix.IPPROTO_TCP)
	c.each("segments behind the SYN have none", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "flow_new forwarded announced")
		re := answer(proto, ip.remote, out.src.String())
		n.a.ingress(inside, re).redirected(re.from(in.dst.String()).to(ip.client).hop(), "replied")
		in = establishing(proto, ip.client, in.dst.String())
		n.a.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "forwarded flow_established")
		in = in.segment(ack|psh, 1001, 5001, "GET / HTTP/1.1")
		n.a.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "forwarded")
	}, unix.IPPROTO_TCP)
	c.each("eight datagrams have it if nobody answers", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "flow_new forwarded announced")
		for range 7 {
			n.a.ingress(outside, in).announces(out, n.told(ip.client), "forwarded announced")
		}
		n.a.ingress(outside, in).redirected(out, "forwarded")
	}, unix.IPPROTO_UDP)
	c.each("two datagrams have it even if the first is answered, and then one in eight ticks", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "flow_new forwarded announced")
		re := answer(proto, ip.remote, out.src.String())
		n.a.ingress(inside, re).redirected(re.from(in.dst.String()).to(ip.client).hop(), "replied")
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "forwarded announced")
		n.a.ingress(outside, in).redirected(out, "forwarded")
	}, unix.IPPROTO_UDP)
	for size := range 4 {
		c.each("of "+string(rune('0'+size))+" bytes, with and without a checksum", func(n *nodes, ip ipVersion, proto uint8) {
			n.serve(ip, proto)
			in := opening(proto, ip.client, port(ip.vip, "80")).withSize(size)
			out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
			n.a.ingress(outside, in).announces(out, n.told(ip.client), "flow_new forwarded announced")
			in.zero, out.zero = true, true
			n.a.ingress(outside, in).announces(out, n.told(ip.client), "forwarded announced")
		}, unix.IPPROTO_UDP)
	}
	c.each("with options of IP or extension headers", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		if ip.name == "IPv4" {
			in.options = []byte{1, 1, 1, 0}
		} else {
			in.exts = []extension{hopByHop()}
		}
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "flow_new forwarded announced")
	})
	c.each("behind the padding of a short frame", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		in.padding = 7
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		out.padding = 0
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "flow_new forwarded announced")
	})
	c.each("one service has one number", func(n *nodes, ip ipVersion, proto uint8) {
		n.withD().serve(ip, proto)
		services := map[uint16]bool{}
		for _, l := range []*lb{n.a, n.d} {
			l.backend(other, ip.remote)
			l.frontend(1, proto, port(ip.vip, "81"), other)
			l.hears(other, BlixtBackendFlagBACKEND_HEARS_WITHIN)
			for i := range 3 {
				in := opening(proto, nthClient(ip, i), port(ip.vip, "80"))
				services[l.ingress(outside, in).message().Service] = true
			}
		}
		if len(services) != 1 {
			n.Errorf("messages about one frontend, from two nodes, name %d services, want 1", len(services))
		}
		services[n.a.ingress(outside, opening(proto, ip.client, port(ip.vip, "81"))).message().Service] = true
		if len(services) != 2 {
			n.Errorf("messages about two frontends name %d services, want 2", len(services))
		}
	})
	for name, change := range map[string]func(l *lb){
		"the backend's node does not hear":    func(l *lb) { l.hears(remote, 0) },
		"this node does not announce":         func(l *lb) { l.announcing(bootOfA, 0, BlixtAnnouncingFlagANNOUNCING_UNDO) },
		"there is no key that signs":          func(l *lb) { l.key(0, announce.Key{}) },
		"another key without a value signs":   func(l *lb) { l.announcing(bootOfA, 3, BlixtAnnouncingFlagANNOUNCING_TELL) },
		"the backend is of this node":         func(l *lb) { l.flag(remote, BlixtBackendFlagBACKEND_LOCAL) },
		"the backend is reached by the stack": func(l *lb) { l.flag(remote, BlixtBackendFlagBACKEND_STACK) },
	} {
		c.each("has none if "+name, func(n *nodes, ip ipVersion, proto uint8) {
			n.serve(ip, proto)
			change(n.a)
			in := opening(proto, ip.client, port(ip.vip, "80"))
			r := n.a.ingress(outside, in)
			if len(r.out) != len(r.frame) || r.counts["announced"] != 0 {
				n.a.Errorf("%d bytes left and counters %v, want %d bytes and no message", len(r.out), r.counts, len(r.frame))
			}
		})
	}
	c.each("signed by the key in use", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		n.a.key(2, nextKey)
		n.a.announcing(65535, 2, BlixtAnnouncingFlagANNOUNCING_TELL)
		want := n.told(ip.client)
		want.Key, want.Boot = 2, 65535
		r := n.a.ingress(outside, opening(proto, ip.client, port(ip.vip, "80")))
		n.a.wantMessage(r.message(), want, r.began, nextKey)
	})
	c.run(t)
}
