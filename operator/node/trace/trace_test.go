// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// tuples is how many the comparison makes.
const tuples = 10_000

// Addresses that are served, and one that is not.
var (
	exclusive = []string{"198.51.100.1", "198.51.100.2", "2001:db8:f::1", "2001:db8:f::2"}
	shared    = []string{"192.0.2.1", "10.1.0.1", "2001:db8::1", "fd00:1::1"}
	foreign   = []string{"198.51.100.99", "2001:db8:f::99"}
)

// Where backends are: on this node; on others, behind routes of every kind.
var (
	backends4 = []string{"10.2.0.10", "10.2.0.11", "10.1.0.2", "10.1.0.20", "10.3.0.5", "10.5.0.7", "10.4.1.1", "10.4.2.1", "10.4.3.1", "10.200.0.1", "203.0.113.9", "10.1.0.1"}
	backends6 = []string{"fd00:2::10", "fd00:2::11", "fd00:1::2", "fd00:1::20", "fd00:3::5", "fd00:4:1::1", "fd00:4:2::1", "fd00:4:3::1", "fd00:200::1", "2001:db8:9::9", "fd00:1::1"}
)

var pods4, pods6 = netip.MustParsePrefix("10.2.0.0/24"), netip.MustParsePrefix("fd00:2::/64")

var frontendPorts = []uint16{53, 80, 443, 8080, 30010, 30050}

// random makes states and packets.
type random struct {
	*rand.Rand
	w    *world
	next uint32 // free ring slot
}

func pick[T any](r *random, all []T) T { return all[r.IntN(len(all))] }

// state writes a state of frontends with rings of every kind.
func (r *random) state() {
	w, o := r.w, r.w.objects
	c := bpf.BlixtConfig{SnatMin: 30000, SnatMax: 30099, Seed: r.Uint64()}
	w.must(o.BlixtLayout2.Put(uint32(0), c))
	for i, list := range [][]string{exclusive, shared} {
		for _, a := range list {
			var v bpf.BlixtAddress
			bits := datapath.InterestVIP | datapath.InterestShared
			if i == 0 {
				v.Flags, bits = datapath.AddressExclusive, datapath.InterestVIP
			}
			if r.IntN(2) == 0 { // of some there are ranges, of frontends that may not be served
				v.Flags |= datapath.AddressRanges
				ranges := bpf.BlixtPortRanges{Of: [16]bpf.BlixtPortRange{
					{First: 6990, Last: 7000, Port: datapath.ToPort(443)}, {First: 6000, Last: 7001, Port: datapath.ToPort(80)},
				}}
				for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
					w.must(o.PortRanges.Put(bpf.BlixtFrontendKey{Addr: datapath.ToAddr(netip.MustParseAddr(a)), Protocol: uint8(protocol)}, ranges))
				}
			}
			w.interested(netip.MustParseAddr(a), bits)
			w.must(o.Addresses.Put(datapath.ToAddr(netip.MustParseAddr(a)), v))
		}
	}
	r.policies()
	index, id := uint32(0), uint32(0)
	for _, a := range slices.Concat(exclusive, shared) {
		for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
			for _, port := range frontendPorts {
				if r.IntN(7) == 0 {
					continue // not served
				}
				var ids []uint32
				for range r.IntN(8) {
					id++
					r.backend(id, index, netip.MustParseAddr(a).Is6())
					ids = append(ids, id)
				}
				r.ring(index, ids)
				key := bpf.BlixtFrontendKey{Addr: datapath.ToAddr(netip.MustParseAddr(a)), Port: datapath.ToPort(port), Protocol: uint8(protocol)}
				f := bpf.BlixtFrontend{Index: index, IdleTicks: 60}
				r.settings(&f, key, ids)
				r.restrict(&f)
				w.must(o.Frontends.Put(key, f))
				index++
			}
		}
	}
}

