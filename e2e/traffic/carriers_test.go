// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// A carrier joins a node to the balancer by a device of its own kind.
type carrier struct {
	name string
	// add are commands of ip(8) that add the device, the same on both sides: DEV is its name, UNDER the
	// cable, LOCAL4, PEER4, LOCAL6 and PEER6 the addresses on that.
	add []string
	// families that it carries
	families []int
	// bare: the cable itself has no addresses.
	bare bool
}

var both = []int{4, 6}

var carriers = []carrier{
	{name: "bridge", add: []string{"link add DEV type bridge mcast_snooping 0", "link set UNDER master DEV"}, families: both, bare: true},
	{name: "macvlan", add: []string{"link add link UNDER name DEV type macvlan mode bridge"}, families: both, bare: true},
	{name: "vxlan", add: []string{"link add DEV type vxlan id 7 local LOCAL4 remote PEER4 dstport 4789 dev UNDER"}, families: both},
	{name: "vlan", add: []string{"link add link UNDER name DEV type vlan id 5"}, families: both, bare: true},
	{name: "bond", add: []string{"link add DEV type bond mode active-backup", "link set UNDER down", "link set UNDER master DEV"}, families: both, bare: true},
	{name: "gre", add: []string{"link add DEV type gre local LOCAL4 remote PEER4"}, families: both},
	{name: "gretap", add: []string{"link add DEV type gretap local LOCAL4 remote PEER4"}, families: both},
	{name: "ipip", add: []string{"link add DEV type ipip local LOCAL4 remote PEER4"}, families: []int{4}},
	{name: "sit", add: []string{"link add DEV type sit local LOCAL4 remote PEER4"}, families: []int{6}},
	{name: "ip6tnl", add: []string{"link add DEV type ip6tnl mode any local LOCAL6 remote PEER6"}, families: both},
}

// join adds a node behind a carrier. It returns nil if the kernel has no such device.
func (c carrier) join(w *labtest.World, n int) *lab.Node {
	w.Helper()
	peer := w.Node("by-" + c.name)
	under := "u-" + c.name
	w.Link(peer, under, w.Balancer, under)
	own := func(side int) []string {
		return []string{"DEV", c.name, "UNDER", under,
			"LOCAL4", fmt.Sprintf("10.%d.1.%d", 100+n, 1+side), "PEER4", fmt.Sprintf("10.%d.1.%d", 100+n, 2-side),
			"LOCAL6", fmt.Sprintf("fd%d:1::%d", 10+n, 1+side), "PEER6", fmt.Sprintf("fd%d:1::%d", 10+n, 2-side)}
	}
	for side, node := range []*lab.Node{w.Balancer, peer} {
		if c.bare { // it does not answer for the device that is stacked on it
			node.Sysctl("net.ipv4.conf." + under + ".arp_ignore=1")
		} else {
			node.IP(strings.NewReplacer(own(side)...).Replace("addr add LOCAL4/24 dev UNDER"),
				strings.NewReplacer(own(side)...).Replace("addr add LOCAL6/64 dev UNDER nodad"))
		}
		w.Check(w.Err())
		for i, command := range c.add {
			_, err := node.Run(labtest.Patience, "ip", strings.Fields(strings.NewReplacer(own(side)...).Replace(command))...)
			if err != nil && i == 0 && (strings.Contains(err.Error(), "not supported") || strings.Contains(err.Error(), "Unknown device type")) {
				return nil
			}
			w.Check(err)
		}
		node.IP("link set "+under+" up", "link set "+c.name+" up")
		for _, family := range c.families {
			if family == 4 {
				node.Addr(c.name, fmt.Sprintf("10.%d.0.%d/24", 100+n, 1+side))
			} else {
				node.Addr(c.name, fmt.Sprintf("fd%d::%d/64", 10+n, 1+side))
			}
		}
	}
	for _, family := range c.families {
		if family == 4 {
			peer.Route(fmt.Sprintf("default via 10.%d.0.1", 100+n))
		} else {
			peer.Route(fmt.Sprintf("default via fd%d::1", 10+n))
		}
	}
	w.Check(w.Err())
	for _, ip := range []string{peer.IPv4, peer.IPv6} {
		if ip != "" {
			_, err := peer.Serve(peer.Name, labtest.At(ip, 8080))
			w.Check(err)
		}
	}
	return peer
}

