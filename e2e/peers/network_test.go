// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// Addresses of the hosts, by IP version.
var (
	onA  = map[int]string{4: "10.9.0.11", 6: "fd09::11"}
	onB  = map[int]string{4: "10.9.0.12", 6: "fd09::12"}
	vips = map[int]string{4: "203.0.113.10", 6: "2001:db8:100::10"}
)

// networksOfB are those of its containers.
const networksOfB = "10.244.2.0/24,fd00:244:2::/64,10.244.3.0/24,fd00:244:3::/64"

// places are where servers of host B are, by the port that clients connect to.
var places = map[int]string{80: "on the host", 81: "behind a veth", 82: "behind a bridge"}

// pair is two hosts, of which the first one serves addresses that lead to servers of the
// second:
//
//	client ── router ── switch ┬─ a
//	                           └─ b ┬─ veth: a route for each container, as Calico has it
//	                                └─ bridge: as Docker has it
//
// Answers of b to the client go to the router, if nobody undoes what a did.
type pair struct {
	*testing.T
	*lab.Lab
	name                     string
	client, router, sw, a, b *lab.Node
	routed, bridged          *lab.Node
	A, B                     *lab.Blixt
	keysA, keysB             string // paths of key files
	served                   *lab.Config
	lastPort                 atomic.Uint32
}

// keys of the ids 0, 1 and 2.
const (
	key0 = "00112233445566778899aabbccddeeff"
	key1 = "40112233445566778899aabbccddeeff"
	key2 = "80112233445566778899aabbccddeeff"
)

// newPair makes the network and the servers. Cleanup removes it. Blixt runs on none yet.
func newPair(t *testing.T, name string) *pair {
	t.Helper()
	name = "blixt-e2e-peers-" + name
	l, err := lab.New(name)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{T: t, Lab: l, name: name}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	p.client, p.router, p.sw, p.a, p.b = l.Node("client"), l.Node("router"), l.Node("switch"), l.Node("a"), l.Node("b")
	l.Link(p.client, "eth0", p.router, "eth0")
	p.client.Addr("eth0", "198.51.100.7/24", "2001:db8:51::7/64")
	p.client.Route("default via 198.51.100.1", "default via 2001:db8:51::1")
	p.router.Addr("eth0", "198.51.100.1/24", "2001:db8:51::1/64")
	p.router.Forward()
	p.sw.Bridge("br0")
	l.Plug(p.router, "eth1", p.sw, "br0")
	p.router.Addr("eth1", "10.9.0.1/24", "fd09::1/64")
	for n, ips := range map[*lab.Node]map[int]string{p.a: onA, p.b: onB} {
		p.connect(n, ips)
	}
	p.router.Route(vips[4]+" via "+onA[4], vips[6]+" via "+onA[6])
	p.router.Route("10.244.2.0/23 via "+onB[4], "fd00:244:2::/47 via "+onB[6])

	p.routed, p.bridged = l.Node("routed"), l.Node("bridged")
	l.Link(p.routed, "eth0", p.b, "veth-routed")
	p.routed.Addr("eth0", "10.244.2.5/32", "fd00:244:2::5/128")
	p.b.IP("addr add 169.254.1.1/32 dev veth-routed scope link", "addr add fe80::1/64 dev veth-routed nodad")
	p.routed.Route("169.254.1.1 dev eth0 scope link", "default via 169.254.1.1", "default via fe80::1 dev eth0")
	p.b.Route("10.244.2.5 dev veth-routed", "fd00:244:2::5 dev veth-routed")
	p.b.Bridge("containers")
	p.b.Addr("containers", "10.244.3.1/24", "fd00:244:3::1/64")
	l.Plug(p.bridged, "eth0", p.b, "containers")
	p.bridged.Addr("eth0", "10.244.3.5/24", "fd00:244:3::5/64")
	p.bridged.Route("default via 10.244.3.1", "default via fd00:244:3::1")
	p.check(l.Err())
	services := map[int][]lab.Endpoint{}
	for port, n := range map[int]*lab.Node{80: p.b, 81: p.routed, 82: p.bridged} {
		_, err := n.ServeBoth(n.Name, 8080)
		p.check(err)
		services[port] = lab.Endpoints(8080, n)
	}
	p.served = labtest.ConfigOf(services)
	p.served.Gateways[0].Addresses = []string{vips[4], vips[6]}
	p.keysA, p.keysB = filepath.Join(l.Dir(), "keys-a"), filepath.Join(l.Dir(), "keys-b")
	p.writeKeys(p.keysA, key1)
	p.writeKeys(p.keysB, key1)
	p.A = p.prepare(p.a, p.served, "--peer", onB[4]+","+onB[6]+","+networksOfB, "--peer-key", p.keysA)
	p.B = p.prepare(p.b, nil, "--peer", onA[4]+","+onA[6], "--peer-key", p.keysB)
	p.B.Dir = "" // it has nothing to serve
	return p
}

