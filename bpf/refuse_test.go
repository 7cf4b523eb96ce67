// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestReset is about RSTs (RFC 9293, 3.5.2): their contents and their receivers.
func TestReset(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		vip := port(ip.vip, "80")
		for name, serve := range map[string]func(l *lb){
			"reject slot":             func(l *lb) { l.serve(ip, unix.IPPROTO_TCP, uint32(BlixtBackendIdBACKEND_REJECT)) },
			"frontend without a ring": func(l *lb) { l.serve(ip, unix.IPPROTO_TCP) },
			"backend no longer in use": func(l *lb) {
				l.serve(ip, unix.IPPROTO_TCP, remote)
				l.removeBackend(remote)
			},
		} {
			const counted = "reject_no_backend"
			c[ip.name+" "+name+" answers a SYN with an acknowledgement of it"] = func(l *lb) {
				serve(l)
				in := opening(unix.IPPROTO_TCP, ip.client, vip)
				l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), counted)
			}
			c[ip.name+" "+name+" counts data and FIN of a segment without ACK"] = func(l *lb) {
				serve(l)
				in := tcp(ip.client, vip).segment(syn|fin, 0xffffffff, 0, "fast open")
				l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 10), counted)
			}
			c[ip.name+" "+name+" answers an ACK with the sequence number that its sender expects"] = func(l *lb) {
				serve(l)
				in := tcp(ip.client, vip).segment(ack|psh, 77, 4000000000, "data")
				l.ingress(outside, in).redirected(in.rstAnswer(rst, 4000000000, 0), counted)
			}
			c[ip.name+" "+name+" answers an ACK that is as long as the RST"] = func(l *lb) {
				serve(l)
				in := tcp(ip.client, vip).segment(ack, 77, 2000, "")
				l.ingress(outside, in).redirected(in.rstAnswer(rst, 2000, 0), counted)
			}
			c[ip.name+" "+name+" never answers a RST"] = func(l *lb) {
				serve(l)
				l.ingress(outside, tcp(ip.client, vip).segment(rst, 77, 0, "")).dropped("drop_no_flow")
				l.ingress(outside, tcp(ip.client, vip).segment(rst|ack, 77, 2000, "")).dropped("drop_no_flow")
			}
			c[ip.name+" "+name+" answers a socket of this host"] = func(l *lb) {
				serve(l)
				in := opening(unix.IPPROTO_TCP, ip.host, vip)
				l.egressHost(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001).keepMACs(), counted)
			}
			c[ip.name+" "+name+" answers a forwarded packet"] = func(l *lb) {
				serve(l)
				in := opening(unix.IPPROTO_TCP, ip.client, vip)
				l.egressForwarded(pods, in).redirected(in.rstAnswer(rst|ack, 0, 1001), counted)
			}
			c[ip.name+" "+name+" trims the padding of the frame"] = func(l *lb) {
				serve(l)
				in := tcp(ip.client, vip).segment(ack, 77, 2000, "")
				in.padding = 6
				l.ingress(outside, in).redirected(in.rstAnswer(rst, 2000, 0), counted)
			}
			c[ip.name+" "+name+" keeps a VLAN tag"] = func(l *lb) {
				serve(l)
				in := tcp(ip.client, vip).segment(ack, 77, 2000, "data")
				in.vlan = 5
				l.ingress(outside, in).redirected(in.rstAnswer(rst, 2000, 0), counted)
			}
		}
		c[ip.name+" UDP of a frontend without a backend is dropped"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_UDP, uint32(BlixtBackendIdBACKEND_REJECT))
			l.ingress(outside, udp(ip.client, vip)).dropped("reject_no_backend")
		}
		c[ip.name+" a share of the ring rejects, the rest is served"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, uint32(BlixtBackendIdBACKEND_REJECT), local)
			refused := 0
			for i := range 64 {
				in := opening(unix.IPPROTO_TCP, ip.client, vip)
				in.src = addrPort(in.src.Addr(), 1024+i)
				if clientHash(in.src)>>31 == 0 { // the first half of the ring
					l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_no_backend")
					refused++
				} else {
					l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
				}
			}
			if refused == 0 || refused == 64 {
				l.Errorf("%d of 64 refused, want some", refused)
			}
		}
	}
	c["IPv4 options stay in the RST"] = func(l *lb) {
		ip := ipVersions[0]
		l.serve(ip, unix.IPPROTO_TCP)
		in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
		in.options = []byte{1, 1, 1, 0}
		l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_no_backend")
	}
	c["IPv6 extension headers stay in the RST"] = func(l *lb) {
		ip := ipVersions[1]
		l.serve(ip, unix.IPPROTO_TCP)
		in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
		in.exts = []extension{hopByHop()}
		l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_no_backend")
	}
	c.run(t)
}

