// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestReset is about the RSTs of RFC 9293, 3.5.2: what they say, and to whom.
func TestReset(t *testing.T) {
	c := cases{}
	for _, w := range worlds {
		vip := port(w.vip, "80")
		for name, serve := range map[string]func(l *lb){
			"reject slot":             func(l *lb) { l.serve(w, unix.IPPROTO_TCP, uint32(BlixtBackendIdBACKEND_REJECT)) },
			"frontend without a ring": func(l *lb) { l.serve(w, unix.IPPROTO_TCP) },
			"backend no longer in use": func(l *lb) {
				l.serve(w, unix.IPPROTO_TCP, remote)
				l.gone(remote)
			},
		} {
			const counted = "reject_no_backend"
			c[w.name+" "+name+" refuses a SYN with an acknowledgement of it"] = func(l *lb) {
				serve(l)
				in := opening(unix.IPPROTO_TCP, w.client, vip)
				l.ingress(outside, in).redirected(in.refused(rst|ack, 0, 1001), counted)
			}
			c[w.name+" "+name+" counts data and FIN of a segment without ACK"] = func(l *lb) {
				serve(l)
				in := tcp(w.client, vip).segment(syn|fin, 0xffffffff, 0, "fast open")
				l.ingress(outside, in).redirected(in.refused(rst|ack, 0, 10), counted)
			}
			c[w.name+" "+name+" refuses an ACK with the sequence it expects"] = func(l *lb) {
				serve(l)
				in := tcp(w.client, vip).segment(ack|psh, 77, 4000000000, "data")
				l.ingress(outside, in).redirected(in.refused(rst, 4000000000, 0), counted)
			}
			c[w.name+" "+name+" refuses an ACK that is as long as the RST"] = func(l *lb) {
				serve(l)
				in := tcp(w.client, vip).segment(ack, 77, 2000, "")
				l.ingress(outside, in).redirected(in.refused(rst, 2000, 0), counted)
			}
			c[w.name+" "+name+" never answers a RST"] = func(l *lb) {
				serve(l)
				l.ingress(outside, tcp(w.client, vip).segment(rst, 77, 0, "")).dropped("drop_no_flow")
				l.ingress(outside, tcp(w.client, vip).segment(rst|ack, 77, 2000, "")).dropped("drop_no_flow")
			}
			c[w.name+" "+name+" answers a socket of this host"] = func(l *lb) {
				serve(l)
				in := opening(unix.IPPROTO_TCP, w.host, vip)
				l.host(outside, in).redirected(in.refused(rst|ack, 0, 1001).forth(), counted)
			}
			c[w.name+" "+name+" answers a forwarded packet"] = func(l *lb) {
				serve(l)
				in := opening(unix.IPPROTO_TCP, w.client, vip)
				l.forwarded(pods, in).redirected(in.refused(rst|ack, 0, 1001), counted)
			}
			c[w.name+" "+name+" trims the padding of the frame"] = func(l *lb) {
				serve(l)
				in := tcp(w.client, vip).segment(ack, 77, 2000, "")
				in.padding = 6
				l.ingress(outside, in).redirected(in.refused(rst, 2000, 0), counted)
			}
			c[w.name+" "+name+" keeps a VLAN tag"] = func(l *lb) {
				serve(l)
				in := tcp(w.client, vip).segment(ack, 77, 2000, "data")
				in.vlan = 5
				l.ingress(outside, in).redirected(in.refused(rst, 2000, 0), counted)
			}
		}
		c[w.name+" UDP of a frontend without a backend is dropped"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_UDP, uint32(BlixtBackendIdBACKEND_REJECT))
			l.ingress(outside, udp(w.client, vip)).dropped("reject_no_backend")
		}
		c[w.name+" a share of the ring refuses, the rest is served"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, uint32(BlixtBackendIdBACKEND_REJECT), local)
			refused := 0
			for i := range 64 {
				in := opening(unix.IPPROTO_TCP, w.client, vip)
				in.src = addrPort(in.src.Addr(), 1024+i)
				if clientHash(in.src)>>31 == 0 { // the first half of the ring
					l.ingress(outside, in).redirected(in.refused(rst|ack, 0, 1001), "reject_no_backend")
					refused++
				} else {
					l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
				}
			}
			if refused == 0 || refused == 64 {
				l.Errorf("%d of 64 refused, want some", refused)
			}
		}
	}
	c["IPv4 options stay in the RST"] = func(l *lb) {
		w := worlds[0]
		l.serve(w, unix.IPPROTO_TCP)
		in := opening(unix.IPPROTO_TCP, w.client, port(w.vip, "80"))
		in.options = []byte{1, 1, 1, 0}
		l.ingress(outside, in).redirected(in.refused(rst|ack, 0, 1001), "reject_no_backend")
	}
	c["IPv6 extension headers stay in the RST"] = func(l *lb) {
		w := worlds[1]
		l.serve(w, unix.IPPROTO_TCP)
		in := opening(unix.IPPROTO_TCP, w.client, port(w.vip, "80"))
		in.exts = []extension{hopByHop()}
		l.ingress(outside, in).redirected(in.refused(rst|ack, 0, 1001), "reject_no_backend")
	}
	c.run(t)
}

