// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A contender is a program that is measured.
type contender struct {
	name    string
	program *ebpf.Program
	verdict uint32
}

// floorName is the name of the contender by which the program is judged.
const floorName = "floor"

// anyVerdict is for packets that are answered, or dropped if answers are too many.
const anyVerdict = 99

// A least is the shortest time of several.
type least time.Duration

func (l *least) add(d time.Duration) {
	if *l == 0 || least(d) < *l {
		*l = least(d)
	}
}

// run has a contender get packets, and returns how long it took.
func (t *template) run(b *testing.B, lab *lab, h hook, c contender, packets uint32) time.Duration {
	b.Helper()
	took, verdict, err := t.time(lab, h, c.program, packets)
	if err != nil {
		b.Fatal(err)
	}
	if verdict != c.verdict && c.verdict != anyVerdict {
		b.Fatalf("%s: verdict %d, want %d", c.name, int32(verdict), int32(c.verdict))
	}
	return took
}

// rounds has a benchmark do something for as long as it is meant to take, and
// several times in any case.
func rounds(b *testing.B, do func()) {
	n := 0
	for ; b.Loop(); n++ {
		do()
	}
	for ; n < 5; n++ {
		do()
	}
}

// measure reports the net time that a packet takes in each contender: the time
// with the program less the time without it. The first contender is the one that
// matters, and the second one may be the floor, to which it reports the ratio. Each is the least of all rounds, and
// each round has a turn of everyone, so that slow phases of the machine hit all
// alike. before, if any, precedes each round.
func (t *template) measure(b *testing.B, lab *lab, h hook, packets uint32, before func(), contenders ...contender) {
	b.Helper()
	pass := contender{"harness", t.pass, tcxNext}
	for _, c := range contenders {
		t.run(b, lab, h, c, packets) // warms its tables up
	}
	var without least
	times := make([]least, len(contenders))
	var interrupted least
	rounds(b, func() {
		if before != nil {
			before()
		}
		without.add(t.run(b, lab, h, pass, packets))
		for i, c := range contenders {
			if i > 0 || t.warm == 0 {
				times[i].add(t.run(b, lab, h, c, packets))
				continue
			}
			tick := now(b).tick()
			t.run(b, lab, h, c, t.warm)
			took := t.run(b, lab, h, c, packets)
			if now(b).tick() == tick {
				times[0].add(took)
			} else {
				interrupted.add(took)
			}
		}
	})
	if times[0] == 0 { // the machine is so slow, or so busy, that each turn has had first packets
		times[0] = interrupted
	}
	each := func(l least) float64 { return float64(l) / float64(packets) }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(each(without), "harness-ns/packet")
	b.ReportMetric(each(times[0]-without), "net-ns/packet")
	for i, c := range contenders[1:] {
		b.ReportMetric(each(times[1+i]-without), c.name+"-ns/packet")
	}
	if len(contenders) > 1 && contenders[1].name == floorName {
		b.ReportMetric(float64(times[0]-without)/float64(times[1]-without), "ratio")
	}
}

// A moment is a time by the program's clock, in nanoseconds.
type moment int64

func now(b *testing.B) moment {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil { // bpf_ktime_get_coarse_ns
		b.Fatal(err)
	}
	return moment(t.Nano())
}

func (m moment) tick() int64 { return int64(m) >> BlixtClockTICK_SHIFT }

func (m moment) untilNextTick() time.Duration {
	const tick = 1 << BlixtClockTICK_SHIFT
	return time.Duration(tick - int64(m)%tick)
}