// TestUnserved is about packets to no frontend. Blixt answers for an exclusive
// address; on a shared address they belong to the host.
func TestUnserved(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		in4 := func(p uint8, addr string) packet { return opening(p, ip.client, port(addr, "81")) }
		c[ip.name+" TCP port of an exclusive address is reset"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			in := in4(unix.IPPROTO_TCP, ip.vip)
			l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_unserved")
			in = in.segment(ack, 5, 99, "data")
			l.ingress(outside, in).redirected(in.rstAnswer(rst, 99, 0), "reject_unserved")
			l.ingress(outside, in.segment(rst, 5, 0, "")).dropped("drop_no_flow")
		}
		c[ip.name+" UDP port of an exclusive address is unreachable"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_UDP, local)
			in := in4(unix.IPPROTO_UDP, ip.vip)
			l.ingress(outside, in).redirected(in.portUnreachable(), "reject_unserved")
			for _, n := range []int{0, 1, 2, 3, 99, 100, 101, 1000, 1400} {
				in = in.withSize(n)
				l.ingress(outside, in).redirected(in.portUnreachable(), "reject_unserved")
			}
			// As long as its answer.
			in = in.withSize(128)
			if ip.name == "IPv6" {
				in = in.withSize(128)
			}
			l.ingress(outside, in).redirected(in.portUnreachable(), "reject_unserved")
			l.egressHost(outside, in).redirected(in.portUnreachable().keepMACs(), "reject_unserved")
			l.egressForwarded(pods, in).redirected(in.portUnreachable(), "reject_unserved")
			in.vlan = 7
			l.ingress(outside, in).redirected(in.portUnreachable(), "reject_unserved")
		}
		c[ip.name+" the other protocol of a served port is unserved"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_UDP, local)
			in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
			l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_unserved")
		}
		c[ip.name+" ports of a shared address are the host's"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			l.ingress(outside, in4(unix.IPPROTO_TCP, ip.shared)).untouched("not_ours")
			l.ingress(outside, in4(unix.IPPROTO_UDP, ip.shared)).untouched("not_ours")
		}
		for name, protocol := range map[string]uint8{"SCTP": unix.IPPROTO_SCTP, "GRE": unix.IPPROTO_GRE, "ESP": unix.IPPROTO_ESP, "no": 253} {
			c[ip.name+" "+name+" protocol"] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_TCP, local)
				in := packet{src: ap(ip.client), dst: ap(port(ip.vip, "0")), protocol: protocol, payload: make([]byte, 40)}
				l.ingress(outside, in).dropped("drop_unsupported")
				l.ingress(outside, in.to(port(ip.shared, "0"))).untouched("not_ours")
				l.ingress(outside, in.to(ip.remote)).untouched("not_ours")
			}
		}
		c[ip.name+" ping to an exclusive address is answered"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			client := ap(ip.client).Addr().String()
			in := echo(client, ip.vip)
			l.ingress(outside, in).redirected(in.echoReply(), "ping_answered")
			l.ingress(outside, in.withSize(1400).withTTL(1)).redirected(in.withSize(1400).echoReply(), "ping_answered")
			l.ingress(outside, in.withSize(0)).redirected(in.withSize(0).echoReply(), "ping_answered")
			l.egressHost(outside, in).redirected(in.echoReply().keepMACs(), "ping_answered")
			l.egressForwarded(pods, in).redirected(in.echoReply(), "ping_answered")
			in.vlan = 9
			l.ingress(outside, in).redirected(in.echoReply(), "ping_answered")
		}
		c[ip.name+" ping to a shared address is the host's"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			l.ingress(outside, echo(ap(ip.client).Addr().String(), ip.shared)).untouched("not_ours")
		}
		c[ip.name+" other ICMP to an exclusive address is dropped"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			in := echo(ap(ip.client).Addr().String(), ip.vip).echoReply()
			in = in.reversed()
			in.swapped = false
			l.ingress(outside, in).dropped("drop_no_flow")
			l.ingress(outside, in.to(port(ip.shared, "0"))).untouched("not_ours")
		}
	}
	// The router sends solicitations to the VIP itself, and drops its neighbour entry if nobody answers.
	c["IPv6 neighbour discovery passes"] = func(l *lb) {
		ip := ipVersions[1]
		l.serve(ip, unix.IPPROTO_TCP, local)
		for _, kind := range []uint8{133, 134, 135, 136, 137} {
			in := echo("2001:db8::fe", ip.vip).withTTL(255).withSize(16)
			in.icmpType = kind
			l.ingress(outside, in).untouched("not_ours")
		}
	}
	c.run(t)
}
