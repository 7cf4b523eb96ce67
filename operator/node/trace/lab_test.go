// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Devices of the lab, and their addresses. Each is one end of a veth pair whose other end
// is up, and has no address: packets are passed to the program, and never sent.
var deviceAddresses = map[string][]string{
	"outside":   {"192.0.2.1/24", "2001:db8::1/64"},
	"inside":    {"10.1.0.1/24", "fd00:1::1/64"},
	"pods":      {"10.2.0.1/24", "fd00:2::1/64"},
	"noforward": {"10.9.0.1/24", "fd00:9::1/64"},
	"dot.100":   {"10.7.0.1/24", "fd00:7::1/64"},
}

// world is the real program in a network namespace of its own, which belongs to the
// calling thread.
type world struct {
	testing.TB
	objects *bpf.BlixtObjects
	tables  *Tables
	network *Host
	index   map[string]int
	mac     map[string]net.HardwareAddr
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644)
}

func newWorld(t testing.TB) *world {
	runtime.LockOSThread() // never unlocked: the namespace ends with the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network namespace needs root: %v", err)
	}
	w := &world{TB: t, index: map[string]int{"lo": loopback}, mac: map[string]net.HardwareAddr{}}
	lo, err := netlink.LinkByName("lo")
	w.must(err)
	w.must(netlink.LinkSetUp(lo))
	for _, family := range []string{"ipv4", "ipv6"} {
		w.must(sysctl(family+"/conf/all/forwarding", "1"))
		w.must(sysctl(family+"/conf/default/forwarding", "1"))
	}
	n := byte(0)
	for _, name := range []string{"outside", "inside", "pods", "noforward", "dot.100"} {
		n++
		w.mac[name] = net.HardwareAddr{2, 0, 0, 0, 0, n}
		w.device(name, deviceAddresses[name])
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		w.must(sysctl(family+"/conf/noforward/forwarding", "0"))
	}
	for _, r := range []struct {
		dev, dst, via, src string
		mtu, kind          int
	}{
		{dev: "outside", dst: "0.0.0.0/0", via: "192.0.2.254"},
		{dev: "outside", dst: "::/0", via: "2001:db8::254"},
		{dev: "inside", dst: "10.3.0.0/24", via: "10.1.0.2", mtu: 1000},
		{dev: "inside", dst: "fd00:3::/64", via: "fd00:1::2", mtu: 1280},
		{dev: "inside", dst: "10.5.0.0/24", via: "10.1.0.2", src: "192.0.2.1"},
		{dst: "10.4.1.0/24", kind: unix.RTN_BLACKHOLE},
		{dst: "10.4.2.0/24", kind: unix.RTN_UNREACHABLE},
		{dst: "10.4.3.0/24", kind: unix.RTN_PROHIBIT},
		{dst: "10.200.0.0/16", kind: unix.RTN_THROW},
		{dst: "fd00:4:1::/64", kind: unix.RTN_BLACKHOLE},
		{dst: "fd00:4:2::/64", kind: unix.RTN_UNREACHABLE},
		{dst: "fd00:4:3::/64", kind: unix.RTN_PROHIBIT},
		{dst: "fd00:200::/32", kind: unix.RTN_THROW},
	} {
		_, dst, err := net.ParseCIDR(r.dst)
		w.must(err)
		route := &netlink.Route{Dst: dst, MTU: r.mtu, MTULock: r.mtu != 0, Type: r.kind, Src: net.ParseIP(r.src), Gw: net.ParseIP(r.via), LinkIndex: w.index[r.dev]}
		if err := netlink.RouteAdd(route); err != nil {
			t.Fatalf("add route to %s: %v", r.dst, err)
		}
	}
	for dev, ip := range map[string]string{"outside": "192.0.2.254", "inside": "10.1.0.2"} {
		w.must(netlink.NeighAdd(&netlink.Neigh{LinkIndex: w.index[dev], State: netlink.NUD_PERMANENT, IP: net.ParseIP(ip), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 9, 9}}))
	}
	w.load()
	return w
}