// settings gives some frontends affinity, and clients that they remember; and some other
// ports at backends.
func (r *random) settings(f *bpf.BlixtFrontend, key bpf.BlixtFrontendKey, ids []uint32) {
	w, o := r.w, r.w.objects
	f.Flags |= pick(r, []uint32{0, 0, datapath.FrontendKeepPort, datapath.FrontendShiftPort})
	f.FirstPort = datapath.FromPort(key.Port)
	if r.IntN(2) == 0 || len(ids) == 0 {
		return
	}
	f.Flags |= datapath.FrontendAffinity
	f.AffinityBits = pick(r, []uint8{96 + 8, 96 + 24, 96 + 27, 128})
	if datapath.FromAddr(key.Addr).Is6() {
		f.AffinityBits = pick(r, []uint8{0, 30, 64, 120, 127, 128})
	}
	if r.IntN(3) == 0 {
		return
	}
	f.Affinity, f.AffinityTicks = 1+r.Uint32N(3), 50
	var b bpf.BlixtBackend
	for _, id := range ids {
		w.must(o.Backends.Lookup(id, &b))
		if r.IntN(3) > 0 {
			w.must(o.AffinityBackends.Put(bpf.BlixtAffinityBackendKey{Frontend: f.Index, Addr: b.Addr}, id))
		}
	}
	for _, client := range []string{"203.0.113.7", "203.0.113.8", "198.18.0.9", "2001:db8:c::7", "2001:db8:d::9"} {
		at := bpf.BlixtAffinityKey{Group: f.Affinity, Client: prefix(datapath.ToAddr(netip.MustParseAddr(client)), f.AffinityBits)}
		table := pick(r, []*ebpf.Map{o.Affinities, o.UdpAffinities})
		w.must(table.Put(at, bpf.BlixtAffinity{Backend: b.Addr, LastNew: ticks() - pick(r, []uint32{0, 1, 20, 60})}))
	}
}

// policies writes policies of every kind: with lists of sources, and limits that are soon reached.
func (r *random) policies() {
	w, o := r.w, r.w.objects
	for set := uint32(1); set <= 6; set++ {
		for _, text := range []string{"203.0.113.7/32", "203.0.113.0/24", "198.18.0.0/15", "10.0.0.0/8", "0.0.0.0/0", "2001:db8:c::7/128", "2001:db8:c::/48", "::/0", "fd00:2::/64"} {
			p := netip.MustParsePrefix(text)
			bits := uint32(p.Bits())
			if p.Addr().Is4() {
				bits += 96
			}
			if r.IntN(3) == 0 {
				w.must(o.Sources.Put(bpf.BlixtSourceKey{Bits: 32 + bits, Set: set, Addr: datapath.ToAddr(p.Addr())}, 1+r.Uint32N(3)))
			}
		}
	}
	const hour = 3600e9
	for id := uint32(1); id < 40; id++ {
		p := bpf.BlixtPolicy{SourceBits4: uint8(96 + 8*r.IntN(5)), SourceBits6: uint8(32 + r.IntN(97))}
		if r.IntN(2) == 0 {
			p.Sources = uint64(r.IntN(7))
		}
		p.Sources |= uint64(r.IntN(16)&^(1+2*r.IntN(2))|max(0, r.IntN(4)-2)) << 32
		if r.IntN(3) == 0 {
			p.SourceInterval, p.SourceBurst = hour, 1+r.Uint32N(40)
		}
		if r.IntN(3) == 0 {
			p.TotalInterval, p.TotalBurst = hour, 1+r.Uint32N(400)
		}
		if r.IntN(3) == 0 {
			p.SourceConcurrent, p.TotalConcurrent = 1+r.Uint32N(9), 1+r.Uint32N(9)
		}
		w.must(o.Policies.Put(id, p))
	}
}

// restrict gives some frontends policies, and other restrictions.
func (r *random) restrict(fe *bpf.BlixtFrontend) {
	word := uint64(0)
	for i := range r.IntN(5) {
		if r.IntN(3) == 0 {
			word |= uint64(1+r.IntN(39)) << (16 * i)
		}
	}
	r.w.must(r.w.objects.FrontendPolicies.Put(fe.Index, word))
	switch r.IntN(16) {
	case 0:
		fe.Flags |= uint32(bpf.BlixtFrontendFlagFRONTEND_REFUSES)
	case 1:
		fe.Challenge = 1
	case 2:
		fe.Challenge = 20
	case 3, 4:
		fe.Flags |= uint32(bpf.BlixtFrontendFlagFRONTEND_DROP_NO_BACKEND)
	}
}