// measureFirst reports what the packets take that are the first of their flows
// in a tick: they are the ones that check all that may have changed meanwhile.
// Traffic does not pause, so that the CPU's caches are as warm as they get: in the
// turn in which a tick begins, and the one that follows it, each flow has one first
// packet and one that is not.
func (t *template) measureFirst(b *testing.B, lab *lab, h hook, flows uint32, c contender) {
	b.Helper()
	var both, other, without least
	for range 3 {
		lead := 10*time.Millisecond + time.Duration(flows)*2*time.Microsecond
		time.Sleep(now(b).untilNextTick() - lead)
		for begun := false; !begun; {
			without.add(t.run(b, lab, h, contender{"harness", t.pass, tcxNext}, flows))
			tick := now(b).tick()
			took := t.run(b, lab, h, c, flows)
			begun = now(b).tick() != tick
			if begun {
				both.add(took + t.run(b, lab, h, c, flows))
			} else {
				other.add(took)
			}
		}
	}
	b.ReportMetric(float64(both-other-without)/float64(flows), "first-ns/packet")
}

// benchLab is a lab that knows all backends and routers there are in benchmarks.
var benchLab = sync.OnceValues(func() (*lab, error) {
	return newLab(func(l *lab) error {
		if err := l.configure(); err != nil {
			return err
		}
		for dev, addrs := range map[string][]string{outside: {"192.0.2.254", "2001:db8::254"}, inside: {"10.1.0.10", "fd00:1::10"}} {
			for _, a := range addrs {
				addr := netip.MustParseAddr(a).AsSlice()
				for range 64 {
					n := &netlink.Neigh{LinkIndex: int(l.devices[dev]), State: netlink.NUD_PERMANENT, IP: addr, HardwareAddr: farMAC[:]}
					if err := netlink.NeighSet(n); err != nil {
						return err
					}
					addr[len(addr)-1]++
				}
			}
		}
		return nil
	})
})

// establishMany copies the entries of one established flow for n clients. If the
// source is translated, there are more backends, too, as one has not so many ports.
// The flows of the forward direction differ in their source, those of the
// reverse direction in what replyVariety tells.
func establishMany(b *testing.B, objs *BlixtObjects, forward, reply packet, n uint32) {
	b.Helper()
	var f, r BlixtFlow
	table := objs.Flows
	if forward.protocol == unix.IPPROTO_UDP {
		table = objs.UdpFlows
	}
	for key, value := range map[BlixtFlowKey]*BlixtFlow{keyOf(forward): &f, keyOf(reply): &r} {
		if err := table.Lookup(key, value); err != nil {
			b.Fatal(err)
		}
	}
	f.IdleTicks, r.IdleTicks = 1<<30, 1<<30
	var keys []BlixtFlowKey
	var entries []BlixtFlow
	for i := range n {
		more := byte(i / portsEach)
		f, r, fk, rk := f, r, keyOf(forward), keyOf(reply)
		fk.Sport = htons(uint16(1024 + i%portsEach))
		fk.Src.Bytes[15] += more
		f.Sport = fk.Sport
		switch flags := BlixtFlowFlag(f.Flags); {
		case flags&BlixtFlowFlagFLOW_UNDONE != 0:
			f.Src.Bytes[15] += more
		case flags&BlixtFlowFlagFLOW_SNAT == 0:
			f.Src = fk.Src
		default:
			f.Dst.Bytes[15] += more
		}
		rk.Src, rk.Dst, rk.Dport = f.Dst, f.Src, f.Sport
		r.Dst, r.Dport = fk.Src, fk.Sport
		f.Tag, r.Tag = FlowTag(fk), FlowTag(rk)
		keys, entries = append(keys, fk, rk), append(entries, f, r)
		if len(keys) < 4096 && i < n-1 {
			continue
		}
		for i := range keys {
			announceEntry(b, objs, keys[i], entries[i])
		}
		if _, err := table.BatchUpdate(keys, entries, nil); err != nil {
			b.Fatal(err)
		}
		keys, entries = keys[:0], entries[:0]
	}
}

