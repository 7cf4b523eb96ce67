// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// How long tuples are left alone, in ticks: limits.h.
const (
	timeWaitTicks  = 60_000_000_000 >> 30
	handshakeTicks = 10_000_000_000 >> 30
)

// tick is the time in ticks.
func (l *lb) tick() uint32 {
	l.Helper()
	var t unix.Timespec
	l.must(unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t)) // as bpf_ktime_get_coarse_ns
	return uint32(t.Nano() >> BlixtClockTICK_SHIFT)
}

// A holding is a flow that has a source port of ours, by what became of it.
type holding struct {
	flags       BlixtFlowFlag // of both entries
	reply       BlixtFlowFlag // of the reply entry
	established bool
	ago         uint32 // ticks since its last packet
}

const (
	closedFlag = BlixtFlowFlagFLOW_CLOSED
	answered   = BlixtFlowFlagFLOW_ANSWERED
	resetFlag  = BlixtFlowFlagFLOW_RST
	finFlag    = BlixtFlowFlagFLOW_FIN
)

// holdings are in the order in which new flows replace them; those of one rank
// have no order among themselves.
var holdings = map[string]struct {
	holding
	rank int
}{
	"refused":           {holding{flags: closedFlag, reply: resetFlag}, 1},
	"reset":             {holding{flags: closedFlag | answered, reply: resetFlag}, 1},
	"closed long ago":   {holding{flags: closedFlag | answered | finFlag, ago: timeWaitTicks + 2}, 1},
	"closed just now":   {holding{flags: closedFlag | answered | finFlag}, 2},
	"handshake hangs":   {holding{ago: handshakeTicks + 2}, 2},
	"handshake goes on": {holding{}, 3},
	"live":              {holding{flags: answered, established: true}, 4},
}

// hold makes a flow of another client have the port towards the remote backend.
func (l *lb) hold(ip ipVersion, protocol uint8, source uint16, h holding) (reply packet) {
	l.Helper()
	client := netip.AddrPortFrom(ap(ip.client).Addr().Next(), source)
	in := proto(protocol, client.String(), port(ip.vip, "80"))
	out := in.from(addrPort(netip.MustParseAddr(ip.nodeIn), int(source)).String()).to(ip.remote)
	reply = out.reversed()
	f := BlixtFlow{Src: addrOf(out.src.Addr()), Dst: addrOf(out.dst.Addr()), Sport: htons(source), Dport: htons(out.dst.Port()),
		Backend: remote, Generation: 1, LastSeen: l.tick() - h.ago, IdleTicks: 1 << 20, Flags: uint32(BlixtFlowFlagFLOW_SNAT | h.flags)}
	r := f
	r.Src, r.Dst, r.Sport, r.Dport = addrOf(in.dst.Addr()), addrOf(in.src.Addr()), htons(in.dst.Port()), htons(in.src.Port())
	r.Flags |= uint32(BlixtFlowFlagFLOW_REPLY | h.reply)
	table := l.NewFlows
	if protocol == unix.IPPROTO_UDP {
		table = l.UdpFlows
		if h.established {
			r.Flags |= uint32(answered)
		}
	} else if h.established {
		table = l.Flows
		f.Flags |= uint32(BlixtFlowFlagFLOW_ESTABLISHED)
		r.Flags |= uint32(BlixtFlowFlagFLOW_ESTABLISHED)
	}
	f.Tag, r.Tag = FlowTag(keyOf(in)), FlowTag(keyOf(reply))
	l.must(table.Put(keyOf(in), f))
	l.must(table.Put(keyOf(reply), r))
	return reply
}

// ports sets the source ports.
func (l *lb) ports(first, last uint16) {
	l.Helper()
	l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: first, SnatMax: last}))
}

// sourcePort returns the source port with which a packet has left.
func (r *result) sourcePort() uint16 {
	return binary.BigEndian.Uint16(r.out[len(r.out)-len(r.in.layer4()):])
}

