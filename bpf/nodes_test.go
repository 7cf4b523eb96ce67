// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// The nodes of a cluster. Clients' packets come in by node A, or by D. The pod
// that serves them is on node B, which has A and D for peers, and serves nothing
// itself. For A and D the pod is the backend `remote`.
type nodes struct {
	testing.TB
	a, b, d *lb
}

// Addresses of D in the network of the nodes.
var addressesOfD = map[string]string{"IPv4": "10.1.0.3", "IPv6": "fd00:1::3"}

// Clients, by the device by which B's packets to them leave.
var (
	// The one by which nodes are reached, too: the network routes pods.
	routedClient = map[string]string{"IPv4": ipVersions[0].client, "IPv6": ipVersions[1].client}
	// Another one, as where nodes are reached by a tunnel.
	farClient = map[string]string{"IPv4": "100.64.0.7:40000", "IPv6": "[2001:db8:e::7]:40000"}
	// One without the program.
	strayClient = map[string]string{"IPv4": "198.51.101.7:40000", "IPv6": "[2001:db8:1c::7]:40000"}
	// A pod of B.
	podClient = map[string]string{"IPv4": "10.2.0.20:40000", "IPv6": "[fd00:2::20]:40000"}
	// B itself.
	hostClient = map[string]string{"IPv4": "192.0.2.2:40000", "IPv6": "[2001:db8::2]:40000"}
)

