// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"hash/fnv"
	"math"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// Protocol marks what Blixt adds to the host: IFA_PROTO of an address, NDA_PROTOCOL of
// a neighbour. `ip -d address` shows it. The kernel itself uses 1 to 3.
const Protocol = 0xb1

// Attributes of addresses that package unix does not name.
const (
	ifaRtPriority = 9
	ifaProto      = 11
)

// IsBlixts reports whether Blixt has added an address: this load balancer or another
// one of the host. All others are the host's.
func IsBlixts(a hostnet.Address) bool { return a.Protocol == Protocol }

// mark returns the metric that the addresses of the load balancer of a name have. The
// kernel uses an address's metric for the route to its network, and these have none.
func mark(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32() | 1 // 0 is no metric
}

// address is an address of an interface in the form in which we add it.
type address struct {
	ip     netip.Addr
	peer   netip.Addr
	index  int
	metric uint32
}

// newAddress returns the form in which we add an address to an interface that has some
// already. The kernel refuses to add an address to an interface twice. What the host
// adds must never be refused because of ours: so an IPv4 address gets a peer in
// 0.0.0.0/8, which nobody else's has, and which makes no route. No two have the same
// one: the kernel would remove the later with the earlier. The package's comment says
// where IPv6 addresses go.
func newAddress(ip netip.Addr, index int, metric uint32, there []hostnet.Address) address {
	a := address{ip, ip, index, metric}
	if !ip.Is4() {
		return a
	}
	peer := ip.As4()
	peer[0] = 0
	a.peer = netip.AddrFrom4(peer)
	taken := map[netip.Addr]bool{}
	for _, o := range there {
		if o.Index == index {
			taken[o.Network.Addr()] = true
		}
	}
	for taken[a.peer] {
		a.peer = a.peer.Next()
	}
	return a
}

// add adds an address. The host never chooses it as the source of its own connections:
// IPv4 has the scope for that, IPv6 the state "deprecated". IPv6 needs no duplicate
// address detection by the kernel: the administrator has given the address to us.
func (a address) add() error {
	return a.change(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
}

// remove removes an address.
func (a address) remove() error { return a.change(unix.RTM_DELADDR, 0) }

func (a address) change(request, flags int) error {
	r := nl.NewNetlinkRequest(request, flags|unix.NLM_F_ACK)
	family, ifaFlags := unix.AF_INET6, uint32(unix.IFA_F_NOPREFIXROUTE|unix.IFA_F_NODAD)
	if a.ip.Is4() {
		family, ifaFlags = unix.AF_INET, unix.IFA_F_NOPREFIXROUTE
	}
	h := nl.NewIfAddrmsg(family)
	h.Index, h.Prefixlen = uint32(a.index), uint8(a.ip.BitLen())
	if family == unix.AF_INET {
		h.Scope = unix.RT_SCOPE_HOST
	}
	r.AddData(h)
	r.AddData(nl.NewRtAttr(unix.IFA_LOCAL, a.ip.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, a.peer.AsSlice()))
	if request == unix.RTM_NEWADDR {
		r.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(ifaFlags)))
		r.AddData(nl.NewRtAttr(ifaProto, []byte{Protocol}))
		r.AddData(nl.NewRtAttr(ifaRtPriority, nl.Uint32Attr(a.metric)))
		if family == unix.AF_INET6 {
			lifetime := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: math.MaxUint32}} // never preferred
			r.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, lifetime.Serialize()))
		}
	}
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