// nthClient is one of many clients.
func nthClient(ip ipVersion, n int) string {
	return addrPort(ap(ip.client).Addr(), 2000+n).String()
}

// openNth establishes a flow of the n-th client to the remote backend, and
// returns its source port.
func (l *lb) openNth(ip ipVersion, protocol uint8, n int) uint16 {
	l.Helper()
	client, vip := nthClient(ip, n), port(ip.vip, "80")
	r := l.ingress(outside, opening(protocol, client, vip))
	r.wantVerdict(redirect, "flow_new forwarded")
	if l.Failed() {
		l.FailNow()
	}
	source := r.sourcePort()
	l.ingress(inside, answer(protocol, ip.remote, addrPort(netip.MustParseAddr(ip.nodeIn), int(source)).String())).wantVerdict(redirect, "replied")
	l.ingress(outside, establishing(protocol, client, vip)).wantVerdict(redirect, "forwarded"+andEstablished(protocol))
	return source
}

// Each new flow finds one of the last free ports, whoever has the others.
func TestEveryFreePortIsFound(t *testing.T) {
	const first, ports = 30000, 1000
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, free := range []int{1, 2, 7, 40} {
			t.Run(fmt.Sprintf("%s, %d of %d", protocolName(protocol), free, ports), func(t *testing.T) {
				l := newLB(t)
				ip := ipVersions[0]
				l.serve(ip, protocol, remote)
				l.ports(first, first+ports-1)
				isFree := map[uint16]bool{}
				random := rand.New(rand.NewPCG(1, uint64(free)))
				for i, n := range random.Perm(ports) {
					if i < free {
						isFree[uint16(first+n)] = true
						continue
					}
					l.hold(ip, protocol, uint16(first+n), holdings["live"].holding)
				}
				for i := range free {
					source := l.openNth(ip, protocol, i)
					if !isFree[source] {
						t.Fatalf("flow %d of %d has port %d, which was not free", i+1, free, source)
					}
					delete(isFree, source)
				}
				l.ingress(outside, opening(protocol, nthClient(ip, free), port(ip.vip, "80"))).wantVerdict(redirect, "reject_ports_exhausted")
			})
		}
	}
}

// The one free port of a large range is found, and it does not take long.
func TestOneFreePortOfManyIsFound(t *testing.T) {
	const first, ports = 11000, 50000
	objs, err := load(func(spec *ebpf.CollectionSpec) {
		shrinkTables(spec)
		spec.Maps["flows"].MaxEntries = 2 * (ports + 1)
	})
	l := startLB(t, objs, err)
	t.Cleanup(func() { _ = objs.Close() })
	ip, protocol := ipVersions[0], uint8(unix.IPPROTO_TCP)
	l.serve(ip, protocol, remote)
	l.ports(first, first+ports-1)
	free := uint16(first + rand.IntN(ports))
	for n := range ports {
		if source := uint16(first + n); source != free {
			l.hold(ip, protocol, source, holdings["live"].holding)
		}
	}
	begin := time.Now()
	if got := l.openNth(ip, protocol, 0); got != free {
		t.Errorf("port %d, want %d, the only free one", got, free)
	}
	l.ingress(outside, opening(protocol, nthClient(ip, 1), port(ip.vip, "80"))).wantVerdict(redirect, "reject_ports_exhausted")
	t.Logf("a flow began and another was rejected within %v", time.Since(begin))
}

