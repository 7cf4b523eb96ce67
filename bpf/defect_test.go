// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The previous data plane had defects that its tests did not find. Each defect
// that concerns packets has a test here, with its number; most have more tests
// elsewhere.

// Destination ports were never translated, and layer-4 checksums were
// overwritten. Equal ports, and devices that do not verify checksums, hid it.
func TestDefect1_PortsAreTranslatedAndChecksumsAreRight(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "listener port 80, target port 8080", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local, remote)
		for _, id := range []uint32{local, remote} {
			l.publish(0, id)
			in := opening(proto, ip.client, port(ip.vip, "80"))
			in.src = addrPort(in.src.Addr(), 40000+int(id))
			if id == local {
				l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
				re := answer(proto, ip.local, in.src.String())
				l.egressForwarded(pods, re).toStack(re.from(port(ip.vip, "80")), "replied")
				continue
			}
			out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
			l.ingress(outside, in).redirected(out, "flow_new forwarded")
			re := answer(proto, ip.remote, out.src.String())
			l.ingress(inside, re).redirected(re.from(port(ip.vip, "80")).to(in.src.String()).hop(), "replied")
		}
	})
	c.run(t)
}

// Each datagram went to another backend, and replies came from the backend's
// own address.
func TestDefect2_UDPHasFlows(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_UDP, local)
			c := l.openFlow(ip, unix.IPPROTO_UDP, false)
			for i := range 10 {
				l.publish(0, []uint32{remote, local}[i%2]) // the ring must not matter
				c.fromClient(c.clientPacket(0, 0, 0, "one of ten"), "forwarded")
				c.fromBackend(c.reply())
			}
		}
	}
	c.run(t)
}

// The key of a connection was only the client's address and port.
func TestDefect3_FlowsOfOneClientSocketAreApart(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name+" two VIPs, two ports, two protocols"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			var all []localFlow
			for i, f := range []struct {
				protocol uint8
				vip      string
				backend  string
			}{
				{unix.IPPROTO_TCP, port(ip.vip, "80"), "1"}, {unix.IPPROTO_UDP, port(ip.vip, "80"), "2"},
				{unix.IPPROTO_TCP, port(ip.vip, "443"), "3"}, {unix.IPPROTO_TCP, port(ip.shared, "80"), "4"},
				{unix.IPPROTO_UDP, port(ip.shared, "443"), "5"},
			} {
				backend := port(ap(ip.local).Addr().String(), "900"+f.backend)
				l.backend(uint32(10+i), backend)
				l.frontend(uint32(i), f.protocol, f.vip, uint32(10+i))
				all = append(all, localFlow{l, ip, f.protocol, f.vip, backend, ip.client})
			}
			for _, c := range all {
				c.fromClient(opening(c.protocol, c.client, c.vip), "flow_new forwarded")
			}
			for _, c := range all {
				c.fromBackend(answer(c.protocol, c.backend, c.client))
			}
			for _, c := range all {
				c.fromClient(establishing(c.protocol, c.client, c.vip), "forwarded"+andEstablished(c.protocol))
			}
		}
	}
	c.run(t)
}

// A FIN of either side removed the connection at once, and no connection ever
// timed out. TestFloodLeavesEstablishedFlowsAlone covers full tables.
func TestDefect4_HalfClosedWorksAndIdleEnds(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name+" the client has closed, the backend has not"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			c := l.openFlow(ip, unix.IPPROTO_TCP, true)
			c.fromClient(c.clientPacket(ack|fin, 1001, 5001, ""), "forwarded")
			l.publish(0, remote)
			for i := range uint32(20) {
				c.fromBackend(c.reply().segment(ack|psh, 5001+i, 1002, "."))
				c.fromClient(c.clientPacket(ack, 1002, 5002+i, ""), "forwarded")
			}
		}
		c[ip.name+" the backend has closed, the client has not"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			c := l.openFlow(ip, unix.IPPROTO_TCP, true)
			c.fromBackend(c.reply().segment(ack|fin, 5001, 1001, ""))
			l.publish(0, remote)
			for i := range uint32(20) {
				c.fromClient(c.clientPacket(ack|psh, 1001+i, 5002, "."), "forwarded")
				c.fromBackend(c.reply().segment(ack, 5002, 1002+i, ""))
			}
		}
		c[ip.name+" idle flows end"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			c := l.openFlow(ip, unix.IPPROTO_TCP, true)
			l.age(c.forward(), idleTicks+2)
			l.age(c.reply(), idleTicks+2)
			c.fromClient(opening(c.protocol, c.client, c.vip), "flow_expired flow_new forwarded")
		}
	}
	c.run(t)
}

// Packets with anything but a plain IPv4 header were corrupted or lost.
func TestDefect5_WhatIPAllows(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "odd packets", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		c := l.openFlow(ip, proto, true)
		plain := establishing(proto, ip.client, c.vip).withSize(600)
		odd := plain
		if ip.name == "IPv4" {
			odd.options = []byte{7, 7, 4, 0, 0, 0, 0, 0}
		} else {
			odd.exts = []extension{hopByHop(), destOptions(), routing()}
		}
		c.fromClient(odd, "forwarded")
		odd = plain
		odd.df, odd.id = false, 99
		for _, f := range []packet{odd.fragment(0, 304), odd.fragment(304, 0)} {
			c.fromClient(f, "forwarded")
		}
		if proto == unix.IPPROTO_UDP {
			odd = plain
			odd.zero = true
			c.fromClient(odd, "forwarded")
		}
		odd = c.reply()
		odd.vlan = 77
		c.fromBackend(odd)
		// Path MTU: the router quotes the translated packet, the client has to recognize its own.
		seen, sent := plain.to(ip.local), plain
		kind := icmpKinds[ip.name][1]
		from, to := "10.77.0.1", ap(ip.client).Addr().String()
		if ip.name == "IPv6" {
			from, kind = "fd00:77::1", icmpKinds[ip.name][1]
		}
		l.egressForwarded(pods, icmpError(from, to, kind.kind, kind.code, kind.rest, seen, 64)).toStack(
			icmpError(ip.vip, to, kind.kind, kind.code, kind.rest, sent, 64), "icmp_replied")
	})
	c.run(t)
}

// The verdict was always TC_ACT_OK: no program behind it ran, and packets whose
// rewrite had failed were sent.
func TestDefect6_VerdictsSayWhatHappened(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "verdicts", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.backend(other, map[string]string{"IPv4": "10.4.1.1:80", "IPv6": "[fd00:4:1::1]:80"}[ip.name]) // a blackhole
		l.frontend(1, proto, port(ip.vip, "81"), other)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in.to(ip.remote)).untouched("not_ours")
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		l.ingress(outside, in.to(port(ip.vip, "81"))).dropped("drop_no_route")
	})
	c.run(t)
}