// Keys that sign messages, by their index. Another is the key of another cluster.
var (
	keyOfCluster = announce.Key{0x10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	nextKey      = announce.Key{0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	foreignKey   = announce.Key{0x30, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
)

// Boot numbers, in the order of the nodes A, B and D.
const (
	bootOfA = 7
	bootOfB = 9
	bootOfD = 11
)

// labOfB is node B: see the clients above.
var labOfB = sync.OnceValues(func() (*lab, error) {
	return newLab(func(l *lab) error {
		for _, name := range []string{"ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter"} {
			if err := sysctl(name, "1"); err != nil {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		for _, d := range []struct {
			name  string
			mac   [6]byte // each its own: a device that has the address of another is stacked on it
			addrs []string
		}{
			{outside, deviceMAC, []string{"192.0.2.2/24", "2001:db8::2/64"}},
			{inside, deviceMAC, []string{"10.1.0.2/24", "fd00:1::2/64"}},
			{pods, [6]byte{2, 0, 0, 0, 1, 3}, []string{"10.2.0.1/24", "fd00:2::1/64"}},
			{second, [6]byte{2, 0, 0, 0, 1, 4}, []string{"192.0.3.2/24", "2001:db8:3::2/64"}},
		} {
			if err := l.device(d.name, d.addrs...); err != nil {
				return err
			}
			dev, err := netlink.LinkByName(d.name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetHardwareAddr(dev, d.mac[:]); err != nil {
				return err
			}
		}
		for _, r := range []struct {
			dev string
			way routeSpec
		}{
			{outside, routeSpec{dst: "0.0.0.0/0", via: "192.0.2.254"}},
			{outside, routeSpec{dst: "::/0", via: "2001:db8::254"}},
			{inside, routeSpec{dst: "198.51.100.0/24", via: "10.1.0.254"}},
			{inside, routeSpec{dst: "2001:db8:c::/48", via: "fd00:1::254"}},
			{second, routeSpec{dst: "198.51.101.0/24", via: "192.0.3.254"}},
			{second, routeSpec{dst: "2001:db8:1c::/48", via: "2001:db8:3::254"}},
			{pods, routeSpec{dst: "10.1.0.10/32"}},
			{pods, routeSpec{dst: "fd00:1::10/128"}},
		} {
			if err := l.route(r.dev, r.way); err != nil {
				return err
			}
		}
		for dev, addrs := range map[string][]string{
			outside: {"192.0.2.254", "2001:db8::254"},
			inside:  {"10.1.0.1", "fd00:1::1", "10.1.0.3", "fd00:1::3", "10.1.0.254", "fd00:1::254"},
			pods:    {"10.1.0.10", "fd00:1::10"},
			second:  {"192.0.3.254", "2001:db8:3::254"},
		} {
			for _, a := range addrs {
				n := &netlink.Neigh{LinkIndex: int(l.devices[dev]), State: netlink.NUD_PERMANENT, IP: netip.MustParseAddr(a).AsSlice(), HardwareAddr: farMAC[:]}
				if err := netlink.NeighSet(n); err != nil {
					return fmt.Errorf("neighbour %s: %w", a, err)
				}
			}
		}
		return nil
	})
})

// labOfD is node D: it differs from A by its address towards the nodes.
var labOfD = sync.OnceValues(func() (*lab, error) {
	return newLab(func(l *lab) error {
		if err := l.configure(); err != nil {
			return err
		}
		dev, err := netlink.LinkByName(inside)
		if err != nil {
			return err
		}
		for from, to := range map[string]string{"10.1.0.1/24": "10.1.0.3/24", "fd00:1::1/64": "fd00:1::3/64"} {
			old, err := netlink.ParseAddr(from)
			if err != nil {
				return err
			}
			own, err := netlink.ParseAddr(to)
			if err != nil {
				return err
			}
			own.Flags = unix.IFA_F_NODAD
			// In this order: a second address of a network goes with the first one.
			if err := netlink.AddrDel(dev, old); err != nil {
				return fmt.Errorf("remove %s: %w", from, err)
			}
			if err := netlink.AddrAdd(dev, own); err != nil {
				return fmt.Errorf("add %s: %w", to, err)
			}
		}
		// Routes by the device went with the addresses.
		for _, r := range []routeSpec{{dst: "10.3.0.0/24", via: "10.1.0.2", mtu: 1000}, {dst: "fd00:3::/64", via: "fd00:1::2", mtu: 1280}} {
			if err := l.route(inside, r); err != nil && !errors.Is(err, unix.EEXIST) {
				return err
			}
		}
		return nil
	})
})

var objectsOfD = sync.OnceValues(func() (*BlixtObjects, error) { return load(shrinkTables) })

// node starts a data plane in a lab.
func (n *nodes) node(load func() (*BlixtObjects, error), lab func() (*lab, error), boot uint16) *lb {
	n.Helper()
	objs, err := load()
	l := startLB(n.TB, objs, err)
	if l.lab, err = lab(); err != nil {
		n.Fatal(err)
	}
	l.clear()
	l.announcing(boot, 0, BlixtAnnouncingFlagANNOUNCING_UNDO|BlixtAnnouncingFlagANNOUNCING_TELL)
	l.key(0, keyOfCluster)
	return l
}

// newNodes returns nodes A and B.
func newNodes(t testing.TB) *nodes {
	t.Helper()
	n := &nodes{TB: t}
	n.a = n.node(sharedObjects, sharedLab, bootOfA)
	n.b = n.node(forgetfulObjects, labOfB, bootOfB)
	b := n.b
	clear(b.memory(b.Interest)) // B has other addresses than the labs of most tests
	for _, a := range []string{"192.0.2.2", "2001:db8::2", "10.1.0.2", "fd00:1::2", "10.2.0.1", "fd00:2::1", "192.0.3.2", "2001:db8:3::2"} {
		b.interested(addrOf(netip.MustParseAddr(a)), BlixtInterestFlagINTEREST_HOST)
	}
	for _, ip := range ipVersions {
		b.peer(ip.nodeIn, 0)
		b.peer(addressesOfD[ip.name], 0)
	}
	b.egressLinks(inside, outside) // the program is on none of the pods' devices
	return n
}

// withD adds node D.
func (n *nodes) withD() *nodes {
	n.Helper()
	n.d = n.node(objectsOfD, labOfD, bootOfD)
	for _, ip := range ipVersions {
		n.d.interested(addrOf(netip.MustParseAddr(addressesOfD[ip.name])), BlixtInterestFlagINTEREST_HOST)
	}
	return n
}

// serve has A, and D if there is one, serve port 80 of the VIP by the pod of B.
func (n *nodes) serve(ip ipVersion, protocol uint8) {
	n.Helper()
	for _, l := range []*lb{n.a, n.d} {
		if l == nil {
			continue
		}
		l.serve(ip, protocol, remote)
		l.hears(remote, BlixtBackendFlagBACKEND_HEARS_WITHIN|BlixtBackendFlagBACKEND_HEARS_ALONE)
	}
}

func (l *lb) flowTables() []*ebpf.Map { return []*ebpf.Map{l.Flows, l.NewFlows, l.UdpFlows} }

// What a writer writes.

func (l *lb) announcing(boot uint16, key uint8, flags BlixtAnnouncingFlag) {
	l.Helper()
	l.must(l.Announcing.Put(uint32(0), BlixtAnnounceConfig{Boot: boot, Key: key, Flags: uint8(flags), PortsMin: snatMin, PortsMax: snatMax}))
}

func (l *lb) key(index uint32, key announce.Key) {
	l.Helper()
	l.must(l.AnnounceKeys.Put(index, BlixtAnnounceKey{Bytes: key}))
}

func (l *lb) peer(addr string, boot uint16) {
	l.Helper()
	a := addrOf(netip.MustParseAddr(addr))
	l.interested(a, BlixtInterestFlagINTEREST_PEER)
	l.must(l.Peers.Put(a, BlixtPeer{Boot: boot}))
}

// peerOf returns what the program knows of a peer.
func (l *lb) peerOf(addr string) (p BlixtPeer) {
	l.Helper()
	l.must(l.Peers.Lookup(addrOf(netip.MustParseAddr(addr)), &p))
	return p
}

// hasUndone has the program have undone a flow: only then may it have lost others.
func (l *lb) hasUndone() {
	l.Helper()
	n := make([]uint64, ebpf.MustPossibleCPU())
	n[0] = 1
	l.must(l.Counters.Put(uint32(BlixtCounterCOUNTER_FLOW_UNDONE), n))
}

func (l *lb) egressLinks(devices ...string) {
	l.Helper()
	for _, dev := range devices {
		l.must(l.EgressLinks.Put(l.lab.devices[dev]%uint32(BlixtLimitMAX_LINKS), uint32(1)))
	}
}

// hears sets what the backend's node hears.
func (l *lb) hears(id uint32, flags BlixtBackendFlag) {
	l.Helper()
	var b BlixtBackend
	l.must(l.Backends.Lookup(id, &b))
	b.Flags &^= uint16(BlixtBackendFlagBACKEND_HEARS_WITHIN | BlixtBackendFlagBACKEND_HEARS_ALONE)
	b.Flags |= uint16(flags)
	l.must(l.Backends.Put(id, b))
}

// clearAnnouncements empties the maps of announcements.
func (l *lb) clearAnnouncements() {
	l.Helper()
	l.must(l.Announcing.Put(uint32(0), BlixtAnnounceConfig{}))
	for i := range l.AnnounceKeys.MaxEntries() {
		l.must(l.AnnounceKeys.Put(i, BlixtAnnounceKey{}))
	}
	deleteAll[BlixtAddr, BlixtPeer](l, l.Peers)
	deleteAll[BlixtFlowKey, BlixtProbe](l, l.Probes)
	for _, index := range l.lab.devices {
		l.must(l.EgressLinks.Put(index%uint32(BlixtLimitMAX_LINKS), uint32(0)))
	}
	deleteAll[BlixtFrontendKey, uint32](l, l.AnnouncedBackends)
	clear(l.memory(l.AnnouncedUdp))
}

// Packets with messages.

// within returns the packet with a message behind it, signed for its tuple.
func (p packet) within(m announce.Message, key announce.Key) packet {
	bare := p
	bare.padding = 0
	whole, err := m.Within(bare.ipBytes(), key)
	if err != nil {
		panic(err)
	}
	p.tail = whole[len(bare.ipBytes()):]
	return p
}

// alone returns a packet that has nothing but the message. Of a segment the flags and numbers stay.
func (p packet) alone(m announce.Message, key announce.Key) packet {
	p.payload, p.tcpOption = nil, nil
	whole, err := m.Alone(p.ipBytes(), key)
	if err != nil {
		panic(err)
	}
	if p.protocol == unix.IPPROTO_TCP {
		p.tcpOption = whole[len(whole)-announce.Len:]
	} else {
		p.tail = whole[len(p.ipBytes()):]
	}
	return p
}

// about is a message of A's about a client, made now.
func about(client string) announce.Message {
	return announce.Message{Client: ap(client), Idle: 6, Time: announce.Now(), Boot: bootOfA, Service: 0x5a17}
}

// message returns the message in the packet that has left.
func (r *result) message() announce.Found {
	r.l.Helper()
	if len(r.out) <= 14 {
		r.l.Fatalf("no packet has left: verdict %s", verdictNames[r.verdict])
	}
	f, err := announce.Find(r.out[14:])
	if err != nil {
		r.l.Fatalf("the packet that has left carries no message: %v\n%s", err, strings.Join(dump(r.out, false), "\n"))
	}
	return f
}

// wantMessage checks a message but for its service and its place. Its time has to be after `since`.
func (l *lb) wantMessage(f announce.Found, want announce.Message, since uint32, key announce.Key) {
	l.Helper()
	if !f.Genuine(key) {
		l.Errorf("the message is not signed by the key for %v", f.Tuple)
	}
	if f.Off != 0 {
		l.Errorf("the surplus area and its length add up to %#x, want 0", f.Off)
	}
	if f.Pad != 0 {
		l.Errorf("a byte of padding in front of the message is %#x, want 0", f.Pad)
	}
	if now := announce.Now(); f.Time-since > now-since {
		l.Errorf("time of the message %#x, want one from %#x to %#x", f.Time, since, now)
	}
	got := f.Message
	want.Time, want.Service, want.Kind = got.Time, got.Service, got.Kind
	if got != want {
		l.Errorf("message: %v, want %v", got, want)
	}
}

// announces: translated into want with a message within, then sent past the stack.
func (r *result) announces(want packet, m announce.Message, counters string) {
	r.l.Helper()
	if r.stale {
		r.l.Fatal("a packet that grows must be sent without a complete checksum")
	}
	f := r.message()
	r.l.wantMessage(f, m, r.began, keyOfCluster)
	want.tail = r.out[len(r.out)-announce.Len-2-len(want.summed())%2:]
	r.redirected(want, counters)
}