// However many ports are taken, and by whom, new flows begin as long as somebody may be replaced.
func TestFlowsBeginWhereverPortsAreTaken(t *testing.T) {
	const first, ports = 30000, 500
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, name := range slices.Sorted(maps.Keys(holdings)) {
			if protocol == unix.IPPROTO_UDP && holdings[name].flags&closedFlag != 0 {
				continue // datagrams close nothing
			}
			for _, percent := range []int{0, 50, 72, 90, 99, 100} {
				t.Run(fmt.Sprintf("%s %s, %d %%", protocolName(protocol), name, percent), func(t *testing.T) {
					l := newLB(t)
					ip := ipVersions[0]
					l.serve(ip, protocol, remote)
					l.ports(first, first+ports-1)
					taken := ports * percent / 100
					var held []packet
					for _, n := range rand.New(rand.NewPCG(1, 2)).Perm(ports)[:taken] {
						held = append(held, l.hold(ip, protocol, uint16(first+n), holdings[name].holding))
					}
					const clients = 5
					if name == "live" && taken == ports {
						r := l.ingress(outside, opening(protocol, nthClient(ip, 0), port(ip.vip, "80")))
						r.wantVerdict(redirect, "reject_ports_exhausted")
						if protocol == unix.IPPROTO_TCP { // the answer to a SYN
							r.wantPacket(r.in.rstAnswer(rst|ack, 0, 1001))
						}
					} else {
						for n := range clients {
							l.openNth(ip, protocol, n)
						}
					}
					gone := 0
					for _, p := range held {
						if _, f := l.flow(p); addrOf(ap(ip.client).Addr().Next()) != f.Dst {
							gone++
						}
					}
					if free := ports - taken; free >= clients && holdings[name].rank > 1 && gone > 0 {
						t.Errorf("%d flows were replaced, though %d ports were free", gone, free)
					}
					if name == "live" && gone > 0 {
						t.Errorf("%d live flows were replaced", gone)
					}
				})
			}
		}
	}
}

// Of those whose port a flow may take it takes one that is missed least, and
// never that of a live flow.
func TestWhoIsReplaced(t *testing.T) {
	const first, ports = 30000, 200
	l := newLB(t)
	ip, protocol := ipVersions[0], uint8(unix.IPPROTO_TCP)
	for run := range 10 {
		l.clear()
		l.serve(ip, protocol, remote)
		l.ports(first, first+ports-1)
		rankOf := map[uint16]int{}
		order := rand.New(rand.NewPCG(uint64(run), 3)).Perm(ports)
		for _, name := range slices.Sorted(maps.Keys(holdings)) {
			if name != "live" {
				source := uint16(first + order[len(rankOf)])
				rankOf[source] = holdings[name].rank
				l.hold(ip, protocol, source, holdings[name].holding)
			}
		}
		for _, n := range order[len(rankOf):] {
			l.hold(ip, protocol, uint16(first+n), holdings["live"].holding)
		}
		last := 0
		for n := range len(rankOf) {
			got := rankOf[l.openNth(ip, protocol, 100*run+n)]
			if got < last || got == 0 {
				t.Fatalf("run %d: flow %d replaces one of rank %d, after one of %d", run, n, got, last)
			}
			last = got
		}
		l.ingress(outside, opening(protocol, nthClient(ip, 1000), port(ip.vip, "80"))).wantVerdict(redirect, "reject_ports_exhausted")
	}
}

// In a tick, a backend without a port costs a limited number of looks.
func TestScansAreLimited(t *testing.T) {
	const first, ports = 30000, 1000
	l := newLB(t)
	ip, protocol := ipVersions[0], uint8(unix.IPPROTO_TCP)
	l.serve(ip, protocol, remote)
	l.ports(first, first+ports-1)
	for n := range ports {
		l.hold(ip, protocol, uint16(first+n), holdings["live"].holding)
	}
	const limit = 65536 // SCAN_LIMIT
	search := func() (s BlixtPortSearch) {
		l.must(l.PortSearches.Lookup(uint32(2*remote), &s))
		return s
	}
	for begin := l.tick(); ; begin = l.tick() { // all of it in one tick
		for n := range limit/ports + 50 {
			if r := l.ingress(outside, opening(protocol, nthClient(ip, n), port(ip.vip, "80"))); r.counts["reject_ports_exhausted"]+r.counts["drop_answer_limit"] != 1 {
				t.Fatalf("counters %v, want reject_ports_exhausted", r.counts)
			}
		}
		if s := search(); l.tick() == begin {
			if s.Scanned < limit || s.Scanned >= limit+ports {
				t.Errorf("%d ports scanned in one tick, want %d and less than a scan more", s.Scanned, limit)
			}
			return
		}
	}
}

