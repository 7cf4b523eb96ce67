// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// Ports of the VIP, one for each tenant, and where the attacker claims to be.
const (
	tenantA = 80
	tenantB = 81
	// strangers are routed to the client's node, which has none of these addresses: what
	// is sent there is heard by nobody.
	strangers4 = "100.64.0.0/10"
	strangers6 = "2001:db8:bad::/48"
)

// refs are the Services of each tenant's routes, with weights.
type refs map[int][]lab.Ref

// configOf makes a configuration with a Service for each set of endpoints, by its name.
func configOf(services map[string][]lab.Endpoint, r refs) *lab.Config {
	c := &lab.Config{}
	g := lab.Gateway{Name: "vip", Addresses: []string{lab.VIP4, lab.VIP6}}
	for name, endpoints := range services {
		c.Services = append(c.Services, lab.Service{Name: name, Endpoints: endpoints})
	}
	for port, to := range r {
		for _, protocol := range []string{"TCP", "UDP"} {
			l := lab.Listener{Protocol: protocol, Port: port}
			g.Listeners = append(g.Listeners, l)
			c.Routes = append(c.Routes, lab.Route{Name: fmt.Sprintf("tenant-%d", port), Gateway: g.Name, Listener: l, Refs: to})
		}
	}
	c.Gateways = append(c.Gateways, g)
	return c
}

// open returns the client's device, for frames to the balancer.
func open(w *labtest.World) *forge.Port {
	w.Helper()
	mac, err := forge.Hardware(w.Balancer, "eth0")
	w.Check(err)
	p, err := forge.Open(w.Client, "eth0", mac)
	w.Check(err)
	w.Cleanup(func() { p.Close() })
	return p
}

// routeStrangers leads what is sent to strangers to the client's node.
func routeStrangers(w *labtest.World) {
	w.Helper()
	w.Balancer.Route(strangers4+" via "+lab.Client4, strangers6+" via "+lab.Client6)
	w.Check(w.Err())
}

// vip returns the address of a port of the VIP.
func vip(family, port int) netip.AddrPort {
	return netip.AddrPortFrom(vips[family], uint16(port))
}

var vips = map[int]netip.Addr{4: netip.MustParseAddr(lab.VIP4), 6: netip.MustParseAddr(lab.VIP6)}

// useNftables has the balancer's host do what Blixt would: what rules translate, of all
// ports of the VIP, in both families.
func useNftables(w *labtest.World, to func(family, port int) string) {
	w.Helper()
	var rules strings.Builder
	rules.WriteString("flush ruleset\ntable inet oracle {\nchain pre { type nat hook prerouting priority dstnat;\n")
	for family, ip := range map[int]string{4: "ip", 6: "ip6"} {
		for _, port := range []int{tenantA, tenantB} {
			fmt.Fprintf(&rules, "%s daddr %s meta l4proto { tcp, udp } th dport %d dnat %s to %s\n", ip, vip(family, port).Addr(), port, ip, to(family, port))
		}
	}
	rules.WriteString("}\nchain post { type nat hook postrouting priority srcnat;\nct status dnat oifname eth1 masquerade\n}\n}\n")
	_, err := w.Balancer.Run(5*time.Second, "nft", rules.String())
	w.Check(err)
}

// own returns an address of a node.
func own(n *lab.Node, family int) string {
	if family == 4 {
		return n.IPv4
	}
	return n.IPv6
}