// TestUnserved is about what has no frontend: an exclusive address is ours
// alone, the rest of a shared one belongs to the host.
func TestUnserved(t *testing.T) {
	c := cases{}
	for _, w := range worlds {
		in4 := func(p uint8, addr string) packet { return opening(p, w.client, port(addr, "81")) }
		c[w.name+" TCP port of an exclusive address is reset"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			in := in4(unix.IPPROTO_TCP, w.vip)
			l.ingress(outside, in).redirected(in.refused(rst|ack, 0, 1001), "reject_unserved")
			in = in.segment(ack, 5, 99, "data")
			l.ingress(outside, in).redirected(in.refused(rst, 99, 0), "reject_unserved")
			l.ingress(outside, in.segment(rst, 5, 0, "")).dropped("drop_no_flow")
		}
		c[w.name+" UDP port of an exclusive address is unreachable"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_UDP, local)
			in := in4(unix.IPPROTO_UDP, w.vip)
			l.ingress(outside, in).redirected(in.unreachable(), "reject_unserved")
			for _, n := range []int{0, 1, 2, 3, 99, 100, 101, 1000, 1400} {
				in = in.sized(n)
				l.ingress(outside, in).redirected(in.unreachable(), "reject_unserved")
			}
			// As long as the answer to it.
			in = in.sized(128)
			if w.name == "IPv6" {
				in = in.sized(128)
			}
			l.ingress(outside, in).redirected(in.unreachable(), "reject_unserved")
			l.host(outside, in).redirected(in.unreachable().forth(), "reject_unserved")
			l.forwarded(pods, in).redirected(in.unreachable(), "reject_unserved")
			in.vlan = 7
			l.ingress(outside, in).redirected(in.unreachable(), "reject_unserved")
		}
		c[w.name+" the other protocol of a served port is unserved"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_UDP, local)
			in := opening(unix.IPPROTO_TCP, w.client, port(w.vip, "80"))
			l.ingress(outside, in).redirected(in.refused(rst|ack, 0, 1001), "reject_unserved")
		}
		c[w.name+" ports of a shared address are the host's"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			l.ingress(outside, in4(unix.IPPROTO_TCP, w.shared)).untouched("not_ours")
			l.ingress(outside, in4(unix.IPPROTO_UDP, w.shared)).untouched("not_ours")
		}
		for name, protocol := range map[string]uint8{"SCTP": unix.IPPROTO_SCTP, "GRE": unix.IPPROTO_GRE, "ESP": unix.IPPROTO_ESP, "no": 253} {
			c[w.name+" "+name+" protocol"] = func(l *lb) {
				l.serve(w, unix.IPPROTO_TCP, local)
				in := packet{src: ap(w.client), dst: ap(port(w.vip, "0")), protocol: protocol, payload: make([]byte, 40)}
				l.ingress(outside, in).dropped("drop_unsupported")
				l.ingress(outside, in.to(port(w.shared, "0"))).untouched("not_ours")
				l.ingress(outside, in.to(w.remote)).untouched("not_ours")
			}
		}
		c[w.name+" ping to an exclusive address is answered"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			client := ap(w.client).Addr().String()
			in := echo(client, w.vip)
			l.ingress(outside, in).redirected(in.pong(), "ping_answered")
			l.ingress(outside, in.sized(1400).hops(1)).redirected(in.sized(1400).pong(), "ping_answered")
			l.ingress(outside, in.sized(0)).redirected(in.sized(0).pong(), "ping_answered")
			l.host(outside, in).redirected(in.pong().forth(), "ping_answered")
			l.forwarded(pods, in).redirected(in.pong(), "ping_answered")
			in.vlan = 9
			l.ingress(outside, in).redirected(in.pong(), "ping_answered")
		}
		c[w.name+" ping to a shared address is the host's"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			l.ingress(outside, echo(ap(w.client).Addr().String(), w.shared)).untouched("not_ours")
		}
		c[w.name+" other ICMP to an exclusive address is dropped"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			in := echo(ap(w.client).Addr().String(), w.vip).pong()
			in = in.reversed()
			in.swapped = false
			l.ingress(outside, in).dropped("drop_no_flow")
			l.ingress(outside, in.to(port(w.shared, "0"))).untouched("not_ours")
		}
	}
	// The router asks for the address that it knows the VIP by, and forgets the VIP when nobody answers.
	c["IPv6 neighbour discovery passes"] = func(l *lb) {
		w := worlds[1]
		l.serve(w, unix.IPPROTO_TCP, local)
		for _, kind := range []uint8{133, 134, 135, 136, 137} {
			in := echo("2001:db8::fe", w.vip).hops(255).sized(16)
			in.icmpType = kind
			l.ingress(outside, in).untouched("not_ours")
		}
	}
	c.run(t)
}
