// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A lab is a network namespace for tests. It belongs to a thread that is never
// given to other goroutines; all code that needs the namespace runs there.
type lab struct {
	jobs    chan func()
	devices map[string]uint32
}

// Devices of the lab. Each is one end of a veth pair whose other end is up but
// has no addresses: packets are never sent, only passed to the program.
const (
	outside      = "outside"   // clients: 198.51.100.0/24 and 2001:db8:c::/48, behind a router
	inside       = "inside"    // backends on other nodes: 10.1.0.0/24, fd00:1::/64 and networks behind routers there
	pods         = "pods"      // backends on this node: 10.2.0.0/24, fd00:2::/64
	noForwarding = "noforward" // IP forwarding is off
	tunnel       = "tunnel"    // stands for a device without a link header
)

var deviceAddresses = map[string][]string{
	outside:      {"192.0.2.1/24", "2001:db8::1/64"},
	inside:       {"10.1.0.1/24", "fd00:1::1/64"},
	pods:         {"10.2.0.1/24", "fd00:2::1/64"},
	noForwarding: {"10.9.0.1/24", "fd00:9::1/64"},
	tunnel:       {"10.8.0.1/24", "fd00:8::1/64"},
}

// The host's own addresses: a writer knows them, too.
var hostAddresses = func() map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, addrs := range deviceAddresses {
		for _, a := range addrs {
			all[netip.MustParsePrefix(a).Addr()] = true
		}
	}
	return all
}()

var sharedLab = sync.OnceValues(func() (*lab, error) { return newLab((*lab).configure) })

func newLab(furnish func(*lab) error) (*lab, error) {
	l := &lab{jobs: make(chan func()), devices: map[string]uint32{"lo": 1}}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: nobody else may get this thread
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- fmt.Errorf("a network namespace needs root: %w", err)
			return
		}
		ready <- furnish(l)
		for job := range l.jobs {
			job()
		}
	}()
	return l, <-ready
}

// do runs job in the namespace.
func (l *lab) do(job func()) {
	done := make(chan struct{})
	l.jobs <- func() { job(); close(done) }
	<-done
}

func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644)
}

func (l *lab) device(name string, addrs ...string) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: deviceMAC[:]}, PeerName: name + "-peer",
		PeerHardwareAddr: peerMAC[:]}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add device %s: %w", name, err)
	}
	for _, n := range []string{name, name + "-peer"} {
		// No autoconfigured addresses: tests have to know all addresses.
		if err := sysctl("ipv6/conf/"+n+"/addr_gen_mode", "1"); err != nil {
			return err
		}
		link, err := netlink.LinkByName(n)
		if err != nil {
			return err
		}
		if n == name {
			l.devices[name] = uint32(link.Attrs().Index)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD // otherwise it is tentative at first
		if err := netlink.AddrAdd(veth, addr); err != nil {
			return fmt.Errorf("add %s to %s: %w", a, name, err)
		}
	}
	return nil
}

type routeSpec struct {
	dst, via, src string
	mtu, kind     int
}

func (l *lab) route(dev string, r routeSpec) error {
	_, dst, err := net.ParseCIDR(r.dst)
	if err != nil {
		return err
	}
	// Without the lock the kernel ignores a route's MTU when it forwards IPv4.
	route := &netlink.Route{Dst: dst, MTU: r.mtu, MTULock: r.mtu != 0, Type: r.kind, Src: net.ParseIP(r.src), LinkIndex: int(l.devices[dev])}
	via := net.ParseIP(r.via)
	switch {
	case r.via == "":
	case (via.To4() == nil) != (dst.IP.To4() == nil):
		route.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: via}
	default:
		route.Gw = via
	}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add route to %s: %w", r.dst, err)
	}
	return nil
}

func (l *lab) configure() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for name, addrs := range deviceAddresses {
		if err := l.device(name, addrs...); err != nil {
			return err
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		if err := sysctl(family+"/conf/all/forwarding", "1"); err != nil {
			return err
		}
		if err := sysctl(family+"/conf/"+noForwarding+"/forwarding", "0"); err != nil {
			return err
		}
	}
	for _, r := range []struct {
		dev string
		way routeSpec
	}{
		{outside, routeSpec{dst: "0.0.0.0/0", via: "192.0.2.254"}},
		{outside, routeSpec{dst: "::/0", via: "2001:db8::254"}},
		{outside, routeSpec{dst: "198.18.0.0/24", via: "192.0.2.254", mtu: 1000}},
		{outside, routeSpec{dst: "2001:db8:d::/48", via: "2001:db8::254", mtu: 1280}},
		{inside, routeSpec{dst: "10.3.0.0/24", via: "10.1.0.2", mtu: 1000}},
		{inside, routeSpec{dst: "fd00:3::/64", via: "fd00:1::2", mtu: 1280}},
		{inside, routeSpec{dst: "10.5.0.0/24", via: "10.1.0.2", src: "192.0.2.1"}},
		{inside, routeSpec{dst: "10.6.0.0/24", via: "fd00:1::2"}},
		{tunnel, routeSpec{dst: "8.0.0.0/16"}},
		{tunnel, routeSpec{dst: "2001:db8:86dd::/48"}},
		{"", routeSpec{dst: "10.4.1.0/24", kind: unix.RTN_BLACKHOLE}},
		{"", routeSpec{dst: "10.4.2.0/24", kind: unix.RTN_UNREACHABLE}},
		{"", routeSpec{dst: "10.4.3.0/24", kind: unix.RTN_PROHIBIT}},
		{"", routeSpec{dst: "fd00:4:1::/64", kind: unix.RTN_BLACKHOLE}},
		{"", routeSpec{dst: "fd00:4:2::/64", kind: unix.RTN_UNREACHABLE}},
		{"", routeSpec{dst: "fd00:4:3::/64", kind: unix.RTN_PROHIBIT}},
		{"", routeSpec{dst: "10.200.0.0/16", kind: unix.RTN_THROW}}, // no route, in spite of the default one
		{"", routeSpec{dst: "fd00:200::/32", kind: unix.RTN_THROW}},
	} {
		if err := l.route(r.dev, r.way); err != nil {
			return err
		}
	}
	// The neighbour table has only the router towards the clients.
	return netlink.NeighAdd(&netlink.Neigh{LinkIndex: int(l.devices[outside]), State: netlink.NUD_PERMANENT,
		IP: netip.MustParseAddr("192.0.2.254").AsSlice(), HardwareAddr: peerMAC[:]})
}
