// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	second   = "second"   // another way to the clients
	elseHome = "elsehome" // pods whose answers leave by `second`: 10.12.0.0/24, fd00:12::/64
)

// Backends and clients of the lab with more ways than one.
var (
	twoWays   = map[string]string{"IPv4": "10.7.0.10:8080", "IPv6": "[fd00:7::10]:8080"}   // behind `inside` and `second`
	elsewhere = map[string]string{"IPv4": "10.12.0.10:8080", "IPv6": "[fd00:12::10]:8080"} // answers leave by `second`
	neighbour = map[string]string{"IPv4": "10.1.0.11:8080", "IPv6": "[fd00:1::11]:8080"}   // of which the node knows the MAC address
)

// A node with several network cards. Each has a MAC address of its own.
var labWithSeveralNICs = sync.OnceValues(func() (*lab, error) {
	return newLab(func(l *lab) error {
		if err := l.configure(); err != nil {
			return err
		}
		if err := l.device(second, "192.0.3.1/24", "2001:db8:3::1/64"); err != nil {
			return err
		}
		if err := l.device(elseHome, "10.12.0.1/24", "fd00:12::1/64"); err != nil {
			return err
		}
		for i, name := range []string{inside, second, elseHome} {
			if err := l.setMAC(name, []byte{2, 0, 0, 0, 1, byte(i)}); err != nil {
				return err
			}
		}
		for _, r := range []struct{ dst, inside, second string }{
			{"10.7.0.0/24", "10.1.0.2", "192.0.3.2"},
			{"fd00:7::/64", "fd00:1::2", "2001:db8:3::2"},
		} {
			_, dst, err := net.ParseCIDR(r.dst)
			if err != nil {
				return err
			}
			route := &netlink.Route{Dst: dst, MultiPath: []*netlink.NexthopInfo{
				{LinkIndex: int(l.devices[inside]), Gw: net.ParseIP(r.inside)},
				{LinkIndex: int(l.devices[second]), Gw: net.ParseIP(r.second)},
			}}
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("add route to %s: %w", r.dst, err)
			}
		}
		for _, r := range []struct{ from, via string }{{"10.12.0.10/32", "192.0.3.2"}, {"fd00:12::10/128", "2001:db8:3::2"}} {
			_, from, err := net.ParseCIDR(r.from)
			if err != nil {
				return err
			}
			rule := netlink.NewRule()
			rule.Src, rule.Table, rule.Family = from, 7, netlink.FAMILY_V4
			if from.IP.To4() == nil {
				rule.Family = netlink.FAMILY_V6
			}
			if err := netlink.RuleAdd(rule); err != nil {
				return fmt.Errorf("add rule from %s: %w", r.from, err)
			}
			_, all, err := net.ParseCIDR(map[bool]string{true: "0.0.0.0/0", false: "::/0"}[rule.Family == netlink.FAMILY_V4])
			if err != nil {
				return err
			}
			if err := netlink.RouteAdd(&netlink.Route{Dst: all, Gw: net.ParseIP(r.via), Table: 7, LinkIndex: int(l.devices[second])}); err != nil {
				return fmt.Errorf("add route to table 7: %w", err)
			}
		}
		return nil
	})
})

// meetNeighbour has the node know a neighbour's MAC address, which it forgets with its own.
func (l *lb) meetNeighbour(ip ipVersion) {
	l.Helper()
	l.lab.do(func() {
		l.must(netlink.NeighSet(&netlink.Neigh{LinkIndex: int(l.lab.devices[inside]), State: netlink.NUD_PERMANENT,
			IP: ap(neighbour[ip.name]).Addr().AsSlice(), HardwareAddr: peerMAC[:]}))
	})
}

// severalNICs moves the data plane to that node.
func (l *lb) severalNICs() {
	l.Helper()
	lab, err := labWithSeveralNICs()
	l.must(err)
	l.lab = lab
	l.clear()
	l.config(0)
}

