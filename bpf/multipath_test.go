// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// labWithPaths has two equal paths to the networks of far backends: by the devices
// inside and pods.
var labWithPaths = sync.OnceValues(func() (*lab, error) {
	return newLab(func(l *lab) error {
		if err := l.configure(); err != nil {
			return err
		}
		for dst, vias := range map[string][2]string{"10.7.0.0/24": {"10.1.0.77", "10.2.0.77"}, "fd00:7::/64": {"fd00:1::77", "fd00:2::77"}} {
			_, network, err := net.ParseCIDR(dst)
			if err != nil {
				return err
			}
			r := &netlink.Route{Dst: network}
			for i, dev := range []string{inside, pods} {
				r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{LinkIndex: int(l.devices[dev]), Gw: net.ParseIP(vias[i])})
			}
			if err := netlink.RouteAdd(r); err != nil {
				return fmt.Errorf("add paths to %s: %w", dst, err)
			}
			// Packets of one type of service have a way of their own.
			family := netlink.FAMILY_V4
			if network.IP.To4() == nil {
				family = netlink.FAMILY_V6
			}
			rule := netlink.NewRule()
			rule.Family, rule.Tos, rule.Table, rule.Priority = family, 0x10, 100, 100
			if err := netlink.RuleAdd(rule); err != nil {
				return fmt.Errorf("add rule: %w", err)
			}
			only := &netlink.Route{Dst: network, Table: 100, LinkIndex: int(l.devices[tunnel]), Scope: netlink.SCOPE_LINK}
			if err := netlink.RouteAdd(only); err != nil {
				return fmt.Errorf("add route for a type of service: %w", err)
			}
		}
		for _, far := range []string{"10.7.0.10", "fd00:7::10"} {
			if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: int(l.devices[tunnel]), State: netlink.NUD_PERMANENT,
				IP: net.ParseIP(far), HardwareAddr: farMAC[:]}); err != nil {
				return err
			}
		}
		return nil
	})
})

// pathOf returns the device by which a packet leaves that comes in by outside.
func (l *lb) pathOf(taps map[string]*tap, client *tap, in packet) string {
	l.Helper()
	client.send(in)
	return l.leavesBy(taps)
}

// leavesBy returns the device by which the next packet leaves.
func (l *lb) leavesBy(taps map[string]*tap) string {
	l.Helper()
	for range 20 {
		for dev, t := range taps {
			b := make([]byte, 4096)
			n, from, err := unix.Recvfrom(t.fd, b, unix.MSG_DONTWAIT)
			if err != nil {
				continue
			}
			ll, ok := from.(*unix.SockaddrLinklayer)
			frame := b[vnetLen:n]
			udp := frame[12] == 0x08 && frame[14+9] == unix.IPPROTO_UDP || frame[12] == 0x86 && (frame[20] == unix.IPPROTO_UDP || frame[20] == 44)
			if ok && ll.Pkttype != unix.PACKET_OUTGOING && udp && len(frame) > 14+28 {
				return dev
			}
		}
		_, _ = unix.Poll(nil, 5)
	}
	l.Fatal("no packet leaves")
	return ""
}

func TestEqualPaths(t *testing.T) {
	live, err := labWithPaths()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		far := map[string]string{"IPv4": "10.7.0.10:80", "IPv6": "[fd00:7::10]:80"}[ip.name]
		for policy, spread := range map[string]bool{"0": false, "1": true, "3": true} {
			t.Run(ip.name+", hash policy "+policy, func(t *testing.T) {
				l := newLB(t)
				l.lab = live
				live.do(func() {
					for dev, gateway := range map[string]string{inside: map[string]string{"IPv4": "10.1.0.77", "IPv6": "fd00:1::77"}[ip.name],
						pods: map[string]string{"IPv4": "10.2.0.77", "IPv6": "fd00:2::77"}[ip.name]} {
						l.must(netlink.NeighSet(&netlink.Neigh{LinkIndex: int(live.devices[dev]), State: netlink.NUD_PERMANENT,
							IP: net.ParseIP(gateway), HardwareAddr: farMAC[:]}))
					}
					for _, family := range []string{"ipv4", "ipv6"} {
						l.must(sysctl(family+"/fib_multipath_hash_policy", policy))
						l.must(sysctl(family+"/fib_multipath_hash_fields", "0x37")) // of policy 3: addresses, protocol, ports
					}
				})
				l.attach(outside)
				client, taps := l.tap(outside), map[string]*tap{inside: l.tap(inside), pods: l.tap(pods)}
				l.serve(ip, unix.IPPROTO_UDP, other)
				l.backend(other, far)
				seen := map[string]int{}
				for i := range 30 {
					in := udp(addrPort(ap(ip.client).Addr(), 40000+i).String(), port(ip.vip, "80"))
					path := l.pathOf(taps, client, in)
					seen[path]++
					for range 3 { // whatever its packets are like, a flow keeps its path
						if again := l.pathOf(taps, client, in.withSize(500)); again != path {
							t.Errorf("flow %d leaves by %s and %s", i, path, again)
						}
					}
					whole := in.withSize(1000)
					whole.df, whole.id = false, uint32(i)
					for _, f := range []packet{whole.fragment(0, 512), whole.fragment(512, 0)} {
						if again := l.pathOf(taps, client, f); again != path {
							t.Errorf("a fragment of flow %d leaves by %s, others by %s", i, again, path)
						}
					}
				}
				if (len(seen) == 2) != spread || spread && min(seen[inside], seen[pods]) < 5 {
					t.Errorf("30 flows leave by %v, want both: %t", seen, spread)
				}
			})
		}
		t.Run(ip.name+", type of service", func(t *testing.T) {
			l := newLB(t)
			l.lab = live
			l.attach(outside)
			client, taps := l.tap(outside), map[string]*tap{inside: l.tap(inside), pods: l.tap(pods), tunnel: l.tap(tunnel)}
			l.serve(ip, unix.IPPROTO_UDP, other)
			l.backend(other, far)
			in := udp(ip.client, port(ip.vip, "80"))
			for range 4 { // the packets of one flow
				in.tos = 0x10
				if path := l.pathOf(taps, client, in); path != tunnel {
					t.Errorf("a packet that a rule sends by %s leaves by %s", tunnel, path)
				}
				in.tos = 0
				if path := l.pathOf(taps, client, in); path == tunnel {
					t.Errorf("a packet without type of service leaves by %s", path)
				}
			}
		})
	}
}
