// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Addresses. Node n has 10.9.0.(10+n) and fd09::(10+n), and its pods are of
// 10.244.n.0/24 and fd00:10:244:n::/64.
const (
	client4 = "198.51.100.7"
	client6 = "2001:db8:51::7"
	router4 = "10.9.0.1"
	router6 = "fd09::1"
	vip4    = "203.0.113.10"
	vip6    = "2001:db8:100::10"
	vips4   = "203.0.113.0/24"
	vips6   = "2001:db8:100::/64"
	pods4   = "10.244.0.0/16"
	pods6   = "fd00:10:244::/48"
	// second4 and second6 are VIPs, too.
	second4 = "203.0.113.11"
	second6 = "2001:db8:100::11"

	tunnelDevice, tunnelMTU = "flannel.1", 1450
	// patience is how long anything may take on a busy machine that is immediate on an
	// idle one.
	patience = 10 * time.Second
)

// host is a node of the cluster.
type host struct {
	*lab.Node
	number int
	// pods are two, of which the first serves.
	pods [2]*lab.Node
	// plane is Blixt; nil: it does not run.
	plane *plane
}

func (h *host) podNet4() string { return fmt.Sprintf("10.244.%d.0/24", h.number) }
func (h *host) podNet6() string { return fmt.Sprintf("fd00:10:244:%d::/64", h.number) }

// world is a client, a router and three nodes on one switch:
//
//	client ── router ── switch ┬─ a ── pods
//	                           ├─ b ── pods
//	                           └─ d ── pods
//
// The router leads what is for the VIPs to node a. The switch drops what has a source
// that its sender does not have.
type world struct {
	*testing.T
	*lab.Lab
	name                  string
	tunnel                bool
	client, router, swtch *lab.Node
	a, b, d               *host
	hosts                 []*host
}

// topologies are the two kinds of networks, by whether there is a tunnel.
var topologies = map[string]bool{"routed": false, "tunnel": true}

// eachTopology runs a test in both, each in a network of its own.
func eachTopology(t *testing.T, test func(w *world)) {
	for _, name := range []string{"routed", "tunnel"} {
		t.Run(name, func(t *testing.T) { test(newWorld(t, name)) })
	}
}

// shared are the networks that tests share which leave them as they were.
var shared = map[string]*world{}

// eachSharedTopology runs a test in both, in networks that other tests use, too: to make
// one takes seconds.
func eachSharedTopology(t *testing.T, test func(w *world)) {
	for _, name := range []string{"routed", "tunnel"} {
		t.Run(name, func(t *testing.T) {
			if shared[name] == nil {
				w, err := makeWorld(t, name+"-shared", topologies[name])
				shared[name] = w
				w.Check(err)
			}
			w := shared[name].In(t)
			w.reset()
			test(w)
		})
	}
}

// reset undoes what tests in a shared network change.
func (w *world) reset() {
	w.Helper()
	w.leadVIPsTo(w.a)
	w.setSwitch(false)
	w.setFilter(1)
	w.setProxy("iptables")
	w.Offloads(true)
	w.Check(w.Err())
	for _, h := range w.hosts {
		w.Check(w.acquaint(h.plane))
	}
}

// closeShared removes the shared networks.
func closeShared() error {
	var errs []error
	for _, w := range shared {
		errs = append(errs, w.close())
	}
	return errors.Join(errs...)
}

// newWorld makes a network in which Blixt runs on all nodes: a and d serve, all announce
// and undo. Cleanup removes it.
func newWorld(t *testing.T, topology string) *world {
	t.Helper()
	w, err := makeWorld(t, topology, topologies[topology])
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	w.Check(err)
	return w
}

// close removes the network.
func (w *world) close() error {
	var errs []error
	for _, h := range w.hosts {
		if h.plane != nil {
			errs = append(errs, h.plane.stop())
		}
	}
	if w.Lab != nil {
		errs = append(errs, w.Lab.Close())
	}
	return errors.Join(errs...)
}

