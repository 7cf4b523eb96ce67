// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// The MTUs on the way. The balancer finds those of its own devices, a router that of
// the link behind it. None is below 1280, which IPv6 demands.
const (
	clientMTU = 1500 // client to balancer
	insideMTU = 1450 // balancer to router, and to the local backend
	serverMTU = 1350 // router to remote backend
	returnMTU = 1300 // balancer to client: of the route, not of the device
)

// Ports of the VIP, and the port of the backends.
const (
	toRemote   = 80
	toLocal    = 81
	unserved   = 82
	hostPort   = 83 // of the balancer's own address, of which Blixt serves other ports
	serverPort = 8080
	fencePort  = 9
)

// Names of addresses, as descriptions of packets have them.
var names = map[netip.Addr]string{}

func named(name, v4, v6 string) map[int]netip.Addr {
	both := map[int]netip.Addr{4: netip.MustParseAddr(v4), 6: netip.MustParseAddr(v6)}
	for _, a := range both {
		names[a] = name
	}
	return both
}

var (
	client    = named("client", "10.66.0.2", "fd66::2")
	stranger  = named("stranger", "10.66.0.3", "fd66::3") // beside the client
	outside   = named("outside", "10.66.0.1", "fd66::1")  // the balancer's, towards the client
	inside    = named("inside", "10.77.0.1", "fd77::1")   // the balancer's, towards the router
	router    = named("router", "10.77.0.2", "fd77::2")
	router2   = named("router", "10.78.0.1", "fd78::1")
	remote    = named("server", "10.78.0.2", "fd78::2")
	gateway   = named("gateway", "10.88.0.1", "fd88::1") // the balancer's, towards the local backend
	local     = named("server", "10.88.0.2", "fd88::2")
	vip       = named("vip", lab.VIP4, lab.VIP6)
	endpoints = []string{"client", "remote", "local"}
)

// network is one of the two that packets are sent through:
//
//	client ── eth0 balancer eth1 ── eth0 router eth1 ── remote
//	               pod0 │
//	                  local
//
// Client and backends are nothing but cables: no kernel answers there, the test alone
// sends and looks at what arrives.
type network struct {
	name     string
	balancer *lab.Node
	ports    map[string]*forge.Port // by names of endpoints
	fences   uint32
	blixt    *lab.Blixt
}

// mac returns the address of a device that is the only one with this number in its network.
func mac(n byte) [6]byte { return [6]byte{2, 0, 0, 0, 0, n} }

func newNetwork(t *testing.T, l *lab.Lab, name string) *network {
	t.Helper()
	node := func(role string) *lab.Node { return l.Node(name + "-" + role) }
	ends := map[string]*lab.Node{"client": node("client"), "remote": node("remote"), "local": node("local")}
	b, r := node("balancer"), node("router")
	for _, n := range ends {
		n.Sysctl("net.ipv6.conf.default.disable_ipv6=1")
	}
	for _, n := range []*lab.Node{b, r} {
		n.Forward()
		// Every packet is answered: a limit of answers would make the comparison depend on time.
		n.Sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_msgs_per_sec=1000000", "net.ipv4.icmp_msgs_burst=100000",
			"net.ipv6.icmp.ratelimit=0", "net.ipv4.tcp_invalid_ratelimit=0",
			"net.ipv4.conf.all.accept_redirects=0", "net.ipv6.conf.all.accept_redirects=0",
			"net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.default.send_redirects=0")
	}
	w := &network{name: name, balancer: b, ports: map[string]*forge.Port{}}
	// cable leads from eth0 of a node to another one; each end has a number as its address.
	cable := func(n *lab.Node, number byte, peer *lab.Node, peerDev string, peerNumber byte, mtu int) {
		l.Link(n, "eth0", peer, peerDev)
		n.IP(fmt.Sprintf("link set eth0 address %s mtu %d", macText(number), mtu))
		peer.IP(fmt.Sprintf("link set %s address %s mtu %d", peerDev, macText(peerNumber), mtu))
	}
	cable(ends["client"], 1, b, "eth0", 2, clientMTU)
	cable(r, 4, b, "eth1", 3, insideMTU)
	cable(ends["remote"], 6, r, "eth1", 5, serverMTU)
	cable(ends["local"], 8, b, "pod0", 7, insideMTU)
	address := func(n *lab.Node, dev string, a map[int]netip.Addr) {
		n.Addr(dev, a[4].String()+"/24", a[6].String()+"/64")
	}
	neighbour := func(n *lab.Node, dev string, a map[int]netip.Addr, number byte) {
		for _, ip := range a {
			n.IP(fmt.Sprintf("neigh add %s lladdr %s dev %s nud permanent", ip, macText(number), dev))
		}
	}
	address(b, "eth0", outside)
	address(b, "eth1", inside)
	address(b, "pod0", gateway)
	address(r, "eth0", router)
	address(r, "eth1", router2)
	neighbour(b, "eth0", client, 1)
	neighbour(b, "eth0", stranger, 1)
	neighbour(b, "eth1", router, 4)
	neighbour(b, "pod0", local, 8)
	neighbour(r, "eth0", inside, 3)
	neighbour(r, "eth1", remote, 6)
	for _, family := range []int{4, 6} {
		bits := client[family].BitLen()
		for _, a := range []map[int]netip.Addr{client, stranger} {
			b.Route(fmt.Sprintf("%s/%d dev eth0 mtu lock %d", a[family], bits, returnMTU))
		}
		b.Route(fmt.Sprintf("%s/%d via %s", remote[family], bits, router[family]))
		r.Route(fmt.Sprintf("default via %s", inside[family]))
	}
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	for i, name := range endpoints {
		p, err := forge.Open(ends[name], "eth0", mac([]byte{2, 5, 7}[i]))
		if err != nil {
			t.Fatal(err)
		}
		w.ports[name] = p
		t.Cleanup(func() { p.Close() })
	}
	return w
}

