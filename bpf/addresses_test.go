// SPDX-License-Identifier: Apache-2.0

package bpf

import "golang.org/x/sys/unix"

// An ipVersion has the addresses that tests use with this IP version.
type ipVersion struct {
	name               string
	client, host       string // a client's socket, and one of this host
	vip                string // exclusive
	shared             string // shared with the host
	local, remote      string // backends
	nodeIn, nodeOut    string // this node's addresses on the devices towards remote backends and towards clients
	nodePods           string // and on the device towards local backends
	narrow, narrowPeer string // a backend and a client behind a path with a small MTU
}

var ipVersions = []ipVersion{
	{
		name: "IPv4", client: "198.51.100.7:40000", host: "192.0.2.1:41000", vip: "203.0.113.1", shared: "203.0.113.2",
		local: "10.2.0.10:8080", remote: "10.1.0.10:8080", nodeIn: "10.1.0.1", nodeOut: "192.0.2.1", nodePods: "10.2.0.1",
		narrow: "10.3.0.10:8080", narrowPeer: "198.18.0.7:40000",
	},
	{
		name: "IPv6", client: "[2001:db8:c::7]:40000", host: "[2001:db8::1]:41000", vip: "2001:db8:f::1", shared: "2001:db8:f::2",
		local: "[fd00:2::10]:8080", remote: "[fd00:1::10]:8080", nodeIn: "fd00:1::1", nodeOut: "2001:db8::1", nodePods: "fd00:2::1",
		narrow: "[fd00:3::10]:8080", narrowPeer: "[2001:db8:d::7]:40000",
	},
}

// port joins an address and a port.
func port(addr, port string) string {
	for _, c := range addr {
		if c == ':' {
			return "[" + addr + "]:" + port
		}
	}
	return addr + ":" + port
}

// Backend ids.
const (
	local  = 1
	remote = 2
	narrow = 3
	other  = 4
)

// serve writes frontend 0, port 80 of the VIP, with a ring of the backends ids.
func (l *lb) serve(ip ipVersion, protocol uint8, ids ...uint32) {
	l.Helper()
	l.address(ip.vip, true)
	l.address(ip.shared, false)
	l.backend(local, ip.local)
	l.backend(remote, ip.remote)
	l.backend(narrow, ip.narrow)
	l.frontend(0, protocol, port(ip.vip, "80"), ids...)
}

func protocolName(p uint8) string {
	if p == unix.IPPROTO_TCP {
		return "TCP"
	}
	return "UDP"
}

// forEachProtocol adds a case for each IP version with each of TCP and UDP.
func forEachProtocol(c cases, name string, run func(l *lb, ip ipVersion, protocol uint8)) {
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c[ip.name+" "+protocolName(protocol)+" "+name] = func(l *lb) { run(l, ip, protocol) }
		}
	}
}

// opening is the first packet of a flow.
func opening(protocol uint8, from, to string) packet {
	p := proto(protocol, from, to)
	if protocol == unix.IPPROTO_TCP {
		p = p.segment(syn, 1000, 0, "")
		p.tcpOption = []byte{2, 4, 5, 180}
	}
	return p
}

// answer is the backend's first packet of a flow.
func answer(protocol uint8, from, to string) packet {
	p := proto(protocol, from, to).withPayload("four o'clock")
	if protocol == unix.IPPROTO_TCP {
		p = p.segment(syn|ack, 5000, 1001, "")
		p.tcpOption = []byte{2, 4, 5, 180}
	}
	return p
}

// continuing is a later packet of the backend.
func continuing(protocol uint8, from, to string) packet {
	p := proto(protocol, from, to)
	if protocol == unix.IPPROTO_TCP {
		p = p.segment(ack|psh, 5001, 1001, "four o'clock")
	}
	return p
}

// establishing is the client's packet that establishes an answered flow.
func establishing(protocol uint8, from, to string) packet {
	p := proto(protocol, from, to)
	if protocol == unix.IPPROTO_TCP {
		p = p.segment(ack, 1001, 5001, "")
	}
	return p
}