func makeWorld(t *testing.T, name string, tunnel bool) (*world, error) {
	t.Helper()
	w := &world{T: t, name: "blixt-e2e-client-" + name, tunnel: tunnel}
	l, err := lab.New(w.name)
	if err != nil {
		return w, err
	}
	w.Lab = l
	w.client, w.router, w.swtch = l.Node("client"), l.Node("router"), l.Node("switch")
	l.Link(w.client, "eth0", w.router, "eth0")
	w.client.Addr("eth0", client4+"/24", client6+"/64")
	w.client.Route("default via 198.51.100.1", "default via 2001:db8:51::1")
	w.router.Addr("eth0", "198.51.100.1/24", "2001:db8:51::1/64")
	w.swtch.Bridge("br0")
	l.Plug(w.router, "eth1", w.swtch, "br0")
	w.router.Addr("eth1", router4+"/24", router6+"/64")
	w.router.Forward()
	for _, n := range []struct {
		host   **host
		name   string
		number int
	}{{&w.a, "a", 1}, {&w.b, "b", 2}, {&w.d, "d", 4}} {
		*n.host = w.addHost(n.name, n.number)
		w.hosts = append(w.hosts, *n.host)
	}
	for _, h := range w.hosts {
		w.connectHosts(h)
		for i := range h.pods {
			w.addPod(h, i)
		}
	}
	w.leadVIPsTo(w.a)
	w.setSwitch(false)
	w.setFilter(1)
	w.setProxy("iptables")
	for _, h := range w.hosts {
		for _, p := range h.pods {
			if _, err := p.ServeBoth(p.Name, 8080); err != nil {
				return w, err
			}
		}
		if err := w.startPlane(h); err != nil {
			return w, err
		}
	}
	return w, nil
}

// In returns the world for a subtest.
func (w *world) In(t *testing.T) *world {
	sub := *w
	sub.T = t
	return &sub
}

// Check ends the test if there is an error.
func (w *world) Check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) addHost(name string, number int) *host {
	h := &host{Node: w.Node(name), number: number}
	w.Plug(h.Node, "eth0", w.swtch, "br0")
	h.Addr("eth0", fmt.Sprintf("10.9.0.%d/24", 10+number), fmt.Sprintf("fd09::%d/64", 10+number))
	h.Route("default via "+router4, "default via "+router6)
	h.Forward()
	return h
}

// vxlanMAC is the hardware address of a node in the tunnel.
func vxlanMAC(number int) string { return fmt.Sprintf("02:00:00:00:00:%02x", number) }

// connectHosts gives a node ways to the pods of the others.
func (w *world) connectHosts(h *host) {
	if w.tunnel {
		h.IP(fmt.Sprintf("link add %s address %s mtu %d type vxlan id 1 dev eth0 local %s dstport 8472 nolearning",
			tunnelDevice, vxlanMAC(h.number), tunnelMTU, h.IPv4),
			fmt.Sprintf("addr add 10.244.%d.0/32 dev %s", h.number, tunnelDevice),
			fmt.Sprintf("addr add fd00:10:244:%d::/128 dev %s nodad", h.number, tunnelDevice),
			"link set "+tunnelDevice+" up")
		h.Bridge("cni0")
		h.IP(fmt.Sprintf("link set cni0 mtu %d", tunnelMTU),
			fmt.Sprintf("addr add 10.244.%d.1/24 dev cni0", h.number),
			fmt.Sprintf("addr add fd00:10:244:%d::1/64 dev cni0 nodad", h.number))
	}
	for _, o := range []struct {
		number int
		ip4    string
		ip6    string
	}{{1, "10.9.0.11", "fd09::11"}, {2, "10.9.0.12", "fd09::12"}, {4, "10.9.0.14", "fd09::14"}} {
		net4, net6 := fmt.Sprintf("10.244.%d.0", o.number), fmt.Sprintf("fd00:10:244:%d::", o.number)
		if !w.tunnel && h.number == 1 {
			w.router.Route(net4+"/24 via "+o.ip4, net6+"/64 via "+o.ip6)
		}
		if o.number == h.number {
			continue
		}
		if !w.tunnel {
			h.Route(net4+"/24 via "+o.ip4, net6+"/64 via "+o.ip6)
			continue
		}
		on := " dev " + tunnelDevice
		h.IP("neigh add "+net4+" lladdr "+vxlanMAC(o.number)+on, "neigh add "+net6+" lladdr "+vxlanMAC(o.number)+on)
		h.Route(net4+"/24 via "+net4+on+" onlink", net6+"/64 via "+net6+on+" onlink")
		w.Check(w.Err())
		_, err := h.Run(patience, "bridge", "fdb", "append", vxlanMAC(o.number), "dev", tunnelDevice, "dst", o.ip4)
		w.Check(err)
	}
}

