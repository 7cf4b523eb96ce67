// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// readNetwork returns the network as it is now.
func readNetwork(wanted []string) (*network, error) {
	o := newObserver(wanted, 0)
	defer o.watcher.Close()
	return o.look()
}

// names returns the names of the interfaces.
func (n *network) names() (names []string) {
	for _, i := range n.interfaces {
		names = append(names, i.Name)
	}
	slices.Sort(names)
	return names
}

func TestInterfacesAreThoseThatCarryPacketsOfTheirOwn(t *testing.T) {
	veth(t, "eth0")
	up(t, "peer-eth0")
	veth(t, "port0")
	add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	must(t, netlink.LinkSetMaster(byName(t, "port0"), byName(t, "br0")))
	veth(t, "off0")
	must(t, netlink.LinkSetDown(byName(t, "off0")))

	// The port's peer is a container, off0 and its peer are down.
	if got, want := mustReadNetwork(t).names(), []string{"br0", "eth0", "lo", "peer-eth0"}; !slices.Equal(got, want) {
		t.Errorf("interfaces are %v, want %v", got, want)
	}
	n, err := readNetwork([]string{"port0", "eth0"})
	must(t, err)
	if want := []string{"eth0", "port0"}; !slices.Equal(n.names(), want) {
		t.Errorf("interfaces are %v instead of those asked for, %v", n.names(), want)
	}
}

func TestPrimaryAddressesAreThoseOfDefaultRoutes(t *testing.T) {
	veth(t, "eth0")
	veth(t, "eth1")
	assign(t, "eth0", "192.0.2.1/24", "2001:db8:1::1/64")
	assign(t, "eth1", "198.51.100.1/24")
	if n := mustReadNetwork(t); len(n.DefaultAddresses()) != 0 {
		t.Errorf("without a default route, primary addresses are %v", n.DefaultAddresses())
	}
	route := func(name, gateway string) {
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: byName(t, name).Attrs().Index, Gw: net.ParseIP(gateway)}))
	}
	route("eth0", "192.0.2.254")
	n := mustReadNetwork(t)
	if want := ips("192.0.2.1", "2001:db8:1::1"); !slices.Equal(n.DefaultAddresses(), want) {
		t.Errorf("primary addresses are %v, want %v", n.DefaultAddresses(), want)
	}
	if want := ips("192.0.2.1", "198.51.100.1", "2001:db8:1::1"); !slices.Equal(n.HostAddresses(), want) {
		t.Errorf("addresses are %v, want %v", n.HostAddresses(), want)
	}
	must(t, netlink.RouteReplace(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, MultiPath: []*netlink.NexthopInfo{
		{LinkIndex: byName(t, "eth0").Attrs().Index, Gw: net.ParseIP("192.0.2.254")},
		{LinkIndex: byName(t, "eth1").Attrs().Index, Gw: net.ParseIP("198.51.100.254")},
	}}))
	if n, want := mustReadNetwork(t), ips("192.0.2.1", "198.51.100.1", "2001:db8:1::1"); !slices.Equal(n.DefaultAddresses(), want) {
		t.Errorf("with a route by both, primary addresses are %v, want %v", n.DefaultAddresses(), want)
	}
}

func TestSNATPortsThatTheHostUsesAreRefused(t *testing.T) {
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	before, err := os.ReadFile(file)
	must(t, err)
	t.Cleanup(func() { must(t, os.WriteFile(file, before, 0)) })
	must(t, os.WriteFile(file, []byte("20000 30000"), 0))
	for _, c := range []struct {
		min, max uint16
		ok       bool
	}{
		{10000, 19999, true}, {30001, 40000, true}, {10000, 20000, false}, {30000, 40000, false},
		{21000, 22000, false}, {1, 65535, false},
	} {
		err := CheckHostPorts(lb.PortRange{First: c.min, Last: c.max})
		if (err == nil) != c.ok {
			t.Errorf("%d-%d: %v", c.min, c.max, err)
		}
		if err != nil && !(strings.Contains(err.Error(), "20000-30000") && strings.Contains(err.Error(), "--snat-ports")) {
			t.Errorf("%v: says neither what is in the way nor what to do", err)
		}
	}
}