// policy has rules choose among tables of routes: by the source, and by the interface.
func (w *world) policy() {
	for table, r := range map[int]struct{ rule, iif, dst, via, dev string }{
		100: {rule: "10.2.0.0/24", dst: "0.0.0.0/0", via: "10.1.0.2", dev: "inside"},
		101: {iif: "dot.100", dst: "10.1.0.0/24", via: "192.0.2.254", dev: "outside"},
		102: {rule: "fd00:2::/64", dst: "::/0", via: "fd00:1::2", dev: "inside"},
		103: {iif: "dot.100", dst: "fd00:1::/64", via: "2001:db8::254", dev: "outside"},
	} {
		rule := netlink.NewRule()
		rule.Table, rule.IifName = table, r.iif
		_, dst, err := net.ParseCIDR(r.dst)
		w.must(err)
		if r.rule != "" {
			_, rule.Src, err = net.ParseCIDR(r.rule)
			w.must(err)
		}
		if rule.Family = unix.AF_INET; dst.IP.To4() == nil {
			rule.Family = unix.AF_INET6
		}
		w.must(netlink.RuleAdd(rule))
		w.must(netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(r.via), LinkIndex: w.index[r.dev], Table: table}))
	}
}

func (w *world) device(name string, addrs []string) {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: w.mac[name]}, PeerName: name + "-peer"}
	if err := netlink.LinkAdd(veth); err != nil {
		w.Fatalf("add device %s: %v", name, err)
	}
	for _, n := range []string{name, name + "-peer"} {
		w.must(sysctl("ipv6/conf/"+n+"/addr_gen_mode", "1")) // no autoconfigured addresses
		link, err := netlink.LinkByName(n)
		w.must(err)
		if n == name {
			w.index[name] = link.Attrs().Index
		}
		w.must(netlink.LinkSetUp(link))
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		w.must(err)
		addr.Flags = unix.IFA_F_NODAD
		w.must(netlink.AddrAdd(veth, addr))
	}
}

func (w *world) load() {
	spec, err := bpf.LoadBlixt()
	w.must(err)
	for name, size := range map[string]uint32{"rings": 1 << 16, "flows": 1 << 16, "new_flows": 1 << 16, "udp_flows": 1 << 16, "frontends": 1024, "addresses": 64, "published": 1024,
		"backends": 4096, "backend_flows": 4096, "port_searches": 8192, "frontend_stats": 1024, "established": 1025, "frontend_policies": 1024, "syn_counts": 1024} {
		spec.Maps[name].MaxEntries = size
	}
	w.objects = &bpf.BlixtObjects{}
	w.must(spec.LoadAndAssign(w.objects, nil))
	w.Cleanup(func() { w.objects.Close() })
	o := w.objects
	w.tables, err = New(map[string]*ebpf.Map{
		bpf.LayoutMap: o.BlixtLayout2, bpf.BlixtMapAddresses: o.Addresses, bpf.BlixtMapFrontends: o.Frontends, bpf.BlixtMapPublished: o.Published,
		bpf.BlixtMapRings: o.Rings, bpf.BlixtMapBackends: o.Backends, bpf.BlixtMapFlows: o.Flows, bpf.BlixtMapNewFlows: o.NewFlows, bpf.BlixtMapUdpFlows: o.UdpFlows,
		bpf.BlixtMapInterest: o.Interest, bpf.BlixtMapLinkPackets: o.LinkPackets, bpf.BlixtMapAnnouncing: o.Announcing, bpf.BlixtMapHostPorts: o.HostPorts,
		bpf.BlixtMapMasqueradedPorts: o.MasqueradedPorts, bpf.BlixtMapPortSearches: o.PortSearches, bpf.BlixtMapProtectedClients: o.ProtectedClients,
		bpf.BlixtMapFrontendPolicies: o.FrontendPolicies, bpf.BlixtMapPolicies: o.Policies, bpf.BlixtMapPolicyStates: o.PolicyStates, bpf.BlixtMapSources: o.Sources,
		bpf.BlixtMapLimitedSources: o.LimitedSources, bpf.BlixtMapProven: o.Proven, bpf.BlixtMapSynCounts: o.SynCounts,
		bpf.BlixtMapSilentNeighbours: o.SilentNeighbours, bpf.BlixtMapAnnouncedUdp: o.AnnouncedUdp,
		bpf.BlixtMapPortRanges: o.PortRanges, bpf.BlixtMapAffinities: o.Affinities, bpf.BlixtMapUdpAffinities: o.UdpAffinities, bpf.BlixtMapAffinityBackends: o.AffinityBackends,
	})
	w.must(err)
}

// seen has the program have seen a packet at a device.
func (w *world) seen(name string) {
	n := make([]uint64, ebpf.MustPossibleCPU())
	n[0] = 1
	w.must(w.objects.LinkPackets.Put(uint32(w.index[name])*2, n))
}

