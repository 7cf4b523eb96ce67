// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sourceGraceTicks is SOURCE_GRACE_TICKS of limits.h.
const sourceGraceTicks = 60_000_000_000 >> 30

// A node whose addresses change. It has no default route.
var labThatIsRenumbered = sync.OnceValues(func() (*lab, error) { return newLab((*lab).configure) })

// A renumbering has the flows of one backend lose their source or their way.
type renumbering struct {
	backend map[string]string // by IP version; none: the remote one, a neighbour of the device inside
	change  func(l *lb, ip ipVersion)
	// source is the source from then on, and dev the device.
	source map[string]string
	dev    string
}

var (
	farBackend = map[string]string{"IPv4": "10.7.0.10:8080", "IPv6": "[fd00:7::10]:8080"}
	farNetwork = map[string]string{"IPv4": "10.7.0.0/24", "IPv6": "fd00:7::/64"}
	bits       = map[string]string{"IPv4": "/24", "IPv6": "/64"}
	nextInside = map[string]string{"IPv4": "10.1.0.99", "IPv6": "fd00:1::99"}
	renumbered = map[string]string{"IPv4": "10.99.0.1", "IPv6": "fd00:99::1"}
	viaInside  = map[string]string{"IPv4": "10.1.0.77", "IPv6": "fd00:1::77"}
	viaPods    = map[string]string{"IPv4": "10.2.0.77", "IPv6": "fd00:2::77"}
	viaElse    = map[string]string{"IPv4": "10.99.0.77", "IPv6": "fd00:99::77"}
)

var renumberings = map[string]renumbering{
	"another address of the network": {
		change: func(l *lb, ip ipVersion) {
			l.delAddress(inside, ip.nodeIn+bits[ip.name])
			l.addAddress(inside, nextInside[ip.name]+bits[ip.name])
		},
		source: nextInside, dev: inside,
	},
	"an address of another network, and no route to the previous one": {
		backend: farBackend,
		change: func(l *lb, ip ipVersion) {
			l.delAddress(inside, ip.nodeIn+bits[ip.name])
			l.addAddress(inside, renumbered[ip.name]+bits[ip.name])
			l.routeBy(inside, farNetwork[ip.name], viaElse[ip.name])
		},
		source: renumbered, dev: inside,
	},
	"a route by another device": {
		backend: farBackend,
		change: func(l *lb, ip ipVersion) {
			l.routeBy(pods, farNetwork[ip.name], viaPods[ip.name])
		},
		source: map[string]string{"IPv4": "10.2.0.1", "IPv6": "fd00:2::1"}, dev: pods,
	},
	"a device that is down": {
		backend: farBackend,
		change: func(l *lb, ip ipVersion) {
			l.inLab(func() error {
				dev, err := netlink.LinkByName(inside)
				return errors.Join(err, netlink.LinkSetDown(dev))
			})
			l.routeBy(pods, farNetwork[ip.name], viaPods[ip.name])
		},
		source: map[string]string{"IPv4": "10.2.0.1", "IPv6": "fd00:2::1"}, dev: pods,
	},
}

// inLab runs job in the namespace. Whoever fails a test there ends the thread that all tests need.
func (l *lb) inLab(job func() error) {
	l.Helper()
	var err error
	l.lab.do(func() { err = job() })
	l.must(err)
}

func (l *lb) addAddress(dev, address string) {
	l.Helper()
	l.changeAddress(dev, address, netlink.AddrReplace)
	ip := netip.MustParsePrefix(address).Addr().AsSlice()
	l.eventually(func() (local bool) { // IPv6: the kernel has it a moment later
		l.inLab(func() error {
			routes, err := netlink.RouteGet(ip)
			local = err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
			return nil
		})
		return local
	})
}

func (l *lb) delAddress(dev, address string) {
	l.Helper()
	l.changeAddress(dev, address, netlink.AddrDel)
}

