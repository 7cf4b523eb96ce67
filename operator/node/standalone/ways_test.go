// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// wayTo adds a route, on-link.
func wayTo(t *testing.T, name, prefix string) {
	t.Helper()
	_, dst, err := net.ParseCIDR(prefix)
	must(t, err)
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: byName(t, name).Attrs().Index, Dst: dst}))
}

// attachedTo returns the network, and interfaces of these names.
func attachedTo(t *testing.T, names ...string) (s *hostnet.Snapshot, list []hostnet.Interface) {
	t.Helper()
	s, err := hostnet.Read()
	must(t, err)
	for _, name := range names {
		i, ok := s.ByName(name)
		if !ok {
			t.Fatal("no interface", name)
		}
		list = append(list, i)
	}
	return s, list
}

func TestAnswersByAnInterfaceWithoutTheProgramAreWarnedOf(t *testing.T) {
	for _, name := range []string{"eth0", "eth1", "port0"} {
		veth(t, name)
		up(t, "peer-"+name)
	}
	add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	must(t, netlink.LinkSetMaster(byName(t, "port0"), byName(t, "br0")))
	assign(t, "eth0", "192.0.2.1/24", "2001:db8:1::1/64")
	assign(t, "eth1", "198.51.100.1/24")
	wayTo(t, "br0", "10.1.0.0/16")
	must(t, netlink.RouteAdd(&netlink.Route{Type: unix.RTN_UNREACHABLE, Dst: &net.IPNet{IP: net.IPv4(10, 3, 0, 0).To4(), Mask: net.CIDRMask(16, 32)}}))
	s, attached := attachedTo(t, "eth0", "port0", "lo")

	var w ways
	check := func(what string, backends []netip.Addr, want ...string) {
		t.Helper()
		lines, err := w.look(backends, s, attached)
		must(t, err)
		if !slices.EqualFunc(lines, want, strings.HasPrefix) {
			t.Errorf("%s: %q, want %q", what, lines, want)
		}
	}
	check("none", nil)
	check("with the program, at a port, here", ips("192.0.2.9", "2001:db8:1::9", "10.1.0.9", "192.0.2.1"))
	check("without", ips("192.0.2.9", "198.51.100.9"), "answers of backends such as 198.51.100.9 come in by interface eth1,")
	check("no route", ips("10.3.0.9", "10.9.0.9", "2001:db8:9::9"),
		"backends such as 10.3.0.9 cannot be reached: no route to host;", "backends such as 10.9.0.9 cannot be reached: network is unreachable;")
	// What is said does not change with each backend that comes, only with the one named.
	check("one more", ips("10.3.0.1", "10.3.0.9"), "backends such as 10.3.0.9 cannot")
	check("another", ips("10.3.0.1", "10.3.0.5"), "backends such as 10.3.0.1 cannot")
	check("mended", ips("192.0.2.9"))
}

// TestWaysByVLANsAndVRFs has a kernel that is made up, as not each kernel has them.
func TestWaysByVLANsAndVRFs(t *testing.T) {
	const lan, red, vlan = 2, 3, 4
	s := &hostnet.Snapshot{Interfaces: []hostnet.Interface{
		{Index: lan, Name: "eth0", Master: red}, {Index: red, Name: "red", Kind: "vrf"}, {Index: vlan, Name: "eth0.7", Kind: "vlan", Parent: lan},
	}}
	find := func(to netip.Addr, vrf int) (hostnet.Way, error) {
		switch {
		case to == ips("192.0.2.7")[0]:
			return hostnet.Way{Index: vlan}, nil
		case vrf == red:
			return hostnet.Way{Index: lan}, nil
		}
		return hostnet.Way{}, unix.ENETUNREACH
	}
	if f, wrong := findFault(find, ips("192.0.2.7")[0], s, s.Interfaces[:1]); wrong {
		t.Errorf("the program sees what comes in by the interface below: %v", f)
	}
	f, wrong := findFault(find, ips("192.0.2.9")[0], s, s.Interfaces[:1])
	if !wrong || !strings.Contains(f.message(ips("192.0.2.9")[0]), "192.0.2.9 are reached in VRF red only") {
		t.Errorf("%v, %v", f, wrong)
	}
}

// TestManyBackendsAreLookedUpInTurns: their number does not decide what a look costs.
func TestManyBackendsAreLookedUpInTurns(t *testing.T) {
	var backends []netip.Addr
	for n := range 2*waysAtOnce + 5 {
		backends = append(backends, netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}))
	}
	s, attached := attachedTo(t, "lo")
	var w ways
	for _, want := range []int{waysAtOnce, 2 * waysAtOnce, len(backends), len(backends)} {
		_, err := w.look(backends, s, attached)
		must(t, err)
		if len(w.faults) != want {
			t.Errorf("%d backends have a fault, want %d", len(w.faults), want)
		}
	}
	if lines, err := w.look(nil, s, attached); err != nil || lines != nil {
		t.Errorf("without backends: %q, %v", lines, err)
	}
}

func TestWayIsLoggedAndTakenBack(t *testing.T) {
	for _, name := range []string{"eth0", "eth1"} {
		veth(t, name)
		up(t, "peer-"+name)
	}
	const backend = "10.0.0.1" // that of files
	i := prepare(t, files(80, far4))
	i.Interfaces = []string{"eth0"}
	i.start()
	i.serves(far4 + ":80")
	i.logs("level=WARN", fmt.Sprintf("backends such as %s cannot be reached", backend))
	wayTo(t, "eth1", "10.0.0.0/8")
	veth(t, "eth2") // an event
	i.logs("level=WARN", "answers of backends such as "+backend+" come in by interface eth1")
	wayTo(t, "eth0", "10.0.0.0/16")
	veth(t, "eth3")
	i.logs("level=INFO", "mended", "eth1")
}