// A refused flow keeps no port, and a half-open one keeps it only as long as a
// client goes on.
func TestRefusedAndUnansweredFlowsKeepNoPort(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		vip := port(ip.vip, "80")
		c[ip.name+" refused"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, remote)
			l.ports(snatMin, snatMin)
			l.ingress(outside, opening(unix.IPPROTO_TCP, ip.client, vip)).wantVerdict(redirect, "flow_new forwarded")
			refusal := proto(unix.IPPROTO_TCP, ip.remote, addrPort(netip.MustParseAddr(ip.nodeIn), snatMin).String()).segment(rst|ack, 0, 1001, "")
			l.ingress(inside, refusal).wantVerdict(redirect, "replied flow_closed")
			next := opening(unix.IPPROTO_TCP, nthClient(ip, 1), vip)
			l.ingress(outside, next).wantVerdict(redirect, "flow_new forwarded")
			if _, f := l.flow(refusal); f.Dport != htons(next.src.Port()) {
				l.Error("the refused flow still has its port")
			}
		}
		c[ip.name+" unanswered, of the client's own port"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			two := port(ip.shared, "80")
			l.backend(other, ip.local) // the same endpoint, of another frontend
			l.frontend(1, unix.IPPROTO_TCP, two, other)
			a := l.openFlow(ip, unix.IPPROTO_TCP, false)
			const embryonic = 63_000_000_000 >> 30 // EMBRYONIC_TICKS
			l.age(a.forward(), embryonic+1)
			l.age(a.reply(), embryonic+1)
			in := opening(unix.IPPROTO_TCP, ip.client, two)
			l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		}
	}
	c.run(t)
}

// A privileged source port is translated to a privileged one, which two
// programs side by side never share.
func TestPrivilegedPorts(t *testing.T) {
	seen := map[uint16]string{}
	ranges := map[string][2]uint16{"first half": {11000, 20499}, "second half": {20500, 29999}}
	for name, r := range ranges {
		l := newLB(t)
		for _, ip := range ipVersions {
			for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
				l.clear()
				l.serve(ip, protocol, remote)
				l.ports(r[0], r[1])
				n := 0
				for ; n < 1023; n++ {
					client := addrPort(ap(ip.client).Addr(), n+1).String()
					in := opening(protocol, client, port(ip.vip, "80"))
					got := l.ingress(outside, in)
					got.wantVerdict(redirect, "flow_new forwarded")
					source := got.sourcePort()
					if source >= 1024 {
						break // no privileged port left
					}
					if source < 600 {
						t.Fatalf("source port %d of %s: want at least 600", source, name)
					}
					if seen[source] != "" && seen[source] != name {
						t.Fatalf("the %s and the %s have port %d", name, seen[source], source)
					}
					seen[source] = name
					// It is live from now on, and its replies come back.
					out := addrPort(netip.MustParseAddr(ip.nodeIn), int(source)).String()
					l.ingress(inside, answer(protocol, ip.remote, out)).wantVerdict(redirect, "replied")
					want := "forwarded flow_established"
					if protocol == unix.IPPROTO_UDP {
						want = "forwarded"
					}
					l.ingress(outside, establishing(protocol, client, port(ip.vip, "80"))).wantVerdict(redirect, want)
				}
				if n < 60 {
					t.Errorf("%s %s: %d privileged ports, want at least 60", ip.name, protocolName(protocol), n)
				}
			}
		}
	}
}