func (l *lb) changeAddress(dev, address string, change func(netlink.Link, *netlink.Addr) error) {
	l.Helper()
	a, err := netlink.ParseAddr(address)
	l.must(err)
	a.Flags = unix.IFA_F_NODAD
	l.inLab(func() error {
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		return change(link, a)
	})
}

// routeBy replaces the routes to a network by one.
func (l *lb) routeBy(dev, network, via string) {
	l.Helper()
	l.inLab(func() error {
		dst := prefixNet(network)
		if err := deleteRoutes(dst); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: int(l.lab.devices[dev]), Gw: netip.MustParseAddr(via).AsSlice(), Dst: dst})
	})
}

func deleteRoutes(dst *net.IPNet) error {
	family := netlink.FAMILY_V4
	if dst.IP.To4() == nil {
		family = netlink.FAMILY_V6
	}
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Dst: dst}, netlink.RT_FILTER_DST)
	for _, r := range routes {
		err = errors.Join(err, netlink.RouteDel(&r))
	}
	return err
}

// renumberable moves the data plane to that node, with its first addresses and routes.
func (l *lb) renumberable() {
	l.Helper()
	lab, err := labThatIsRenumbered()
	l.must(err)
	l.lab = lab
	for dev, own := range map[string][]string{inside: {"10.1.0.1/24", "fd00:1::1/64"}, pods: {"10.2.0.1/24", "fd00:2::1/64"}} {
		l.inLab(func() error {
			link, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
			for _, a := range addrs {
				// With an address its secondary ones go.
				if e := netlink.AddrDel(link, &a); !errors.Is(e, unix.EADDRNOTAVAIL) {
					err = errors.Join(err, e)
				}
			}
			return errors.Join(err, netlink.LinkSetUp(link))
		})
		for _, a := range own {
			l.addAddress(dev, a)
		}
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		l.inLab(func() error { return deleteRoutes(prefixNet(all)) })
	}
	for network, via := range map[string]string{"198.51.100.0/24": "192.0.2.254", "2001:db8:c::/48": "2001:db8::254"} {
		l.routeBy(outside, network, via)
	}
	l.clear()
	l.config(0)
	for _, name := range []string{"IPv4", "IPv6"} {
		l.routeBy(inside, farNetwork[name], viaInside[name])
	}
}

// openTo opens a flow to the backend, and returns the client's packet and what the backend gets.
func (l *lb) openTo(ip ipVersion, proto uint8, backend string, established bool) (in, out packet) {
	l.Helper()
	l.serve(ip, proto, other)
	l.backend(other, backend)
	open := opening(proto, ip.client, port(ip.vip, "80"))
	out = open.snat(ip.nodeIn, 0).to(backend)
	l.ingress(outside, open).redirected(out.hop(), "flow_new forwarded")
	in = open
	if established {
		l.ingress(inside, answer(proto, backend, out.src.String())).wantVerdict(redirect, "replied")
		in = establishing(proto, ip.client, port(ip.vip, "80"))
		out = in.snat(ip.nodeIn, 0).to(backend)
		l.ingress(outside, in).redirected(out.hop(), "forwarded"+andEstablished(proto))
	}
	return in, out
}

// aTickLater has the flow of a packet see it a tick later.
func (l *lb) aTickLater(in packet) *result {
	l.Helper()
	l.age(in, 1)
	return l.ingress(outside, in)
}

// A flow that no connection depends on has another source with the first packet
// of the next tick, and its answers come.
func TestSourceIsGone(t *testing.T) {
	c := cases{}
	for name, r := range renumberings {
		forEachProtocol(c, name, func(l *lb, ip ipVersion, proto uint8) {
			l.renumberable()
			backend := ip.remote
			if r.backend != nil {
				backend = r.backend[ip.name]
			}
			in, out := l.openTo(ip, proto, backend, proto == unix.IPPROTO_UDP)
			counters := "forwarded flow_port_changed=1"
			if proto == unix.IPPROTO_UDP {
				l.publish(0) // the flow keeps its backend, whatever the ring says
			} else {
				counters = "forwarded flow_port_changed=2" // a repeated SYN takes another port anyway
			}
			r.change(l, ip)
			got := l.aTickLater(in)
			_, f := l.flow(in)
			moved := out.from(addrPort(netip.MustParseAddr(r.source[ip.name]), int(htons(f.Sport))).String())
			got.redirected(moved.hop(), counters)
			re := answer(proto, backend, moved.src.String())
			l.ingress(r.dev, re).redirected(re.from(port(ip.vip, "80")).to(ip.client).hop(), "replied")
			l.wantTable(answer(proto, backend, out.src.String()), "none")
			in = establishing(proto, ip.client, port(ip.vip, "80"))
			l.aTickLater(in).redirected(in.from(moved.src.String()).to(backend).hop(), "forwarded"+andEstablished(proto))
		})
	}
	c.run(t)
}