func (r *random) backend(id, frontend uint32, v6 bool) {
	all := backends4
	if v6 {
		all = backends6
	}
	addr := netip.MustParseAddr(pick(r, all))
	b := bpf.BlixtBackend{Addr: datapath.ToAddr(addr), Port: datapath.ToPort(uint16(9000 + r.IntN(3))), Generation: 1 + 2*r.Uint32N(3), Frontend: frontend, Ref: r.Uint32N(9)}
	for _, local := range []string{"10.2.0.0/24", "fd00:2::/64", "10.1.0.1/32", "fd00:1::1/128"} {
		if netip.MustParsePrefix(local).Contains(addr) && r.IntN(10) > 0 {
			b.Flags |= datapath.BackendLocal
		}
	}
	for chance, flag := range map[int]uint16{6: datapath.BackendNotServing, 7: datapath.BackendStack, 9: datapath.BackendProtected} {
		if r.IntN(chance) == 0 {
			b.Flags |= flag
		}
	}
	if r.IntN(20) == 0 {
		b.Generation++ // free again
	}
	if r.IntN(30) == 0 {
		b.Frontend++ // in use again, by another frontend
	}
	r.w.must(r.w.objects.Backends.Put(id, b))
}

// ring publishes a ring of some of the backends: with weights, and with slots that reject.
func (r *random) ring(index uint32, ids []uint32) {
	o := r.w.objects
	size := uint32(0)
	if r.IntN(12) > 0 {
		size = 1 + r.Uint32N(60)
	}
	first := r.next
	for i := range size {
		id := uint32(0)
		if len(ids) > 0 && r.IntN(12) > 0 {
			id = ids[min(r.IntN(len(ids)), r.IntN(len(ids)))] // the first ones weigh most
		}
		slot := first + i
		var two uint64
		r.w.must(o.Rings.Lookup(slot/2, &two))
		shift := slot & 1 * 32
		r.w.must(o.Rings.Put(slot/2, two&^(0xffffffff<<shift)|uint64(id)<<shift))
	}
	r.next += size
	r.w.must(o.Published.Put(index, uint64(first)|uint64(size)<<24|uint64(1+r.Uint32N(1000))<<44))
}

// sent is a packet: from is where it comes from that leaves, nil: it comes in.
type sent struct {
	observe.TraceQuery
	from *int
}

// leaving makes a packet that leaves: of a socket of this host, or of a pod.
func (r *random) leaving() sent {
	server := netip.MustParseAddr(pick(r, append(exclusive[:len(exclusive):len(exclusive)], foreign...)))
	clients, from := []string{"192.0.2.1", "10.1.0.1", "10.2.0.1"}, 0
	if server.Is6() {
		clients = []string{"2001:db8::1", "fd00:1::1"}
	}
	if r.IntN(2) == 0 {
		from, clients = r.w.index["pods"], []string{"10.2.0.10", "10.2.0.77"}
		if server.Is6() {
			clients = []string{"fd00:2::10", "fd00:2::77"}
		}
	}
	return sent{observe.TraceQuery{
		Client: netip.AddrPortFrom(netip.MustParseAddr(pick(r, clients)), uint16(40000+r.IntN(40))), Server: netip.AddrPortFrom(server, pick(r, frontendPorts)),
		Protocol: pick(r, []string{"tcp", "udp"}), Interface: "outside", Bytes: pick(r, []int{0, 0, 0, 1001, 1400}),
	}, &from}
}