// announceEntry sets the bits of an entry in `interest`: see announce_entry in interest.h.
func announceEntry(b *testing.B, objs *BlixtObjects, k BlixtFlowKey, f BlixtFlow) {
	b.Helper()
	l := &lb{TB: b, BlixtObjects: objs}
	switch flags := BlixtFlowFlag(f.Flags); {
	case flags&(BlixtFlowFlagFLOW_REPLY|BlixtFlowFlagFLOW_UNDONE) == BlixtFlowFlagFLOW_UNDONE:
		l.interested(k.Src, BlixtInterestFlagINTEREST_PEER)
	case flags&BlixtFlowFlagFLOW_REPLY == 0:
		l.interested(k.Dst, BlixtInterestFlagINTEREST_VIP)
	case flags&BlixtFlowFlagFLOW_EGRESS != 0:
		l.interested(k.Src, BlixtInterestFlagINTEREST_FROM)
	default:
		l.interested(k.Dst, BlixtInterestFlagINTEREST_HOST)
	}
}

// replyVariety tells what differs between the replies of the flows of establishMany.
func replyVariety(snat bool) variety {
	return variety{destinationAddress: !snat, destinationPort: true}
}

// A world is what the packets of a benchmark pass through.
type world struct {
	lab    *lab
	objs   *BlixtObjects
	floors *floors
}

// newWorld loads the program with flow tables of these sizes, and the floors with
// tables of as many entries and a cache of that many sets.
func newWorld(b *testing.B, sizes map[string]uint32, floorFlows, sets uint32) world {
	b.Helper()
	lab, err := benchLab()
	if err != nil {
		b.Fatal(err)
	}
	objs, err := load(func(spec *ebpf.CollectionSpec) {
		shrinkTables(spec) // all but the tables whose size matters
		for table, size := range sizes {
			spec.Maps[table].MaxEntries = size
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = objs.Close() })
	return world{lab, objs, loadFloors(b, floorFlows, sets)}
}

// start returns the data plane with empty tables.
func (w world) start(b *testing.B) *lb {
	b.Helper()
	l := startLB(b, w.objs, nil)
	l.lab = w.lab
	return l
}

// BenchmarkPacket measures the time that the program takes for a packet, on the
// CPU alone: no device sends or receives.
//
//	net     of the program, for a packet whose flow has had one in the same tick; of
//	        1<<20 flows nearly each packet is the first in its tick
//	first   of the first packet of each flow in a tick. A flow of which there are
//	        n packets in a tick costs first + (n - 1) * net in it
//	floor   of a small program that finds the frontend in a hash table and the flow
//	        in an LRU table, and does nothing else
//	ratio   net to floor
//	stateless, cache, parse: of the other programs of package floor
//
// The number of flows is that of the flows that the packets belong to, in turns.
// The tables of many flows are new for each benchmark. Entries of the floor lie in
// memory in the order of the packets, which is kind to it; in a table that has been
// in use it may take twice as long.
// Where it says "bulk", each is a full segment with the next sequence number. A
// "partial" checksum is one that looks as if the device had to complete it: a test
// run has none that are.
func BenchmarkPacket(b *testing.B) {
	worldFor := func(b *testing.B, flows, sets uint32) world {
		sizes := FlowTables(flows)
		sizes[BlixtMapUdpFlows] = sizes[BlixtMapFlows] // it has less room by default
		return newWorld(b, sizes, sizes[BlixtMapFlows], sets)
	}
	usual := func(b *testing.B) world { return worldFor(b, uint32(BlixtLimitMAX_FLOWS), 1<<16) }
	one := sync.OnceValue(func() world { return usual(b) })
	shared := func(*testing.B) world { return one() }
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for _, flows := range []uint32{1, 1 << 10, 1 << 16} {
				w := shared
				if flows == 1<<16 {
					w = usual
				}
				benchmarkFlows(b, w, ip, protocol, flows)
				benchmarkOthers(b, shared, ip, protocol, flows)
			}
		}
	}
	// Room for an eighth more than there are: LRU tables evict before they are full.
	large := func(b *testing.B) world { return worldFor(b, 9<<17, 1<<19) }
	for _, ip := range ipVersions {
		benchmarkFlows(b, large, ip, unix.IPPROTO_TCP, 1<<20)
	}
	benchmarkFlows(b, large, ipVersions[0], unix.IPPROTO_UDP, 1<<20)
}