// denseQuestions are asked on one connection without a pause: most of them in one tick.
const denseQuestions = 100

// askDensely asks them, and one of several segments.
func askDensely(w *labtest.World, from *lab.Node, network, addr string) {
	w.Helper()
	c := w.Dial(from, network, addr)
	for i := range denseQuestions {
		w.Ask(c, fmt.Sprint("question ", i))
	}
	w.Ask(c, text(map[string]int{"tcp": 20_000, "udp": 1200}[network]))
}

// TestFlowsOfEveryCarrier has clients and backends behind every kind of device that this
// kernel has, as containers of this host and as machines elsewhere, and so many packets of a
// flow in a moment that what is kept of it serves most of them.
func TestFlowsOfEveryCarrier(t *testing.T) {
	w := labtest.New(t, "carriers", 1, 1)
	for _, family := range []string{"ip", "ip6"} { // with br_netfilter conntrack sees packets of bridges first
		if lab.BridgeNetfilter() {
			w.Balancer.Sysctl("net.bridge.bridge-nf-call-" + family + "tables=1")
		}
	}
	w.Check(w.Err())
	services := map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	}
	const elsewhere, here = 9000, 9100 // ports of backends behind a carrier
	peers := map[int]*lab.Node{}
	for i, c := range carriers {
		if peer := c.join(w, i); peer != nil {
			peers[i] = peer
			for _, ip := range []string{peer.IPv4, peer.IPv6} {
				if ip != "" {
					e := lab.Endpoint{Addr: labtest.At(ip, 8080)}
					services[elsewhere+i] = append(services[elsewhere+i], e)
					services[here+i] = append(services[here+i], lab.On("balancer", []lab.Endpoint{e})...)
				}
			}
		}
	}
	w.Offloads(false)
	w.Check(w.Err())
	w.StartBlixt(labtest.ConfigOf(services))
	for i, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			peer := peers[i]
			if peer == nil {
				t.Skipf("kernel lacks: devices of type %s", c.name)
			}
			w := w.In(t)
			asked := 0
			s := w.Count(func() {
				for _, family := range c.families {
					for _, network := range []string{"tcp", "udp"} {
						for _, way := range []struct {
							from *lab.Node
							port int
						}{
							{peer, toRemote}, {peer, toPods}, {peer, elsewhere + i}, {peer, here + i},
							{w.Client, elsewhere + i}, {w.Client, here + i}, {w.Balancer, elsewhere + i}, {w.Balancer, here + i}, {w.Pods[0], elsewhere + i},
						} {
							asked += denseQuestions
							askDensely(w, way.from, network, labtest.VIP(family, way.port))
						}
					}
				}
			})
			if to, back := s.Rise("forwarded"), s.Rise("replied"); to < uint64(asked) || back < uint64(asked) {
				t.Errorf("%d packets forwarded and %d replied, want %d at least", to, back, asked)
			}
			for name := range s.After.Counters {
				lost := strings.HasPrefix(name, "drop_") || strings.HasPrefix(name, "reject_")
				if n := s.Rise(name); n > 0 && (lost || name == "host_translated" || name == "wrong_device") {
					t.Errorf("%s rose by %d", name, n)
				}
			}
			if n, err := peer.ChecksumErrors(); n > 0 || err != nil {
				t.Errorf("%s has seen %d wrong checksums (%v)", peer.Name, n, err)
			}
		})
	}
	w.CheckChecksums()
}
