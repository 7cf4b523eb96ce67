// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestFragments(t *testing.T) {
	c := cases{}
	everywhere(c, "fragments follow the first one, local backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		vip := port(w.vip, "80")
		in := second(proto, w.client, vip).sized(1500)
		in.df, in.id = false, 0x1234
		for i, f := range []packet{in.cut(0, 512), in.cut(512, 1024), in.cut(1024, 0)} {
			l.ingress(outside, f).next(f.to(w.local), []string{"flow_new forwarded", "forwarded", "forwarded"}[i])
		}
		re := answer(proto, w.local, w.client).sized(1500)
		re.df, re.id = false, 0x4321
		for _, f := range []packet{re.cut(0, 512), re.cut(512, 1024), re.cut(1024, 0)} {
			l.ingress(pods, f).untouched("not_ours")
		}
		for _, f := range []packet{re.cut(0, 512), re.cut(512, 1024), re.cut(1024, 0)} {
			l.forwarded(pods, f).next(f.from(vip), "replied")
		}
		in.id = 0x1235 // the client's second datagram establishes the flow
		f := in.cut(0, 512)
		l.ingress(outside, f).next(f.to(w.local), "forwarded"+map[bool]string{true: " flow_established", false: ""}[establishesWith(proto, in)])
	})
	everywhere(c, "fragments follow the first one, remote backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		vip := port(w.vip, "80")
		in := second(proto, w.client, vip).sized(1500)
		in.df, in.id = false, 0x12345678&0xffff
		for i, f := range []packet{in.cut(0, 512), in.cut(512, 1024), in.cut(1024, 0)} {
			out := f.snat(w.nodeIn, 0).to(w.remote).hop()
			l.ingress(outside, f).redirected(out, []string{"flow_new forwarded", "forwarded", "forwarded"}[i])
		}
		re := answer(proto, w.remote, in.snat(w.nodeIn, 0).src.String()).sized(1500)
		re.df, re.id = false, 0x4321
		for _, f := range []packet{re.cut(0, 512), re.cut(512, 1024), re.cut(1024, 0)} {
			l.ingress(inside, f).redirected(f.from(vip).to(w.client).hop(), "replied")
		}
	})
	everywhere(c, "later fragment without its first", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		in := second(proto, w.client, port(w.vip, "80")).sized(1500)
		in.df = false
		l.ingress(outside, in.cut(512, 0)).dropped("drop_fragment")
		in = in.to(port(w.shared, "80"))
		l.ingress(outside, in.cut(512, 0)).untouched("not_ours")
		in = in.to(w.remote)
		l.ingress(outside, in.cut(512, 0)).untouched("not_ours")
	})
	everywhere(c, "later fragment of another datagram", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		in := second(proto, w.client, port(w.vip, "80")).sized(1500)
		in.df = false
		f := in.cut(0, 512)
		l.ingress(outside, f).next(f.to(w.local), "flow_new forwarded")
		for _, change := range []func(*packet){
			func(p *packet) { p.id++ },
			func(p *packet) { p.src = addrPort(p.src.Addr().Next(), 40000) },
		} {
			g := in.cut(512, 0)
			change(&g)
			l.ingress(outside, g).dropped("drop_fragment")
		}
	})
	everywhere(c, "first fragment of what nobody serves", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, uint32(BlixtBackendIdBACKEND_REJECT))
		in := second(proto, w.client, port(w.vip, "80")).sized(1500)
		in.df = false
		f := in.cut(0, 512)
		l.ingress(outside, f).dropped("reject_no_backend") // no RST: the rest of the segment is yet to come
		f = f.to(port(w.vip, "81"))
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, f).dropped("drop_fragment")
		} else {
			l.ingress(outside, f).redirected(f.unreachable(), "reject_unserved")
		}
	})
	everywhere(c, "fragments of a flow whose backend is gone", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		in := second(proto, w.client, port(w.vip, "80")).sized(1500)
		in.df = false
		f := in.cut(0, 512)
		l.ingress(outside, f).next(f.to(w.local), "flow_new forwarded")
		l.gone(local)
		l.ingress(outside, in.cut(512, 0)).dropped("reject_backend_gone")
	})
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		// RFC 6946: a fragment header on a packet that is whole.
		c["IPv6 "+protocolName(protocol)+" atomic fragment is whole"] = func(l *lb) {
			w := worlds[1]
			l.serve(w, protocol, local)
			in := opening(protocol, w.client, port(w.vip, "80"))
			in.piece = &piece{atomic: true}
			l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
			in = in.to(port(w.vip, "81"))
			if protocol == unix.IPPROTO_TCP {
				l.ingress(outside, in).redirected(in.refused(rst|ack, 0, 1001), "reject_unserved")
			} else {
				l.ingress(outside, in).redirected(in.unreachable(), "reject_unserved")
			}
		}
		c["IPv6 "+protocolName(protocol)+" fragments behind other extension headers"] = func(l *lb) {
			w := worlds[1]
			l.serve(w, protocol, remote)
			in := second(protocol, w.client, port(w.vip, "80")).sized(1200)
			in.exts = []extension{hopByHop(), routing()}
			for i, f := range []packet{in.cut(0, 512), in.cut(512, 0)} {
				out := f.snat(w.nodeIn, 0).to(w.remote).hop()
				l.ingress(outside, f).redirected(out, []string{"flow_new forwarded", "forwarded"}[i])
			}
		}
		// What follows the fragment header is not what the ports belong to, and later fragments do not say that.
		c["IPv6 "+protocolName(protocol)+" fragments whose data begins with destination options"] = func(l *lb) {
			w := worlds[1]
			l.serve(w, protocol, remote)
			in := second(protocol, w.client, port(w.vip, "80")).sized(1200)
			in.lateExts = []extension{destOptions()}
			for i, f := range []packet{in.cut(0, 512), in.cut(512, 0)} {
				l.ingress(outside, f).redirected(f.snat(w.nodeIn, 0).to(w.remote).hop(), []string{"flow_new forwarded", "forwarded"}[i])
			}
		}
	}
	for _, w := range worlds {
		c[w.name+" fragments of a ping are dropped"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			in := echo(ap(w.client).Addr().String(), w.vip).sized(1600)
			l.ingress(outside, in.cut(0, 800)).dropped("drop_fragment")
			l.ingress(outside, in.cut(800, 0)).dropped("drop_fragment")
		}
	}
	c.run(t)
}

// establishesWith tells whether a client's packet proves that it has heard the
// answer: UDP has no proof to ask for.
func establishesWith(protocol uint8, p packet) bool {
	return protocol == unix.IPPROTO_UDP || p.ack == 5001
}
