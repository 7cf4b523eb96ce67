// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The predecessor of this data plane had defects that its tests did not see.
// Each that concerns packets has a test of that name; most have more elsewhere.

// Destination ports were never translated and layer-4 checksums overwritten;
// equal ports and devices that do not verify hid it.
func TestDefect1_PortsAreTranslatedAndChecksumsAreRight(t *testing.T) {
	c := cases{}
	everywhere(c, "listener port 80, target port 8080", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local, remote)
		for _, id := range []uint32{local, remote} {
			l.publish(0, id)
			in := opening(proto, w.client, port(w.vip, "80"))
			in.src = addrPort(in.src.Addr(), 40000+int(id))
			if id == local {
				l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
				re := answer(proto, w.local, in.src.String())
				l.forwarded(pods, re).next(re.from(port(w.vip, "80")), "replied")
				continue
			}
			out := in.snat(w.nodeIn, 0).to(w.remote).hop()
			l.ingress(outside, in).redirected(out, "flow_new forwarded")
			re := answer(proto, w.remote, out.src.String())
			l.ingress(inside, re).redirected(re.from(port(w.vip, "80")).to(in.src.String()).hop(), "replied")
		}
	})
	c.run(t)
}

// Each datagram went to another backend, and replies came from the backend's
// own address.
func TestDefect2_UDPHasFlows(t *testing.T) {
	c := cases{}
	for _, w := range worlds {
		c[w.name] = func(l *lb) {
			l.serve(w, unix.IPPROTO_UDP, local)
			c := l.converse(w, unix.IPPROTO_UDP, false)
			for i := range 10 {
				l.publish(0, []uint32{remote, local}[i%2]) // whatever the ring says
				counters := "forwarded"
				if i == 1 {
					counters += " flow_established"
				}
				c.there(c.says(0, 0, 0, "one of ten"), counters)
				c.here(c.reverse())
			}
		}
	}
	c.run(t)
}

// The key of a connection was the client's address and port alone.
func TestDefect3_FlowsOfOneClientSocketAreApart(t *testing.T) {
	c := cases{}
	for _, w := range worlds {
		c[w.name+" two VIPs, two ports, two protocols"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			var all []conversation
			for i, f := range []struct {
				protocol uint8
				vip      string
				backend  string
			}{
				{unix.IPPROTO_TCP, port(w.vip, "80"), "1"}, {unix.IPPROTO_UDP, port(w.vip, "80"), "2"},
				{unix.IPPROTO_TCP, port(w.vip, "443"), "3"}, {unix.IPPROTO_TCP, port(w.shared, "80"), "4"},
				{unix.IPPROTO_UDP, port(w.shared, "443"), "5"},
			} {
				backend := port(ap(w.local).Addr().String(), "900"+f.backend)
				l.backend(uint32(10+i), backend)
				l.frontend(uint32(i), f.protocol, f.vip, uint32(10+i))
				all = append(all, conversation{l, w, f.protocol, f.vip, backend, w.client})
			}
			for _, c := range all {
				c.there(opening(c.protocol, c.client, c.vip), "flow_new forwarded")
			}
			for _, c := range all {
				c.here(answer(c.protocol, c.backend, c.client))
			}
			for _, c := range all {
				c.there(second(c.protocol, c.client, c.vip), "forwarded flow_established")
			}
		}
	}
	c.run(t)
}

// A FIN of either side removed the connection at once; nothing ever timed out.
// That floods cost no established flow is tested with small tables.
func TestDefect4_HalfClosedWorksAndIdleEnds(t *testing.T) {
	c := cases{}
	for _, w := range worlds {
		c[w.name+" the client has closed, the backend has not"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			c := l.converse(w, unix.IPPROTO_TCP, true)
			c.there(c.says(ack|fin, 1001, 5001, ""), "forwarded")
			l.publish(0, remote)
			for i := range uint32(20) {
				c.here(c.reverse().segment(ack|psh, 5001+i, 1002, "."))
				c.there(c.says(ack, 1002, 5002+i, ""), "forwarded")
			}
		}
		c[w.name+" the backend has closed, the client has not"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			c := l.converse(w, unix.IPPROTO_TCP, true)
			c.here(c.reverse().segment(ack|fin, 5001, 1001, ""))
			l.publish(0, remote)
			for i := range uint32(20) {
				c.there(c.says(ack|psh, 1001+i, 5002, "."), "forwarded")
				c.here(c.reverse().segment(ack, 5002, 1002+i, ""))
			}
		}
		c[w.name+" idle flows end"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			c := l.converse(w, unix.IPPROTO_TCP, true)
			l.age(c.forward(), idleTicks+2)
			l.age(c.reverse(), idleTicks+2)
			c.there(opening(c.protocol, c.client, c.vip), "flow_expired flow_new forwarded")
		}
	}
	c.run(t)
}

// Anything but a plain IPv4 header was mangled or black-holed.
func TestDefect5_WhatIPAllows(t *testing.T) {
	c := cases{}
	everywhere(c, "odd packets", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		c := l.converse(w, proto, true)
		plain := second(proto, w.client, c.vip).sized(600)
		odd := plain
		if w.name == "IPv4" {
			odd.options = []byte{7, 7, 4, 0, 0, 0, 0, 0}
		} else {
			odd.exts = []extension{hopByHop(), destOptions(), routing()}
		}
		c.there(odd, "forwarded")
		odd = plain
		odd.df, odd.id = false, 99
		for _, f := range []packet{odd.cut(0, 304), odd.cut(304, 0)} {
			c.there(f, "forwarded")
		}
		if proto == unix.IPPROTO_UDP {
			odd = plain
			odd.zero = true
			c.there(odd, "forwarded")
		}
		odd = c.reverse()
		odd.vlan = 77
		c.here(odd)
		// Path MTU: the router quotes what it has seen, the client has to recognize it.
		seen, sent := plain.to(w.local), plain
		kind := icmpKinds[w.name][1]
		from, to := "10.77.0.1", ap(w.client).Addr().String()
		if w.name == "IPv6" {
			from, kind = "fd00:77::1", icmpKinds[w.name][1]
		}
		l.forwarded(pods, icmpError(from, to, kind.kind, kind.code, kind.rest, seen, 64)).next(
			icmpError(from, to, kind.kind, kind.code, kind.rest, sent, 64), "icmp_replied")
	})
	c.run(t)
}

// Whatever happened, the verdict was TC_ACT_OK: no program behind it ran, and
// packets whose rewrite had failed went out.
func TestDefect6_VerdictsSayWhatHappened(t *testing.T) {
	c := cases{}
	everywhere(c, "verdicts", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		l.backend(other, map[string]string{"IPv4": "10.200.0.1:80", "IPv6": "[fd00:200::1]:80"}[w.name])
		l.frontend(1, proto, port(w.vip, "81"), other)
		in := opening(proto, w.client, port(w.vip, "80"))
		l.ingress(outside, in.to(w.remote)).untouched("not_ours")
		l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
		l.ingress(outside, in.to(port(w.vip, "81"))).dropped("drop_no_route")
	})
	c.run(t)
}
