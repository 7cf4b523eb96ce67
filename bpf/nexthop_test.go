// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The next hop of a flow may change under packets that never pause. Test runs do
// not tell where a packet goes. So here packets really come in and leave.

var labWhoseNextHopsChange = sync.OnceValues(func() (*lab, error) {
	return newLab(func(l *lab) error {
		if err := l.configure(); err != nil {
			return err
		}
		if err := l.device(second, "192.0.3.1/24", "2001:db8:3::1/64"); err != nil {
			return err
		}
		dev, err := netlink.LinkByName(inside)
		if err != nil {
			return err
		}
		// From such an address a host asks for its neighbours.
		own, err := netlink.ParseAddr("fe80::1/64")
		if err != nil {
			return err
		}
		own.Flags = unix.IFA_F_NODAD
		return netlink.AddrAdd(dev, own)
	})
})

var (
	movedMAC  = [6]byte{2, 0, 0, 0, 0, 8}
	viaSecond = map[string]string{"IPv4": "192.0.3.254", "IPv6": "2001:db8:3::254"}
	viaRouter = map[string]string{"IPv4": "192.0.2.254", "IPv6": "2001:db8::254"}
)

// knows has the node know the MAC address of a neighbour.
func (l *lb) knows(dev, addr string, mac [6]byte, state int) {
	l.Helper()
	l.inLab(func() error {
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: int(l.lab.devices[dev]), State: state,
			IP: netip.MustParseAddr(addr).AsSlice(), HardwareAddr: mac[:]})
	})
}

// forgets has the node not know it any more.
func (l *lb) forgets(dev, addr string) {
	l.Helper()
	l.inLab(func() error {
		return netlink.NeighDel(&netlink.Neigh{LinkIndex: int(l.lab.devices[dev]), IP: netip.MustParseAddr(addr).AsSlice()})
	})
}

// A wire is what leaves by several devices.
type wire map[string]*tap

func (l *lb) wire(devices ...string) wire {
	l.Helper()
	w := wire{}
	for _, dev := range devices {
		w[dev] = l.tap(dev)
	}
	return w
}

// next returns the next packet of the protocol that leaves by any of the devices.
func (w wire) next(protocol uint8) (dev string, frame []byte) {
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		for dev, t := range w {
			b := make([]byte, 4096)
			n, from, err := unix.Recvfrom(t.fd, b, unix.MSG_DONTWAIT)
			if err != nil || n < vnetLen+14+40 {
				continue
			}
			frame := b[vnetLen:n]
			ll, ok := from.(*unix.SockaddrLinklayer)
			ours := binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IP && frame[14+9] == protocol ||
				binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 && frame[14+6] == protocol
			if ok && ll.Pkttype != unix.PACKET_OUTGOING && ours {
				return dev, frame
			}
		}
	}
	return "", nil
}

// steady sends a packet again and again, and calls see with where and how it leaves, until see returns
// true, or, if the change that it waits for does not show, for more than a tick.
func (w wire) steady(l *lb, from *tap, p packet, see func(dev string, frame []byte) bool) {
	l.Helper()
	for began := l.tick(); ; {
		sent := l.tick()
		from.send(p)
		dev, frame := w.next(p.protocol)
		if dev == "" {
			l.Fatal("a packet is lost")
		}
		if see(dev, frame) {
			return
		}
		if sent > began {
			l.Fatalf("in the tick after the change packets leave by %s for %x", dev, frame[:6])
		}
	}
}