// attached has the program see a packet of nobody come in by the devices.
func (l *lb) attached(devices ...string) {
	l.Helper()
	arp := append(append(append([]byte{}, deviceMAC[:]...), peerMAC[:]...), append([]byte{8, 6}, make([]byte, 46)...)...)
	for _, dev := range devices {
		if _, err := l.runRaw(hook{dev: dev}, arp); err != nil {
			l.Fatal(err)
		}
	}
}

// at sends a packet to ingress of a device, for that device's MAC address.
func (l *lb) at(dev string, p packet) *result {
	l.Helper()
	link, err := l.lab.link(dev)
	l.must(err)
	frame := p.bytes()
	copy(frame, link.Attrs().HardwareAddr)
	return l.sendFrame(hook{dev: dev}, p, frame)
}

func (l *lab) link(name string) (link netlink.Link, err error) {
	l.do(func() { link, err = netlink.LinkByName(name) })
	return link, err
}

// begin opens a flow of a client, and returns its packet as the backend gets it.
func (l *lb) begin(ip ipVersion, proto uint8, id uint32, address string) packet {
	l.Helper()
	l.serve(ip, proto, id)
	l.backend(id, address)
	in := opening(proto, ip.client, port(ip.vip, "80"))
	r := l.ingress(outside, in)
	r.wantVerdict(redirect, "flow_new forwarded")
	_, f := l.flow(in)
	source := netip.AddrFrom16(f.Src.Bytes).Unmap()
	out := in.to(address)
	out.src = netip.AddrPortFrom(source, htons(f.Sport))
	return out
}