// packetsOf returns how many packets of that many flows a turn has: several of
// each, as the first ones find in the CPU's caches what the other contenders need.
func packetsOf(flows uint32) uint32 { return min(max(50000, 4*flows), 1<<18) }

// benchmarkFlows measures packets of established flows.
func benchmarkFlows(b *testing.B, w func(*testing.B) world, ip ipVersion, protocol uint8, flows uint32) {
	vip, other := port(ip.vip, "80"), port(ip.vip, "81")
	toLocal, toRemote := establishing(protocol, ip.client, vip), establishing(protocol, ip.client, other)
	node := netip.AddrPortFrom(netip.MustParseAddr(ip.nodeIn), 1024).String()
	fromLocal, fromRemote := continuing(protocol, ip.local, ip.client), continuing(protocol, ip.remote, node)
	atClients, forwarded := hook{dev: outside}, hook{dev: outside, egress: true, from: pods}

	run := func(name string, p packet, h hook, advance bool) {
		remotely := p.dst == toRemote.dst || p.src == fromRemote.src
		reply := p.src == fromLocal.src || p.src == fromRemote.src
		b.Run(fmt.Sprintf("%s/%s%s/flows=%d", name, protocolName(protocol), ip.name[2:], flows), func(b *testing.B) {
			w := w(b)
			l := w.start(b)
			l.serve(ip, protocol, local)
			verdict, backend := uint32(tcxNext), ip.local
			frontend := vip
			if remotely {
				l.frontend(1, protocol, other, remote)
				verdict, backend, frontend = redirect, ip.remote, other
				l.must(w.objs.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: 1024, SnatMax: 1024 + portsEach - 1}))
				l.ingress(outside, opening(protocol, ip.client, other)).wantVerdict(redirect, "flow_new forwarded")
				_, f := l.flow(toRemote)
				first := answer(protocol, ip.remote, addrPort(ap(node).Addr(), int(htons(f.Sport))).String())
				l.ingress(inside, first).wantVerdict(redirect, "replied")
				l.ingress(outside, toRemote).wantVerdict(redirect, "forwarded"+andEstablished(protocol))
				establishMany(b, w.objs, toRemote, first, flows)
			} else {
				l.openFlow(ip, protocol, true)
				establishMany(b, w.objs, toLocal, answer(protocol, ip.local, ip.client), flows)
			}
			f := w.floors
			f.reset()
			v := variety{}
			floors := []contender{{floorName, f.ConntrackForward, tcxNext}, {"stateless", f.StatelessForward, tcxNext},
				{"cache", f.FlowCacheForward, tcxNext}}
			if reply {
				v = replyVariety(remotely)
				floors = []contender{{floorName, f.ConntrackReply, tcxNext}, {"stateless", f.StatelessReply, tcxNext},
					{"cache", f.FlowCacheReply, tcxNext}}
				addr := ap(backend).Addr()
				for range max(1, flows/portsEach) {
					f.serve(protocol, addrPort(addr, int(ap(backend).Port())).String(), frontend)
					addr = addr.Next()
				}
			} else {
				f.serve(protocol, frontend, backend)
			}
			t := newTemplateOf(b, p, v, flows)
			if advance {
				t.advance(p)
			}
			if flows <= 1<<16 {
				t.warm = flows
			}
			own := contender{"net", w.objs.Blixt, verdict}
			for seen := uint32(0); seen < flows; seen += packetsOf(flows) { // all flows are warm, or as warm as they can be
				for _, c := range append(floors, own) {
					t.run(b, w.lab, h, c, packetsOf(flows))
				}
			}
			t.measure(b, w.lab, h, packetsOf(flows), nil, append([]contender{own}, append(floors, contender{"parse", f.ParseOnly, tcxNext})...)...)
			if 1<<10 <= flows && flows <= 1<<16 && !advance {
				t.measureFirst(b, w.lab, h, flows, own)
			}
		})
	}
	run("local", toLocal, atClients, false)
	run("remote", toRemote, atClients, false)
	run("local-reply", fromLocal, forwarded, false)
	run("remote-reply", fromRemote, hook{dev: inside}, false)
	if flows > 1<<16 {
		return
	}
	if protocol == unix.IPPROTO_TCP {
		run("local-bulk", toLocal.withSize(1440), atClients, true)
		run("remote-bulk", toRemote.withSize(1440), atClients, true)
		run("local-reply-bulk", fromLocal.withSize(1440), forwarded, true)
		run("remote-reply-bulk", fromRemote.withSize(1440), hook{dev: inside}, true)
	} else if !toLocal.v6() {
		toLocal.zero, toRemote.zero = true, true
		run("local-unchecked", toLocal, atClients, false)
		run("remote-unchecked", toRemote, atClients, false)
		toLocal.zero, toRemote.zero = false, false
	}
	if flows <= portsEach { // of one address: the sum is that of the addresses
		toLocal.partial, toRemote.partial = true, true
		run("local-partial", toLocal, atClients, false)
		run("remote-partial", toRemote, atClients, false)
	}
}