// A connection waits for its address, and ends when that has been away for long.
func TestSourceOfConnectionIsGone(t *testing.T) {
	c := cases{}
	for name, r := range renumberings {
		for _, ip := range ipVersions {
			c[ip.name+" "+name] = func(l *lb) {
				l.renumberable()
				backend := ip.remote
				if r.backend != nil {
					backend = r.backend[ip.name]
				}
				in, out := l.openTo(ip, unix.IPPROTO_TCP, backend, true)
				r.change(l, ip)
				l.age(answer(unix.IPPROTO_TCP, backend, out.src.String()), 100*sourceGraceTicks) // the connection was idle
				l.setAge(in, sourceGraceTicks+1)
				l.ingress(outside, in).redirected(out.hop(), "forwarded")
				l.aTickLater(in).redirected(out.hop(), "forwarded")
				l.astraySince(in, sourceGraceTicks/2)
				l.aTickLater(in).redirected(out.hop(), "forwarded")
				l.astraySince(in, sourceGraceTicks+1)
				l.aTickLater(in).redirected(in.rstAnswer(rst, 5001, 0), "reject_backend_gone")
				l.wantTable(in, "none")
			}
		}
	}
	c.run(t)
}

func (l *lb) setAge(p packet, ticks uint32) {
	l.Helper()
	m, f := l.flow(p)
	f.LastSeen = l.tick() - ticks
	l.must(m.Put(keyOf(p), f))
}

// astraySince has the flow have lost its source that many ticks ago.
func (l *lb) astraySince(p packet, ticks uint32) {
	l.Helper()
	m, f := l.flow(p)
	if f.Astray == 0 {
		l.Error("the flow has not noticed that its source is gone")
	}
	f.Astray = l.tick() - ticks
	l.must(m.Put(keyOf(p), f))
}

func TestSourceComesBack(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		away := func(l *lb) (in, out packet) {
			l.renumberable()
			in, out = l.openTo(ip, unix.IPPROTO_TCP, ip.remote, true)
			renumberings["another address of the network"].change(l, ip)
			l.aTickLater(in).redirected(out.hop(), "forwarded")
			l.age(answer(unix.IPPROTO_TCP, ip.remote, out.src.String()), 100*sourceGraceTicks)
			return in, out
		}
		c[ip.name+" a moment later"] = func(l *lb) {
			in, out := away(l)
			l.astraySince(in, sourceGraceTicks+1)
			l.delAddress(inside, nextInside[ip.name]+bits[ip.name])
			l.addAddress(inside, ip.nodeIn+bits[ip.name])
			l.aTickLater(in).redirected(out.hop(), "forwarded")
			if _, f := l.flow(in); f.Astray != 0 {
				l.Error("the flow has not noticed that its source is back")
			}
		}
		c[ip.name+" and goes again, when the connection was idle meanwhile"] = func(l *lb) {
			in, out := away(l)
			l.astraySince(in, 50*sourceGraceTicks)
			l.setAge(in, sourceGraceTicks+2)
			l.ingress(outside, in).redirected(out.hop(), "forwarded")
			l.aTickLater(in).redirected(out.hop(), "forwarded")
		}
		c[ip.name+" the backend still answers"] = func(l *lb) {
			in, out := away(l)
			l.setAge(answer(unix.IPPROTO_TCP, ip.remote, out.src.String()), 1)
			l.astraySince(in, 50*sourceGraceTicks)
			l.aTickLater(in).redirected(out.hop(), "forwarded")
		}
	}
	c.run(t)
}