// connect connects a host with these addresses to the switch, with routes to all there is.
func (p *pair) connect(n *lab.Node, ips map[int]string) {
	n.Forward()
	n.Sysctl("net.ipv4.conf.default.rp_filter=1", "net.ipv4.conf.all.rp_filter=1")
	p.Plug(n, "eth0", p.sw, "br0")
	n.Addr("eth0", ips[4]+"/24", ips[6]+"/64")
	n.Route("default via 10.9.0.1", "default via fd09::1")
	if n != p.b {
		n.Route("10.244.2.0/23 via "+onB[4], "fd00:244:2::/47 via "+onB[6])
	}
}

func (p *pair) check(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// prepare makes the load balancer of a host. Its pins and files have a name of their own,
// as both are of one machine here; what a killed run has left of them is removed.
func (p *pair) prepare(n *lab.Node, c *lab.Config, args ...string) *lab.Blixt {
	p.Helper()
	b, err := p.Lab.Blixt(n, labtest.Binary, c)
	p.check(err)
	b.Name += "-" + n.Name
	b.Args = append(b.Args, args...)
	clean := func() {
		p.check(os.RemoveAll(lab.Pins(b.Name)))
		files, err := filepath.Glob(filepath.Join(loader.DefaultRunDir, b.Name+".*"))
		p.check(err)
		for _, f := range files {
			p.check(os.RemoveAll(f))
		}
	}
	clean()
	p.Cleanup(func() {
		if p.Failed() {
			status, err := b.Run("status")
			p.Logf("blixt on %s said:\n%s\nand its status is, %v:\n%s", n.Name, b.Log(), err, status)
		}
		if err := b.Stop(); err != nil {
			p.Errorf("stop blixt on %s: %v", n.Name, err)
		}
		clean()
	})
	return b
}

// writeKeys replaces a file of keys.
func (p *pair) writeKeys(path string, keys ...string) {
	p.Helper()
	p.check(os.WriteFile(path+".new", []byte(strings.Join(keys, "\n")+"\n"), 0o600))
	p.check(os.Rename(path+".new", path))
}

// dial connects from the client, each time from another port.
func (p *pair) dial(network, remote string) (net.Conn, error) {
	return p.client.Dial(network, fmt.Sprint(":", 20000+p.lastPort.Add(1)%10000), remote, labtest.Patience)
}

// each calls f for each protocol, IP version and place of a server.
func (p *pair) each(f func(what, network string, family, port int)) {
	for _, network := range []string{"tcp", "udp"} {
		for _, family := range []int{4, 6} {
			for port := 80; port < 80+len(places); port++ {
				f(fmt.Sprintf("%s, IPv%d, a server %s", network, family, places[port]), network, family, port)
			}
		}
	}
}

// seen asks once, and returns whom the server takes for its client, and who it is.
func (p *pair) seen(network string, family, port int, body string) (client, is netip.AddrPort, err error) {
	conn, err := p.dial(network, labtest.At(vips[family], port))
	if err != nil {
		return client, is, err
	}
	defer conn.Close()
	answer, err := lab.Ask(conn, body, labtest.Patience)
	if err == nil && answer.Body != body {
		err = fmt.Errorf("%d bytes came back as %d others", len(body), len(answer.Body))
	}
	if err != nil {
		return client, is, err
	}
	client, err = netip.ParseAddrPort(answer.Client)
	return client, netip.MustParseAddrPort(conn.LocalAddr().String()), err
}

// rounds is how many connections each check makes of each kind.
const rounds = 60

// checkSeen fails the test unless all servers see each client, or else all see node A.
func (p *pair) checkSeen(when string, clients bool) {
	p.Helper()
	p.each(func(what, network string, family, port int) {
		right := 0
		var last string
		for i := 0; i < rounds && right+5 > i; i++ { // a fault takes seconds each time
			// Of even and odd lengths, as the surplus of a datagram has to be aligned.
			client, is, err := p.seen(network, family, port, fmt.Sprintf("%d %s", i, strings.Repeat("x", i*23)))
			switch {
			case err != nil:
				last = err.Error()
			case clients && client == is, !clients && client.Addr().String() == onA[family]:
				right++
			default:
				last = fmt.Sprintf("%s is taken for %s", is, client)
			}
		}
		if right != rounds {
			p.Errorf("%s: %s: right %d of %d times; such as: %s", when, what, right, rounds, last)
		}
	})
}

// probed is how long it may take until a peer is probed again, if nobody tells when it
// answers, or does not any more.
const probed = 90 * time.Second

// awaitSeen waits until all servers see their clients, or else node A, once each.
func (p *pair) awaitSeen(clients bool) {
	p.Helper()
	p.check(lab.Eventually(probed, func() (failed error) {
		p.each(func(what, network string, family, port int) {
			client, is, err := p.seen(network, family, port, "who")
			if err == nil && clients != (client == is) {
				err = fmt.Errorf("%s is taken for %s", is, client)
			}
			if err != nil && failed == nil {
				failed = fmt.Errorf("%s: %w", what, err)
			}
		})
		return failed
	}))
}