// TestDeviceOfReplies is about packets with the tuple of a backend's answer that
// come in by another device than such answers do.
func TestDeviceOfReplies(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "forged ones from outside are not believed", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.attached(outside, inside)
		out := l.begin(ip, proto, remote, ip.remote)
		re := answer(proto, ip.remote, out.src.String())
		if proto == unix.IPPROTO_TCP { // who has not seen the SYN does not know its number
			re = re.segment(syn|ack, 5000, 1002, "")
		}
		l.ingress(outside, re).untouched("wrong_device")
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, re.segment(rst, 5000, 0, "")).untouched("wrong_device")
			l.ingress(outside, re.segment(rst|ack, 5000, 1002, "")).untouched("wrong_device")
		}
		if got := l.endFlags(re); got != 0 {
			l.Errorf("a forged RST has marked the flow with %#x", got)
		}
		re = answer(proto, ip.remote, out.src.String())
		l.at(inside, re).wantVerdict(redirect, "replied")
		in := establishing(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).wantVerdict(redirect, "forwarded"+andEstablished(proto))
		// Now numbers prove nothing any more.
		l.ingress(outside, re).untouched("wrong_device")
		l.at(inside, re).wantVerdict(redirect, "replied")
	})
	forEachProtocol(c, "any of several next hops is believed, and then expected", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.attached(outside, inside, second)
		out := l.begin(ip, proto, other, twoWays[ip.name])
		re := answer(proto, twoWays[ip.name], out.src.String())
		if proto == unix.IPPROTO_TCP {
			re = re.segment(syn|ack, 5000, 1002, "")
		}
		for _, dev := range []string{second, inside, second} {
			believed := false
			for range 10 { // of two next hops, eight questions to the FIB find one but for 1 in 256
				if believed = l.at(dev, re).counts["replied"] == 1; believed {
					break
				}
			}
			if !believed {
				l.Fatalf("an answer by %s was never believed", dev)
			}
			if _, f := l.flow(re); f.Ifindex != l.lab.devices[dev] {
				l.Errorf("the flow expects answers by device %d, want %s, %d", f.Ifindex, dev, l.lab.devices[dev])
			}
		}
		l.ingress(outside, re).untouched("wrong_device")
	})
	forEachProtocol(c, "where the FIB's device has no program, any is believed: it is stacked on another", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.attached(outside)
		out := l.begin(ip, proto, remote, ip.remote)
		re := answer(proto, ip.remote, out.src.String())
		if proto == unix.IPPROTO_TCP {
			re = re.segment(syn|ack, 5000, 1002, "")
		}
		l.at(second, re).wantVerdict(redirect, "replied")
	})
	forEachProtocol(c, "for the MAC address of the FIB's device is believed: the device is stacked on this one", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.attached(outside, inside)
		out := l.begin(ip, proto, other, neighbour[ip.name])
		re := answer(proto, neighbour[ip.name], out.src.String())
		if proto == unix.IPPROTO_TCP {
			re = re.segment(syn|ack, 5000, 1002, "")
		}
		l.meetNeighbour(ip)
		l.at(outside, re).untouched("wrong_device")
		// As a bridge and its ports, a bond and its links, a VLAN and its device have the same address.
		link, err := l.lab.link(inside)
		l.must(err)
		mac := link.Attrs().HardwareAddr
		l.lab.do(func() { l.must(l.lab.setMAC(inside, deviceMAC[:])) })
		defer l.lab.do(func() { l.must(l.lab.setMAC(inside, mac)) })
		l.meetNeighbour(ip)
		l.at(outside, re).wantVerdict(redirect, "replied")
	})
	forEachProtocol(c, "a flood of forged ones costs no more than some questions to the FIB", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.attached(outside, inside, second)
		out := l.begin(ip, proto, other, twoWays[ip.name])
		re := answer(proto, twoWays[ip.name], out.src.String())
		l.spend(shareDevices)
		_, f := l.flow(re)
		expected, another := inside, second
		if f.Ifindex == l.lab.devices[second] {
			expected, another = another, expected
		}
		forged := re
		if proto == unix.IPPROTO_TCP {
			forged = re.segment(syn|ack, 5000, 1002, "")
		}
		l.at(another, forged).untouched("wrong_device")
		l.at(expected, re).wantVerdict(redirect, "replied")
	})
	for _, ip := range ipVersions {
		c[ip.name+" TCP that acknowledges exactly the SYN is believed: its sender has seen it"] = func(l *lb) {
			l.severalNICs()
			l.attached(outside, inside)
			out := l.begin(ip, unix.IPPROTO_TCP, remote, ip.remote)
			re := answer(unix.IPPROTO_TCP, ip.remote, out.src.String())
			for _, wrong := range []packet{re.segment(syn|ack, 5000, 1000, ""), re.segment(syn|ack, 5000, 1002, ""), re.segment(syn, 5000, 1001, "")} {
				l.at(second, wrong).untouched("wrong_device")
			}
			l.at(second, re).wantVerdict(redirect, "replied")
			l.at(second, re.segment(ack, 5001, 1002, "")).wantVerdict(redirect, "replied")
		}
	}
	forEachProtocol(c, "forged by a neighbour of a local backend are not believed", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.serve(ip, proto, local)
		f := l.openFlow(ip, proto, true)
		re := answer(proto, ip.local, ip.client)
		for _, from := range []string{inside, second, elseHome} {
			l.egressForwarded(from, re).untouched("wrong_device")
		}
		if proto == unix.IPPROTO_TCP {
			l.egressForwarded(inside, re.segment(rst, 5001, 0, "")).untouched("wrong_device")
		}
		if got := l.endFlags(f.reply()); got != 0 {
			l.Errorf("a forged RST has marked the flow with %#x", got)
		}
		f.fromBackend(re)
		l.egressHost(outside, re).toStack(re.from(f.vip), "replied") // as an IPv6 fragment that the host makes looks
		l.egressForwarded(inside, re).untouched("wrong_device")
	})
	forEachProtocol(c, "the first answer of a local backend by an unknown device is believed", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.serve(ip, proto, local)
		f := l.openFlow(ip, proto, false)
		re := answer(proto, ip.local, ip.client)
		l.egressForwarded(inside, re).toStack(re.from(f.vip), "replied") // network plugins deliver past the FIB
		l.egressForwarded(inside, re).toStack(re.from(f.vip), "replied")
		l.egressForwarded(second, re.withPayload("no")).wantVerdict(tcxNext, map[uint8]string{unix.IPPROTO_TCP: "replied", unix.IPPROTO_UDP: "wrong_device"}[proto])
		f.fromClient(establishing(proto, ip.client, f.vip), "forwarded"+andEstablished(proto))
		l.egressForwarded(elseHome, re).untouched("wrong_device")
	})
	forEachProtocol(c, "a server on this host answers, no pod with its address", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.serve(ip, proto, other)
		server := port(ip.nodeOut, "8080")
		l.backend(other, server)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(server), "flow_new forwarded")
		re := answer(proto, server, ip.client)
		l.egressHost(outside, re).toStack(re.from(port(ip.vip, "80")), "replied")
		l.egressForwarded(pods, re).wantVerdict(tcxNext, map[uint8]string{unix.IPPROTO_TCP: "replied", unix.IPPROTO_UDP: "wrong_device"}[proto])
	})
	c.run(t)
}