// query makes a query, and says by which device its packet comes.
func (r *random) query() observe.TraceQuery {
	server := netip.MustParseAddr(pick(r, [][]string{exclusive, exclusive, exclusive, exclusive, exclusive, shared, shared, shared, shared, foreign}[r.IntN(10)]))
	q := observe.TraceQuery{Protocol: pick(r, []string{"tcp", "udp"}), Interface: "outside"}
	clients := []string{"203.0.113.7", "203.0.113.8", "198.18.0.9", "192.0.2.77"}
	odd := []string{"127.0.0.9", "224.0.0.5", "0.0.0.7", "198.51.100.1", "10.1.0.1", "10.200.0.9", "10.4.1.7", "10.1.0.20", "10.2.0.10"}
	if server.Is6() {
		clients = []string{"2001:db8:c::7", "2001:db8:c::8", "2001:db8:d::9", "2001:db8::77"}
		odd = []string{"::1", "ff02::5", "2001:db8:f::1", "fd00:1::1", "fd00:200::9", "fd00:4:1::7", "fd00:1::20", "fd00:2::10", "fe80::7"}
	}
	if r.IntN(12) == 0 {
		clients = odd
	}
	if r.IntN(10) == 0 {
		q.Interface = pick(r, []string{"inside", "pods", "noforward", "dot.100"})
	}
	q.Client = netip.AddrPortFrom(netip.MustParseAddr(pick(r, clients)), uint16(pick(r, []int{700 + r.IntN(8), 40000 + r.IntN(8), 1024 + r.IntN(64000)})))
	port := pick(r, frontendPorts)
	if r.IntN(6) == 0 {
		port = pick(r, []uint16{7000, 6995, 6500, 7001, 5999})
	}
	q.Server = netip.AddrPortFrom(server, port)
	if r.IntN(4) == 0 {
		q.Bytes = pick(r, []int{500, 1000, 1001, 1280, 1281, 1400, 1500})
	}
	return q
}

// disturb changes what a writer, time, or the other side of a flow may change.
func (r *random) disturb() {
	o := r.w.objects
	table := pick(r, []string{"new", "udp"})
	m := o.NewFlows
	if table == "udp" {
		m = o.UdpFlows
	}
	var keys []bpf.BlixtFlowKey
	var key bpf.BlixtFlowKey
	var f bpf.BlixtFlow
	for all := m.Iterate(); all.Next(&key, &f); {
		if f.Flags&datapath.FlowReply == 0 {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b bpf.BlixtFlowKey) int { return slices.Compare(fmt.Append(nil, a), fmt.Append(nil, b)) })
	for range 40 {
		if len(keys) == 0 {
			break
		}
		key := pick(r, keys)
		if m.Lookup(key, &f) != nil {
			continue // it has gone to another table
		}
		reply := peerKey(key, &f)
		var back bpf.BlixtFlow
		if m.Lookup(reply, &back) != nil {
			continue
		}
		answered := uint32(bpf.BlixtFlowFlagFLOW_ANSWERED)
		switch r.IntN(9) {
		case 0:
			f.Flags |= answered
			back.Flags |= answered
		case 1:
			f.LastSeen -= 200
			back.LastSeen -= 200
		case 2:
			f.LastSeen -= 20
			back.LastSeen -= 20
		case 3:
			r.w.must(m.Delete(reply))
			continue
		case 4:
			f.LastSeen -= 1
		case 5:
			f.Flags |= uint32(bpf.BlixtFlowFlagFLOW_CLOSED)
			back.Flags |= uint32(bpf.BlixtFlowFlagFLOW_CLOSED | bpf.BlixtFlowFlagFLOW_RST)
		case 6:
			f.Flags |= uint32(bpf.BlixtFlowFlagFLOW_CLOSED)
			back.Flags |= uint32(bpf.BlixtFlowFlagFLOW_CLOSED)
		default:
			if table == "udp" {
				continue
			}
			f.Flags |= answered | datapath.FlowEstablished
			back.Flags |= datapath.FlowEstablished
			r.w.must(o.Flows.Put(key, f))
			r.w.must(o.Flows.Put(reply, back))
			r.w.must(m.Delete(key))
			r.w.must(m.Delete(reply))
			continue
		}
		r.w.must(m.Put(key, f))
		r.w.must(m.Put(reply, back))
	}
	for range 2 { // a backend ends, or does not serve any more
		id := 1 + r.Uint32N(250)
		var b bpf.BlixtBackend
		r.w.must(o.Backends.Lookup(id, &b))
		if b.Flags ^= datapath.BackendNotServing; r.IntN(2) == 0 {
			b.Generation++
		}
		r.w.must(o.Backends.Put(id, b))
	}
	for id := range uint32(40) { // time refills buckets, and flows end or are established
		s := bpf.BlixtPolicyState{Concurrent: r.Uint32N(12)}
		r.w.must(o.PolicyStates.Put(id, s))
	}
	var c bpf.BlixtConfig
	r.w.must(o.BlixtLayout2.Lookup(uint32(0), &c))
	c.Flags = pick(r, []uint32{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, datapath.ConfigDrain, datapath.ConfigUpgrading})
	r.w.must(o.BlixtLayout2.Put(uint32(0), c))
	var tell bpf.BlixtAnnounceConfig
	if r.IntN(2) == 0 {
		tell.Flags = datapath.AnnouncingTell
	}
	r.w.must(o.Announcing.Put(uint32(0), tell))
}