func macText(number byte) string {
	m := mac(number)
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// settle waits until all that was sent before has been handled, and returns what has
// arrived at each endpoint. The kernel handles packets of one processor, to which the
// test is bound, in their order: a datagram from the client to the remote backend and
// one back are behind all others everywhere.
func (w *network) settle() (map[string][][]byte, error) {
	arrived := map[string][][]byte{}
	fence := func(from, to string, src, dst netip.Addr) error {
		w.fences++
		word := fmt.Sprintf("fence %d", w.fences)
		d := forge.Datagram(netip.AddrPortFrom(src, fencePort), netip.AddrPortFrom(dst, fencePort), []byte(word))
		if err := w.ports[from].Send(forge.Frame{IP: d.Bytes()}); err != nil {
			return err
		}
		deadline := time.Now().Add(labtest.Patience)
		for {
			packets, err := w.ports[to].Receive()
			if err != nil {
				return err
			}
			for _, p := range packets {
				if strings.HasSuffix(string(p), word) {
					return nil
				}
				arrived[to] = append(arrived[to], p)
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %q has not arrived at %s", w.name, word, to)
			}
			w.ports[to].Await(100 * time.Millisecond)
		}
	}
	if err := fence("client", "remote", client[4], remote[4]); err != nil {
		return nil, err
	}
	if err := fence("remote", "client", remote[4], client[4]); err != nil {
		return nil, err
	}
	for name, p := range w.ports {
		packets, err := p.Receive()
		if err != nil {
			return nil, err
		}
		arrived[name] = append(arrived[name], packets...)
	}
	return arrived, nil
}

// useBlixt has Blixt serve the VIP.
func (w *network) useBlixt(t *testing.T, l *lab.Lab) {
	t.Helper()
	both := func(a map[int]netip.Addr) (e []lab.Endpoint) {
		for _, family := range []int{4, 6} {
			e = append(e, lab.Endpoint{Addr: netip.AddrPortFrom(a[family], serverPort).String()})
		}
		return e
	}
	c := labtest.ConfigOf(map[int][]lab.Endpoint{toRemote: both(remote), toLocal: lab.On(w.balancer.Name, both(local))})
	// The host's own address has these ports as well.
	c.Gateways[0].Addresses = append(c.Gateways[0].Addresses, outside[4].String(), outside[6].String())
	b, err := l.Blixt(w.balancer, labtest.Binary, c, "eth0", "eth1")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	w.blixt = b
}

// useNftables has the host itself serve the VIP: it has the address, and translates
// what is served.
func (w *network) useNftables(t *testing.T) {
	t.Helper()
	for _, a := range vip {
		w.balancer.Addr("lo", fmt.Sprintf("%s/%d", a, a.BitLen()))
	}
	if _, err := w.balancer.Run(5*time.Second, "nft", nftables(func(family int, port uint16) netip.Addr { return servers[port][family] })); err != nil {
		t.Fatal(err)
	}
}

var servers = map[uint16]map[int]netip.Addr{toRemote: remote, toLocal: local}

// nftables returns the rules that do what Blixt does.
func nftables(server func(family int, port uint16) netip.Addr) string {
	var rules strings.Builder
	rules.WriteString("table inet oracle {\nchain pre { type nat hook prerouting priority dstnat;\n")
	for family, ip := range map[int]string{4: "ip", 6: "ip6"} {
		for _, port := range served {
			to := netip.AddrPortFrom(server(family, port), serverPort)
			fmt.Fprintf(&rules, "%s daddr %s meta l4proto { tcp, udp } th dport %d dnat %s to %s\n", ip, vip[family], port, ip, to)
		}
	}
	rules.WriteString("}\nchain post { type nat hook postrouting priority srcnat;\nct status dnat oifname eth1 masquerade\n}\n}\n")
	return rules.String()
}