// What has a source that is still the host's keeps it, even where the FIB prefers another by now.
func TestSourceIsKept(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "another address is preferred", func(l *lb, ip ipVersion, proto uint8) {
		l.renumberable()
		in, out := l.openTo(ip, proto, ip.remote, true)
		l.addAddress(inside, nextInside[ip.name]+bits[ip.name])
		l.inLab(func() error {
			network := netip.MustParsePrefix(ip.nodeIn + bits[ip.name]).Masked().String()
			if err := deleteRoutes(prefixNet(network)); err != nil {
				return err
			}
			return l.lab.route(inside, routeSpec{dst: network, src: nextInside[ip.name]})
		})
		fresh := opening(proto, addrPort(ap(ip.client).Addr(), 40001).String(), port(ip.vip, "80"))
		l.ingress(outside, fresh).redirected(fresh.snat(nextInside[ip.name], 0).to(ip.remote).hop(), "flow_new forwarded")
		for range 3 {
			l.aTickLater(in).redirected(out.hop(), "forwarded")
		}
	})
	forEachProtocol(c, "the backend has no route", func(l *lb, ip ipVersion, proto uint8) {
		l.renumberable()
		in, _ := l.openTo(ip, proto, farBackend[ip.name], true)
		l.inLab(func() error { return deleteRoutes(prefixNet(farNetwork[ip.name])) })
		l.aTickLater(in).wantVerdict(redirect, "reject_unreachable")
		l.wantTable(in, livesIn(proto))
	})
	forEachProtocol(c, "no port is free at the next address", func(l *lb, ip ipVersion, proto uint8) {
		l.renumberable()
		in, out := l.openTo(ip, proto, ip.remote, proto == unix.IPPROTO_UDP)
		renumberings["another address of the network"].change(l, ip)
		l.ports(1, 0)
		l.aTickLater(in).redirected(out.hop(), "forwarded")
		l.wantTable(answer(proto, ip.remote, out.src.String()), map[uint8]string{unix.IPPROTO_TCP: "new_flows", unix.IPPROTO_UDP: "udp_flows"}[proto])
	})
	c.run(t)
}

// Of equal paths the FIB names one by a hash: the source of a flow stays.
func TestSourceOnEqualPaths(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "", func(l *lb, ip ipVersion, proto uint8) {
		lab, err := labWithPaths()
		l.must(err)
		l.lab = lab
		l.serve(ip, proto, other)
		l.backend(other, map[string]string{"IPv4": "10.7.0.10:80", "IPv6": "[fd00:7::10]:80"}[ip.name])
		for _, policy := range []string{"0", "1"} {
			l.inLab(func() error {
				return errors.Join(sysctl("ipv4/fib_multipath_hash_policy", policy), sysctl("ipv6/fib_multipath_hash_policy", policy))
			})
			for i := range 20 {
				in := opening(proto, addrPort(ap(ip.client).Addr(), 41000+i).String(), port(ip.vip, "80"))
				l.ingress(outside, in).wantVerdict(redirect, "flow_new forwarded")
				_, before := l.flow(in)
				in = establishing(proto, in.src.String(), port(ip.vip, "80"))
				l.aTickLater(in).wantVerdict(redirect, "forwarded")
				if _, after := l.flow(in); after.Src != before.Src || after.Sport != before.Sport {
					l.Errorf("hash policy %s: flow %d has another source in the next tick", policy, i)
				}
			}
			deleteAll[BlixtFlowKey, BlixtFlow](l, l.NewFlows)
			deleteAll[BlixtFlowKey, BlixtFlow](l, l.UdpFlows)
			l.forgetKept()
		}
	})
	c.run(t)
}

func prefixNet(s string) *net.IPNet {
	p := netip.MustParsePrefix(s)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