// TestAnsweredElsewhere is about pods whose answers leave by another device than
// the one their clients' packets come in by, as `ip rule from POD lookup N` decides.
func TestAnsweredElsewhere(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "by a device without the program is counted", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.serve(ip, proto, local)
		l.backend(local, elsewhere[ip.name])
		l.local(local)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(elsewhere[ip.name]), "flow_new flow_answered_elsewhere forwarded")
		l.ingress(outside, in).toStack(in.to(elsewhere[ip.name]), "forwarded")
	})
	forEachProtocol(c, "by a device with the program is as good", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.attached(second)
		l.serve(ip, proto, local)
		l.backend(local, elsewhere[ip.name])
		l.local(local)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(elsewhere[ip.name]), "flow_new forwarded")
		re := answer(proto, elsewhere[ip.name], ip.client)
		l.send(hook{dev: second, egress: true, from: elseHome}, re).toStack(re.from(port(ip.vip, "80")), "replied")
	})
	forEachProtocol(c, "comes in by a device with the program: its source is translated", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.attached(elseHome)
		l.serve(ip, proto, local)
		l.backend(local, elsewhere[ip.name])
		l.local(local)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		node := map[string]string{"IPv4": "10.12.0.1", "IPv6": "fd00:12::1"}[ip.name]
		out := in.snat(node, 0).to(elsewhere[ip.name]).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, elsewhere[ip.name], out.src.String())
		l.at(elseHome, re).wantVerdict(redirect, "replied")
	})
	forEachProtocol(c, "is not where answers leave as the client's packets come in", func(l *lb, ip ipVersion, proto uint8) {
		l.severalNICs()
		l.serve(ip, proto, local)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
	})
	c.run(t)
}

// TestUnreachableClient is about sources to which the FIB says that no answer can be sent.
func TestUnreachableClient(t *testing.T) {
	c := cases{}
	for name, sources := range map[string][]string{
		"broadcast address of a subnet": {"192.0.2.255", "10.1.0.255", "10.2.0.255"},
		"address of this node":          {"192.0.2.1", "10.2.0.1", "2001:db8::1", "fd00:2::1"},
		"blackhole":                     {"10.4.1.1", "10.4.2.1", "10.4.3.1"},
		"no route":                      {"10.200.0.1", "fd00:200::1"},
	} {
		for _, source := range sources {
			for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
				c[name+" "+source+" "+protocolName(protocol)] = func(l *lb) {
					in := port(source, "4000")
					ip := ipVersions[0]
					if ap(in).Addr().Is6() {
						ip = ipVersions[1]
					}
					for _, id := range []uint32{local, remote} {
						l.serve(ip, protocol, id)
						p := opening(protocol, in, port(ip.vip, "80"))
						l.ingress(outside, p).dropped("drop_martian")
						l.wantTable(p, "none")
					}
				}
			}
		}
	}
	c.run(t)
}