// addPod adds a pod: behind a bridge, or as plugins that route do, with an address of
// its own behind a device of its own, whose other end answers for all others.
func (w *world) addPod(h *host, i int) {
	p := w.Node(fmt.Sprintf("pod-%s%d", h.Name, i+1))
	h.pods[i] = p
	ip4, ip6 := fmt.Sprintf("10.244.%d.%d", h.number, 5+i), fmt.Sprintf("fd00:10:244:%d::%d", h.number, 5+i)
	dev := fmt.Sprintf("pod%d", i+1)
	w.Link(p, "eth0", h.Node, dev)
	if w.tunnel {
		p.IP(fmt.Sprintf("link set eth0 mtu %d", tunnelMTU))
		h.IP(fmt.Sprintf("link set %s mtu %d master cni0", dev, tunnelMTU))
		p.Addr("eth0", ip4+"/24", ip6+"/64")
		p.Route(fmt.Sprintf("default via 10.244.%d.1", h.number), fmt.Sprintf("default via fd00:10:244:%d::1", h.number))
		return
	}
	h.Sysctl("net.ipv4.conf."+dev+".proxy_arp=1", "net.ipv4.neigh."+dev+".proxy_delay=0")
	h.IP("addr add fe80::1/64 dev " + dev + " nodad")
	h.Route(ip4+"/32 dev "+dev, ip6+"/128 dev "+dev)
	p.Addr("eth0", ip4+"/32", ip6+"/128")
	p.Route("169.254.1.1 dev eth0 scope link", "default via 169.254.1.1 dev eth0", "default via fe80::1 dev eth0")
}

// leadVIPsTo has the router send what is for the VIPs to a node.
func (w *world) leadVIPsTo(h *host) {
	w.router.IP("route replace "+vips4+" via "+h.IPv4, "route replace "+vips6+" via "+h.IPv6)
}

// setFilter sets the reverse-path filter of all devices of nodes: 0 has none, 1 drops
// what comes in by another device than its source's route leads to, 2 what has no route.
// Of IPv6 there is no such setting, but firewalls do the same.
func (w *world) setFilter(mode int) {
	w.Helper()
	rule := map[int]string{
		0: "", 1: "fib saddr . iif oif missing counter name filtered drop", 2: "fib saddr oif missing counter name filtered drop",
	}[mode]
	for _, h := range w.hosts {
		w.Check(h.Do(func() error {
			files, err := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter")
			for _, f := range files {
				err = errors.Join(err, os.WriteFile(f, fmt.Append(nil, mode), 0))
			}
			return err
		}))
		w.nft(h.Node, "filter6", `table ip6 filter6
delete table ip6 filter6
table ip6 filter6 {
	counter filtered { }
	chain prerouting {
		type filter hook prerouting priority raw
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert } accept
		`+rule+`
	}
}
`)
	}
}

// nft gives a node rules, by a file of that name.
func (w *world) nft(n *lab.Node, name, rules string) {
	w.Helper()
	path := filepath.Join(w.Dir(), n.Name+"-"+name+".nft")
	w.Check(os.WriteFile(path, []byte(rules), 0o600))
	_, err := n.Run(patience, "nft", "-f", path)
	w.Check(err)
}

// at joins an address and a port.
func at(ip string, port int) string { return net.JoinHostPort(ip, fmt.Sprint(port)) }

// vip returns the address of a port of the VIP of a family.
func vip(family, port int) string {
	if family == 4 {
		return at(vip4, port)
	}
	return at(vip6, port)
}

// own returns a node's address of a family.
func own(n *lab.Node, family int) string {
	if family == 4 {
		return n.IPv4
	}
	return n.IPv6
}

// sourceOf returns the address that a node translates sources to, towards pods of others.
func (w *world) sourceOf(h *host, family int) string {
	switch {
	case !w.tunnel:
		return own(h.Node, family)
	case family == 4:
		return strings.TrimSuffix(h.podNet4(), "/24")
	default:
		return strings.TrimSuffix(h.podNet6(), "/64")
	}
}