// benchmarkOthers measures packets that belong to no flow.
func benchmarkOthers(b *testing.B, w func(*testing.B) world, ip ipVersion, protocol uint8, flows uint32) {
	run := func(name string, p packet, h hook, config BlixtConfig) {
		b.Run(fmt.Sprintf("%s/%s%s/flows=%d", name, protocolName(protocol), ip.name[2:], flows), func(b *testing.B) {
			w := w(b)
			l := w.start(b)
			l.serve(ip, protocol, local)
			l.must(w.objs.BlixtLayout2.Put(uint32(0), config))
			newTemplate(b, p, flows).measure(b, w.lab, h, packetsOf(flows), nil,
				contender{"net", w.objs.Blixt, tcxNext}, contender{"parse", w.floors.ParseOnly, tcxNext})
		})
	}
	stranger := map[string]string{"IPv4": "203.0.113.99:80", "IPv6": "[2001:db8:f::99]:80"}[ip.name]
	pod := map[string]string{"IPv4": "10.7.0.7:40000", "IPv6": "[fd00:7::7]:40000"}[ip.name]
	usual := BlixtConfig{SnatMin: snatMin, SnatMax: snatMax}
	ours := BlixtConfig{SnatMin: 1024, SnatMax: 1024 + portsEach - 1}
	out := hook{dev: inside, egress: true, from: pods}
	run("miss", establishing(protocol, ip.client, stranger), hook{dev: outside}, usual)
	run("miss-egress", establishing(protocol, pod, stranger), hook{dev: outside, egress: true, from: pods}, usual)
	// The host's own packets, from ports outside of the SNAT range and from ports in it.
	own := establishing(protocol, port(ip.nodeIn, "1024"), ip.remote)
	run("host", own, out, usual)
	run("host-in-range", own, out, ours)
	if flows == 1<<16 {
		run("host-in-range-new", opening(protocol, own.src.String(), ip.remote), out, ours)
	}
}

// TestVerifiedInstructions limits the work of the verifier.
func TestVerifiedInstructions(t *testing.T) {
	l := newLB(t)
	info, err := l.Blixt.Info()
	l.must(err)
	n, ok := info.VerifiedInstructions()
	if !ok {
		t.Fatal("the kernel does not report how many instructions it has verified")
	}
	loaded, err := info.Instructions()
	l.must(err)
	t.Logf("%d instructions verified, %d loaded", n, len(loaded))
	// The verifier gives up at a million. Older verifiers follow more paths than this one.
	if n > 300_000 {
		t.Errorf("%d instructions verified, want at most 300_000", n)
	}
}