// interested sets bits of an address, as a writer does.
func (w *world) interested(a netip.Addr, bits bpf.BlixtInterestFlag) {
	var all bpf.BlixtInterestBytes
	w.must(w.objects.Interest.Lookup(uint32(0), &all))
	all.Of[bpf.InterestHash(datapath.ToAddr(a))] |= byte(bits)
	w.must(w.objects.Interest.Put(uint32(0), &all))
}

// frame makes a SYN or a datagram of so many bytes from the IP header on.
func (w *world) frame(dev string, p lb.Protocol, client, server netip.AddrPort, bytes int) []byte {
	ip := 20
	ether := uint16(unix.ETH_P_IP)
	if client.Addr().Is6() {
		ip, ether = 40, unix.ETH_P_IPV6
	}
	l4 := make([]byte, bytes-ip)
	binary.BigEndian.PutUint16(l4, client.Port())
	binary.BigEndian.PutUint16(l4[2:], server.Port())
	if p == lb.TCP {
		binary.BigEndian.PutUint32(l4[4:], 1000)
		l4[12], l4[13] = 5<<4, forge.SYN
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	}
	packet := forge.Packet{Src: client.Addr(), Dst: server.Addr(), Protocol: byte(p), Hop: 64, DF: true, Payload: l4}
	frame := make([]byte, 14, 14+bytes)
	copy(frame, w.mac[dev])
	copy(frame[6:], []byte{2, 0, 0, 0, 9, 9})
	binary.BigEndian.PutUint16(frame[12:], ether)
	return append(frame, packet.Bytes()...)
}

// run passes a frame to the program at ingress of a device or, if it comes from another
// one (0: a socket of this host), at egress. It returns the packet after it, and the
// counters that have risen.
func (w *world) run(dev string, from *int, frame []byte) (out []byte, counted []bpf.BlixtCounter) {
	w.Helper()
	ctx := make([]byte, 192) // struct __sk_buff
	in := w.index[dev]
	if from != nil {
		in = *from
	}
	binary.NativeEndian.PutUint32(ctx[36:], uint32(in))
	binary.NativeEndian.PutUint32(ctx[40:], uint32(w.index[dev]))
	before := w.counters()
	o := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+512), Context: ctx}
	_, err := w.objects.Blixt.Run(o)
	w.must(err)
	for i, n := range w.counters() {
		if n != before[i] {
			counted = append(counted, bpf.BlixtCounter(i))
		}
	}
	return o.DataOut, counted
}

func (w *world) counters() []uint64 {
	w.Helper()
	n := int(bpf.BlixtCounterCOUNTERS)
	values := make([]uint64, n*ebpf.MustPossibleCPU())
	var cursor ebpf.MapBatchCursor
	_, err := w.objects.Counters.BatchLookup(&cursor, make([]uint32, n), values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		w.Fatal(err)
	}
	sums := make([]uint64, n)
	for i, v := range values {
		sums[i/ebpf.MustPossibleCPU()] += v
	}
	return sums
}

// calm has the program answer at full rate again.
func (w *world) calm() {
	for i := range w.objects.AnswerBuckets.MaxEntries() {
		w.must(w.objects.AnswerBuckets.Put(i, make([]uint64, ebpf.MustPossibleCPU())))
	}
}

// forgetSlots has the program ask its tables about each flow. A table evicts entries whenever it
// likes, and until the end of the tick a slot serves a flow whose entry is gone.
func (w *world) forgetSlots() {
	var c bpf.BlixtConfig
	w.must(w.objects.BlixtLayout2.Lookup(uint32(0), &c))
	c.CacheEpoch++
	w.must(w.objects.BlixtLayout2.Put(uint32(0), c))
}

// tuple parses what an IP packet in a frame has.
func tuple(frame []byte) (src, dst netip.AddrPort) {
	ip := frame[14:]
	at := func(from, size int) netip.Addr { a, _ := netip.AddrFromSlice(ip[from : from+size]); return a }
	s, d, l4 := at(12, 4), at(16, 4), ip[20:]
	if ip[0]>>4 == 6 {
		s, d, l4 = at(8, 16), at(24, 16), ip[40:]
	}
	return netip.AddrPortFrom(s, binary.BigEndian.Uint16(l4)), netip.AddrPortFrom(d, binary.BigEndian.Uint16(l4[2:]))
}

func names(counters []bpf.BlixtCounter) []string {
	all, err := datapath.CounterNames()
	if err != nil {
		return []string{fmt.Sprint(err)}
	}
	var list []string
	for _, c := range counters {
		list = append(list, all[c])
	}
	return list
}