// The host's privileged ports are not taken (NFS clients, for instance, use such ports).
func TestPrivilegedPortsOfTheHost(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		const only = 791 // of the tests' SNAT range
		source := addrPort(netip.MustParseAddr(ip.nodeIn), only).String()
		l.egressTo(inside, "", opening(proto, source, ip.remote)).untouched("not_ours")
		in := opening(proto, addrPort(ap(ip.client).Addr(), 700).String(), port(ip.vip, "80"))
		r := l.ingress(outside, in)
		r.wantVerdict(redirect, "flow_new forwarded")
		if !r.stale && r.sourcePort() < 1024 {
			l.Errorf("source port %d, which the host uses", r.sourcePort())
		}
		l.ingress(inside, answer(proto, ip.remote, source)).untouched("not_ours")
	})
	forEachProtocol(c, "other ports of the host", func(l *lb, ip ipVersion, proto uint8) {
		for _, p := range []string{"80", "599", "790", "792", "1023", "29999", "30100"} {
			l.egressTo(inside, "", opening(proto, port(ip.nodeIn, p), ip.remote)).untouched("not_ours")
		}
		if n := count(l.HostPorts); n != 0 {
			l.Errorf("%d ports reserved, want none", n)
		}
	})
	c.run(t)
}

func (l *lb) egressTo(dev, from string, p packet) *result {
	l.Helper()
	return l.send(hook{dev: dev, egress: true, from: from}, p)
}

func count(m *ebpf.Map) (n int) {
	var key, value []byte
	for it := m.Iterate(); it.Next(&key, &value); {
		n++
	}
	return n
}

// What the host forwards as it is, flows of other nodes to its pods for instance, takes no port of the host.
func TestForwardedPacketsReserveNoPort(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		l.send(hook{dev: pods, egress: true, from: inside}, opening(proto, addrPort(ap(ip.remote).Addr(), snatMin).String(), ip.local)).untouched("not_ours")
		if n := count(l.HostPorts) + count(l.MasqueradedPorts); n != 0 {
			l.Errorf("%d ports reserved, want none", n)
		}
		l.send(hook{dev: pods, egress: true, from: inside}, opening(proto, port(ip.nodePods, "30000"), ip.local)).untouched("not_ours")
		if n := count(l.MasqueradedPorts); n != 1 {
			l.Errorf("%d ports of masqueraded connections reserved, want 1", n)
		}
	})
	c.run(t)
}

// No flood evicts the ports that the host itself uses: neither of flows, nor of
// connections of pods, whose ports are the pods' choice.
func TestFloodsKeepTheHostsPorts(t *testing.T) {
	ip, protocol := ipVersions[0], uint8(unix.IPPROTO_TCP)
	flows := func(l *lb) {
		l.frontend(1, protocol, port(ip.shared, "80"), local)
		for n := range 8000 { // more than new_flows has room for
			client := addrPort(ap(ip.client).Addr().Next(), 1024+n)
			_, _, err := l.run(hook{dev: outside}, opening(protocol, client.String(), port(ip.shared, "80")).bytes(), 0)
			l.must(err)
		}
	}
	fromPods := func(l *lb) {
		for n := range 3000 { // more than masqueraded_ports has room for
			to := netip.AddrPortFrom(netip.MustParseAddr("10.1.0.99"), uint16(1+n))
			_, _, err := l.run(hook{dev: inside, egress: true, from: pods}, opening(protocol, port(ip.nodeIn, "30007"), to.String()).bytes(), 0)
			l.must(err)
		}
	}
	for name, c := range map[string]struct {
		from  string
		flood func(l *lb)
	}{
		"a socket's, flows":          {"", flows},
		"a socket's, pods":           {"", fromPods},
		"a masqueraded one's, flows": {pods, flows},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLB(t)
			l.serve(ip, protocol, remote)
			in := opening(protocol, ip.client, port(ip.vip, "80"))
			own := opening(protocol, in.snat(ip.nodeIn, 0).src.String(), ip.remote)
			l.egressTo(inside, c.from, own).untouched("not_ours")
			l.ingress(inside, answer(protocol, ip.remote, own.src.String())).untouched("not_ours")
			c.flood(l)
			l.ingress(inside, answer(protocol, ip.remote, own.src.String())).untouched("not_ours")
			if r := l.ingress(outside, in); r.sourcePort() == own.src.Port() {
				t.Errorf("a flow has port %d, which the host uses", own.src.Port())
			}
		})
	}
}