// TestTraceSaysWhatTheProgramDoes asks where a packet would go, then has the program
// serve that packet: for random packets in random states.
func TestTraceSaysWhatTheProgramDoes(t *testing.T) {
	w := newWorld(t)
	w.seen("lo") // else all neighbours were silent soon: packets of a test run go nowhere
	agrees(t, w, tuples)
}

// TestTraceHeedsRules does the same where rules choose among tables of routes, and
// neighbours are silent.
func TestTraceHeedsRules(t *testing.T) {
	w := newWorld(t)
	w.policy()
	agrees(t, w, tuples/5)
}

func agrees(t *testing.T, w *world, tuples int) {
	var err error
	w.network, err = NewHost()
	w.must(err)
	w.seen("outside")
	w.seen("inside")
	for _, at := range []string{"192.0.2.1:443", "[2001:db8::1]:443"} { // processes of the host
		l, err := net.Listen("tcp", at)
		w.must(err)
		t.Cleanup(func() { l.Close() })
		u, err := net.ListenPacket("udp", at)
		w.must(err)
		t.Cleanup(func() { u.Close() })
	}
	r := &random{Rand: rand.New(rand.NewPCG(1, 2)), w: w}
	r.state()
	ends := map[string]int{}
	differences := 0
	var known []sent // of flows that are in the tables, perhaps
	for done := 0; done < tuples; {
		if done%250 == 0 {
			w.calm()
			r.disturb()
		}
		q := sent{TraceQuery: r.query()}
		switch r.IntN(8) {
		case 0, 1:
			if len(known) > 0 {
				q = pick(r, known)
			}
		case 2:
			q = r.leaving()
		}
		if w.network.Rules(true) && q.Interface == "dot.100" && (pods4.Contains(q.Client.Addr()) || pods6.Contains(q.Client.Addr())) {
			continue // two rules are about it: the kernel does not tell what the program asks for
		}
		began := programsTicks(t)
		got, err := w.tables.Trace(q.TraceQuery, Options{Network: w.network, from: q.from, ticks: func() uint32 { return began }})
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		if w.network.Rules(true) && q.Interface == "dot.100" && got.Counter == "reject_unreachable" {
			continue // a rule about the interface leads past the silent neighbour of which the trace knows
		}
		blind, err := w.tables.Trace(q.TraceQuery, Options{ticks: func() uint32 { return began }})
		w.must(err)
		if got.Ended != "" {
			w.forgetSlots()
		}
		out, counted := w.run(q.Interface, q.from, w.frame(q.Interface, lb.Protocol(protocolNumber(q.Protocol)), q.Client, q.Server, size(q.TraceQuery)))
		if programsTicks(t) != began {
			continue // another tick: the program may have judged otherwise
		}
		done++
		if got.Verdict == Forwarded {
			known = append(known[max(0, len(known)-500):], q)
		}
		ends[got.Counter]++
		if got.Ended != "" {
			ends["ended: "+got.Ended]++
		} else if got.Flow != nil {
			ends["known flow "+got.Flow.State]++
		}
		if got.Way != "" {
			ends["way "+got.Way]++
		}
		if d := differs(q, got, blind); d != "" {
			t.Fatalf("%s %s -> %s: without routes: %s", q.Protocol, q.Client, q.Server, d)
		}
		if d := w.compare(q.TraceQuery, got, out, counted); d != "" {
			differences++
			text, _ := json.Marshal(got)
			t.Errorf("%s %s -> %s by %s (%s), %d bytes: %s\n%s", q.Protocol, q.Client, q.Server, q.Interface, got.Hook, size(q.TraceQuery), d, text)
			if differences == 20 {
				t.Fatal("and so on")
			}
		}
	}
	t.Logf("%d tuples: %v", tuples, ends)
}

