// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Link joins two nodes by a pair of veth devices.
func (l *Lab) Link(a *Node, aDev string, b *Node, bDev string) {
	if l.err == nil {
		l.err = ip("", fmt.Sprintf("link add name %s netns %s type veth peer name %s netns %s", aDev, a.space, bDev, b.space))
	}
	a.IP("link set " + aDev + " up")
	b.IP("link set " + bDev + " up")
	l.plugs = append(l.plugs, plug{a, aDev}, plug{b, bDev})
}

// plug is one end of a cable.
type plug struct {
	node *Node
	dev  string
}

// Bridge makes a bridge in a node: a switch, or what containers are on.
func (n *Node) Bridge(dev string) {
	// Snooping would hold back neighbour discovery until a querier is found.
	n.IP("link add "+dev+" type bridge mcast_snooping 0", "link set "+dev+" up")
}

// Plug joins a node's device to a bridge of another node.
func (l *Lab) Plug(n *Node, dev string, sw *Node, bridge string) {
	port := strings.TrimPrefix(n.Name, "backend-") + "-" + dev
	l.Link(n, dev, sw, port)
	sw.IP("link set " + port + " master " + bridge)
}

// Addr gives a device addresses, each with its prefix length.
func (n *Node) Addr(dev string, prefixes ...string) {
	for _, p := range prefixes {
		ip, _, _ := strings.Cut(p, "/")
		first, extra := &n.IPv4, ""
		if strings.Contains(ip, ":") {
			first, extra = &n.IPv6, " nodad"
		}
		*first = cmp.Or(*first, ip)
		n.IP("addr add " + p + " dev " + dev + extra)
	}
}

// Route adds routes in the syntax of ip(8): "192.0.2.0/24 via 10.0.0.1".
func (n *Node) Route(routes ...string) {
	for _, r := range routes {
		n.IP("route add " + r)
	}
}

// Forward makes the node a router.
func (n *Node) Forward() {
	n.Sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
}

// Offloads turns the offloads of all cables on or off. Without them the sending kernel
// computes every checksum, and the receiving one verifies it. Each device on the way
// has to have them off: one that has not would declare the checksum valid.
func (l *Lab) Offloads(on bool) {
	args := []string{"tso", "off", "gso", "off", "gro", "off", "tx", "off", "rx", "off"}
	if on {
		args = []string{"rx", "on", "tx", "on", "gro", "on", "gso", "on", "tso", "on"} // tso needs tx
	}
	for _, p := range l.plugs {
		if l.err == nil {
			_, l.err = p.node.Run(5*time.Second, "ethtool", append([]string{"-K", p.dev}, args...)...)
		}
	}
}

// BridgeNetfilter loads the module that lets firewalls see the packets of a bridge,
// which no use of it loads by itself, and reports whether the kernel has it now.
func BridgeNetfilter() bool {
	const made = "/proc/sys/net/bridge"
	if _, err := os.Stat(made); err == nil {
		return true
	}
	_ = exec.Command("modprobe", "br_netfilter").Run() // seen by what it makes
	_, err := os.Stat(made)
	return err == nil
}