// Several CPUs look for a port at the same time, and find the same one where few are free.
// One of them gets it. The others look again: nobody is rejected as long as there is a port
// for each.
func TestPortIsFoundWhoeverElseLooks(t *testing.T) {
	for name, free := range map[string]int{"live": 2, "closed just now": 1} {
		t.Run(fmt.Sprintf("%d free, the others %s", free, name), func(t *testing.T) {
			const first, ports, rounds = 30000, 250, 10000
			l := newLB(t)
			ip, protocol := ipVersions[0], uint8(unix.IPPROTO_TCP)
			l.serve(ip, protocol, remote)
			l.ports(first, first+ports-1)
			for source := first + free; source < first+ports; source++ {
				l.hold(ip, protocol, uint16(source), holdings[name].holding)
			}
			openers := [2]*opener{l.newOpener(), l.newOpener()}
			before := l.counters()
			for round := range rounds {
				l.must(l.PortSearches.Put(uint32(2*remote), BlixtPortSearch{})) // as in a new tick
				var together atomic.Int32
				for i, o := range openers {
					o.begin <- attempt{opening(protocol, nthClient(ip, 2*(round%1000)+i), port(ip.vip, "80")), &together}
				}
				for _, o := range openers {
					out := <-o.sent
					source := sourceOf(out.frame, ip)
					for _, p := range []packet{out.in, proto(protocol, ip.remote, source)} {
						if err := l.NewFlows.Delete(keyOf(p)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
							t.Fatal(err)
						}
					}
					if source := ap(source).Port(); source >= uint16(first+free) {
						l.hold(ip, protocol, source, holdings[name].holding)
					}
				}
			}
			want := counts{"flow_new": 2 * rounds, "forwarded": 2 * rounds}
			if got := l.counters().minus(before); got.String() != want.String() {
				t.Errorf("counters %v, want %v", got, want)
			}
		})
	}
}

// opener runs SYNs on a thread of its own.
type opener struct {
	begin chan attempt
	sent  chan sentSYN
}

type attempt struct {
	in packet
	// together counts who is ready, so that all begin at once.
	together *atomic.Int32
}

type sentSYN struct {
	in    packet
	frame []byte
}

// newOpener starts one that ends with the test.
func (l *lb) newOpener() *opener {
	l.Helper()
	var space *os.File
	var err error
	l.lab.do(func() { space, err = os.Open("/proc/thread-self/ns/net") })
	l.must(err)
	o := &opener{make(chan attempt), make(chan sentSYN)}
	var ended sync.WaitGroup
	ended.Go(func() {
		defer space.Close()
		runtime.LockOSThread() // never unlocked: nobody else may get this thread
		if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
			l.Error(err)
		}
		for a := range o.begin {
			data := a.in.bytes()
			run := &ebpf.RunOptions{Data: data, DataOut: make([]byte, len(data)+64), Context: l.context(hook{dev: outside})}
			a.together.Add(1)
			for spins := 0; a.together.Load() < 2 && spins < 1<<16; spins++ {
			}
			if verdict, err := l.Blixt.Run(run); err != nil || verdict != redirect {
				l.Errorf("verdict %d, want redirect; error %v", int32(verdict), err)
			}
			o.sent <- sentSYN{a.in, run.DataOut}
		}
	})
	l.Cleanup(func() { close(o.begin); ended.Wait() })
	return o
}