// differs returns what a trace says that knows no routes, of what does not depend on any.
func differs(q sent, got, blind *Result) string {
	if q.from != nil { // it takes all packets for such as come in
		return ""
	}
	if blind.Counter != got.Counter && !slices.Contains([]string{
		"host_listens", "reject_unreachable", "reject_too_big", "reject_protected", "drop_martian", "drop_no_route", "drop_forwarding_off", "drop_no_source",
	}, got.Counter) {
		return fmt.Sprintf("%s, not %s", blind.Counter, got.Counter)
	}
	if blind.Backend != nil && got.Backend != nil && *blind.Backend != *got.Backend {
		return fmt.Sprintf("backend %v, not %v", *blind.Backend, *got.Backend)
	}
	return ""
}

// programsTicks is now() in flow.h, whose clock is some milliseconds behind.
func programsTicks(t *testing.T) uint32 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
		t.Fatal(err)
	}
	return uint32(uint64(now.Nano()) >> datapath.TickShift)
}

func protocolNumber(name string) uint8 {
	if name == "tcp" {
		return uint8(lb.TCP)
	}
	return uint8(lb.UDP)
}

// size is the size of a query's packet.
func size(q observe.TraceQuery) int {
	least := 28
	if q.Protocol == "tcp" {
		least += 12
	}
	if q.Client.Addr().Is6() {
		least += 20
	}
	return max(q.Bytes, least)
}

// compare returns what differs between a trace and what the program did.
func (w *world) compare(q observe.TraceQuery, got *Result, out []byte, counted []bpf.BlixtCounter) string {
	all := names(counted)
	if !slices.Contains(all, got.Counter) {
		return fmt.Sprintf("the program counts %v", all)
	}
	src, dst := tuple(out)
	if got.Verdict != Forwarded || got.Counter == "fragmented" {
		return ""
	}
	if dst != got.Backend.Address {
		return fmt.Sprintf("the program sends it to %s", dst)
	}
	want := q.Client
	if s := got.SNAT; s != nil {
		want = netip.AddrPortFrom(s.Address, s.Port)
		if s.Port == 0 {
			want = netip.AddrPortFrom(s.Address, src.Port())
		}
	}
	if src != want {
		return fmt.Sprintf("the program sends it from %s", src)
	}
	key := bpf.BlixtFlowKey{Src: datapath.ToAddr(q.Client.Addr()), Dst: datapath.ToAddr(q.Server.Addr()), Sport: datapath.ToPort(q.Client.Port()), Dport: datapath.ToPort(q.Server.Port()), Protocol: protocolNumber(q.Protocol)}
	var f bpf.BlixtFlow
	m := w.objects.UdpFlows
	if q.Protocol == "tcp" {
		if m = w.objects.NewFlows; m.Lookup(key, &f) != nil {
			m = w.objects.Flows
		}
	}
	w.must(m.Lookup(key, &f))
	if f.Backend != got.Backend.ID || f.Generation != got.Backend.Generation {
		return fmt.Sprintf("the flow has backend %d of generation %d", f.Backend, f.Generation)
	}
	if way := wayOf(bpf.BlixtFlowFlag(f.Flags)).name; way != got.Way && got.Way != wayForwarded.name {
		return "the flow has the way " + way
	}
	if hop := got.NextHop; hop != nil && got.Way == "remote" && !w.network.Rules(q.Client.Addr().Is6()) && w.index[hop.Interface] != int(f.Ifindex) && got.Flow == nil {
		return fmt.Sprintf("the flow leaves by interface %d", f.Ifindex)
	}
	return ""
}