func TestNextHopsThatChange(t *testing.T) {
	live, err := labWhoseNextHopsChange()
	if err != nil {
		t.Fatal(err)
	}
	const many = 5
	// start opens a flow to the backend, of which many packets of both directions pass.
	start := func(t *testing.T, ip ipVersion, protocol uint8, backend string) (l *lb, w wire, in, re packet) {
		t.Helper()
		l = newLB(t)
		l.lab = live
		l.knows(outside, viaRouter[ip.name], farMAC, netlink.NUD_PERMANENT)
		l.knows(inside, viaInside[ip.name], farMAC, netlink.NUD_PERMANENT)
		l.knows(second, viaSecond[ip.name], farMAC, netlink.NUD_PERMANENT)
		l.routeBy(inside, farNetwork[ip.name], viaInside[ip.name])
		l.attach(outside, inside, second)
		w = l.wire(outside, inside, second)
		l.serve(ip, protocol, other)
		l.backend(other, backend)
		l.publish(0, other)
		vip := port(ip.vip, "80")
		open := opening(protocol, ip.client, vip)
		w[outside].send(open)
		w.next(protocol)
		_, f := l.flow(open)
		source := addrPort(netip.AddrFrom16(f.Src.Bytes).Unmap(), int(htons(f.Sport))).String()
		re = answer(protocol, backend, source)
		in = establishing(protocol, ip.client, vip)
		for range many {
			w[inside].send(re)
			dev, frame := w.next(protocol)
			w[outside].compareTo(dev, outside, frame, re.from(vip).to(ip.client).hop())
			w[outside].send(in)
			dev, frame = w.next(protocol)
			w[inside].compareTo(dev, inside, frame, in.from(source).to(backend).hop())
		}
		return l, w, in, re
	}
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			name := ip.name + " " + protocolName(protocol)
			t.Run(name+", the router has another MAC address", func(t *testing.T) {
				l, w, in, re := start(t, ip, protocol, farBackend[ip.name])
				l.knows(inside, viaInside[ip.name], movedMAC, netlink.NUD_PERMANENT)
				moved := func(want string) func(string, []byte) bool {
					return func(dev string, frame []byte) bool {
						if dev != want {
							l.Fatalf("a packet leaves by %s, want %s", dev, want)
						}
						return bytes.Equal(frame[:6], movedMAC[:])
					}
				}
				w.steady(l, w[outside], in, moved(inside))
				l.knows(outside, viaRouter[ip.name], movedMAC, netlink.NUD_PERMANENT)
				w.steady(l, w[inside], re, moved(outside))
			})
			t.Run(name+", the route leads to another device", func(t *testing.T) {
				l, w, in, _ := start(t, ip, protocol, farBackend[ip.name])
				l.routeBy(second, farNetwork[ip.name], viaSecond[ip.name])
				w.steady(l, w[outside], in, func(dev string, _ []byte) bool { return dev == second })
			})
			t.Run(name+", a rule for the frontend's address", func(t *testing.T) {
				l, w, _, re := start(t, ip, protocol, farBackend[ip.name])
				rule := netlink.NewRule()
				rule.Src, rule.Table, rule.Priority = prefixNet(netip.PrefixFrom(netip.MustParseAddr(ip.vip), netip.MustParseAddr(ip.vip).BitLen()).String()), 77, 77
				rule.Family = map[string]int{"IPv4": netlink.FAMILY_V4, "IPv6": netlink.FAMILY_V6}[ip.name]
				all := prefixNet(map[string]string{"IPv4": "0.0.0.0/0", "IPv6": "::/0"}[ip.name])
				l.inLab(func() error {
					if err := netlink.RouteReplace(&netlink.Route{Dst: all, Gw: net.ParseIP(viaSecond[ip.name]), Table: 77, LinkIndex: int(live.devices[second])}); err != nil {
						return err
					}
					return netlink.RuleAdd(rule)
				})
				t.Cleanup(func() { live.do(func() { _ = netlink.RuleDel(rule) }) })
				w.steady(l, w[inside], re, func(dev string, _ []byte) bool { return dev == second })
				// What has another frontend's address leaves as before, though it has the same destination.
				l.address(ip.shared, true)
				l.frontend(2, protocol, port(ip.shared, "80"), narrow)
				l.backend(narrow, farBackend[ip.name])
				l.publish(2, narrow)
				in := opening(protocol, addrPort(ap(ip.client).Addr(), 40001).String(), port(ip.shared, "80"))
				w[outside].send(in)
				w.next(protocol)
				_, f := l.flow(in)
				re2 := answer(protocol, farBackend[ip.name], addrPort(netip.AddrFrom16(f.Src.Bytes).Unmap(), int(htons(f.Sport))).String())
				for range many {
					for want, p := range map[string]packet{outside: re2, second: re} {
						w[inside].send(p)
						if dev, _ := w.next(protocol); dev != want {
							t.Errorf("an answer leaves by %q, want %s", dev, want)
						}
					}
				}
			})
		}
		// Whoever is known only from long ago is asked, though packets come without a pause for it.
		t.Run(ip.name+", a stale neighbour is asked", func(t *testing.T) {
			l, w, in, _ := start(t, ip, unix.IPPROTO_UDP, farBackend[ip.name])
			family := map[string]string{"IPv4": "ipv4", "IPv6": "ipv6"}[ip.name]
			l.inLab(func() error { return sysctl(family+"/neigh/"+inside+"/delay_first_probe_time", "0") })
			l.knows(inside, viaInside[ip.name], farMAC, netlink.NUD_STALE)
			for began := l.tick(); l.tick() < began+5; {
				w[outside].send(in)
				for {
					b := make([]byte, 4096)
					n, from, err := unix.Recvfrom(w[inside].fd, b, unix.MSG_DONTWAIT)
					if err != nil {
						break
					}
					frame := b[vnetLen:n]
					if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
						continue
					}
					asked := binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_ARP
					if family == "ipv6" {
						asked = binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 && frame[14+6] == unix.IPPROTO_ICMPV6 && frame[14+40] == 135
					}
					if asked && bytes.Equal(frame[:6], farMAC[:]) {
						return
					}
				}
			}
			t.Error("nobody asks whether the neighbour is still there")
		})
	}
}

// compareTo checks by which device and how a packet leaves.
func (t *tap) compareTo(dev, want string, frame []byte, p packet) {
	t.l.Helper()
	if dev != want {
		t.l.Fatalf("a packet leaves by %q, want %s", dev, want)
	}
	t.compare(frame, p)
}
