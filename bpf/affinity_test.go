// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Backends on this node, beside `local`.
const (
	secondPod = 5
	thirdPod  = 6
)

// affinityBits are those of the prefixes that count in tests: /24 and /64.
func (ip ipVersion) affinityBits() uint8 {
	if ip.name == "IPv4" {
		return 96 + 24
	}
	return 64
}

// backendAddr returns the address of one of three backends on this node.
func (ip ipVersion) backendAddr(id int) string {
	last := map[int]string{local: "10", secondPod: "11", thirdPod: "12"}[id]
	if ip.name == "IPv4" {
		return "10.2.0." + last + ":8080"
	}
	return "[fd00:2::" + last + "]:8080"
}

// clientOf returns a socket of the n-th client of a network, and of the port p.
func (ip ipVersion) clientOf(network, n, p int) string {
	if ip.name == "IPv4" {
		return fmt.Sprintf("100.64.%d.%d:%d", network, n, p)
	}
	return fmt.Sprintf("[2001:db8:c:%x::%x]:%d", network, n, p)
}

// withAffinity writes a frontend of port 80 with affinity. ticks is how long its clients
// are remembered; 0: they are not.
func (l *lb) withAffinity(ip ipVersion, protocol uint8, ticks uint32, ids ...uint32) {
	l.Helper()
	l.address(ip.vip, true)
	for _, id := range []int{local, secondPod, thirdPod} {
		l.backend(uint32(id), ip.backendAddr(id))
		l.giveBackend(uint32(id), 0)
	}
	l.frontendWith(BlixtFrontend{AffinityTicks: ticks, Affinity: min(ticks, 77)}, ip, protocol, ids...)
}

func (l *lb) frontendWith(f BlixtFrontend, ip ipVersion, protocol uint8, ids ...uint32) {
	l.Helper()
	vip := ap(port(ip.vip, "80"))
	f.IdleTicks, f.AffinityBits = idleTicks, ip.affinityBits()
	f.Flags |= uint32(BlixtFrontendFlagFRONTEND_AFFINITY)
	l.publish(0, ids...)
	l.must(l.Frontends.Put(BlixtFrontendKey{Addr: addrOf(vip.Addr()), Port: htons(vip.Port()), Protocol: protocol}, f))
}

// keep makes clients that had a backend get it again, or not.
func (l *lb) keep(ip ipVersion, id int, kept bool) {
	l.Helper()
	key := BlixtAffinityBackendKey{Frontend: 0, Addr: addrOf(ap(ip.backendAddr(id)).Addr())}
	if kept {
		l.must(l.AffinityBackends.Put(key, uint32(id)))
	} else {
		l.must(l.AffinityBackends.Delete(key))
	}
}

// affinityOf returns which backend of a client is remembered in a table; none: the zero address.
func (l *lb) affinityOf(m *ebpf.Map, ip ipVersion, client string) (a BlixtAffinity, key BlixtAffinityKey) {
	l.Helper()
	bits := map[string]int{"IPv4": 24, "IPv6": 64}[ip.name]
	prefix, err := ap(client).Addr().Prefix(bits)
	l.must(err)
	key = BlixtAffinityKey{Group: 77, Client: addrOf(prefix.Addr())}
	_ = m.Lookup(key, &a)
	return a, key
}

// wantRemembered checks what is remembered of a client: the backend id, or 0.
func (l *lb) wantRemembered(m *ebpf.Map, ip ipVersion, client string, id int) {
	l.Helper()
	want := BlixtAddr{}
	if id != 0 {
		want = addrOf(ap(ip.backendAddr(id)).Addr())
	}
	if got, _ := l.affinityOf(m, ip, client); got.Backend != want {
		l.Errorf("%s is remembered with %v, want %v", client, netip.AddrFrom16(got.Backend.Bytes).Unmap(), netip.AddrFrom16(want.Bytes).Unmap())
	}
}

// visit opens a flow of a client to one of the backends, and establishes it if asked. It
// returns which backend that is.
func (l *lb) visit(ip ipVersion, protocol uint8, client string, established bool) int {
	l.Helper()
	in := opening(protocol, client, port(ip.vip, "80"))
	if verdict, _, err := l.run(hook{dev: outside}, in.bytes(), 0); err != nil || verdict != tcxNext {
		l.Fatalf("%s: verdict %#x, %v", client, verdict, err)
	}
	_, f := l.flow(in)
	if f.Backend == 0 {
		l.Fatalf("%s has no flow", client)
	}
	if established {
		c := localFlow{l, ip, protocol, port(ip.vip, "80"), ip.backendAddr(int(f.Backend)), client}
		c.fromBackend(answer(protocol, c.backend, client))
		c.fromClient(establishing(protocol, client, c.vip), "forwarded"+andEstablished(protocol))
	}
	return int(f.Backend)
}

func TestAffinityBySlot(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "clients of one prefix have one backend, whatever their port", func(l *lb, ip ipVersion, proto uint8) {
		l.withAffinity(ip, proto, 0, local, secondPod)
		seen := map[int]bool{}
		for network := range 20 {
			_, key := l.affinityOf(l.Affinities, ip, ip.clientOf(network, 1, 1))
			want := []int{local, secondPod}[seededHash(netip.AddrPortFrom(netip.AddrFrom16(key.Client.Bytes), 0), 0)>>31]
			for n := 1; n < 10; n++ {
				if got := l.visit(ip, proto, ip.clientOf(network, n, 1024+100*n), false); got != want {
					l.Fatalf("client %d of network %d has backend %d, want %d", n, network, got, want)
				}
			}
			seen[want] = true
		}
		if len(seen) != 2 {
			l.Errorf("20 networks have the backends %v, want both", seen)
		}
		var key BlixtAffinityKey
		if l.Affinities.NextKey(nil, &key) == nil || l.UdpAffinities.NextKey(nil, &key) == nil {
			l.Error("a client is remembered, without a time")
		}
	})
	forEachProtocol(c, "a repeated packet belongs to its flow", func(l *lb, ip ipVersion, proto uint8) {
		l.withAffinity(ip, proto, 0, local)
		f := localFlow{l, ip, proto, port(ip.vip, "80"), ip.backendAddr(local), ip.client}
		f.fromClient(opening(proto, f.client, f.vip), "flow_new forwarded")
		f.fromClient(opening(proto, f.client, f.vip), "forwarded")
	})
	c.run(t)
}

func TestAffinityIsRemembered(t *testing.T) {
	const ticks = 100
	c := cases{}
	forEachProtocol(c, "when the ring has another backend, until its time is over", func(l *lb, ip ipVersion, proto uint8) {
		l.withAffinity(ip, proto, ticks, local)
		l.keep(ip, local, true)
		l.keep(ip, secondPod, true)
		a, neighbour, stranger := ip.clientOf(1, 1, 1001), ip.clientOf(1, 2, 1002), ip.clientOf(2, 1, 1003)
		l.visit(ip, proto, a, true)
		l.publish(0, secondPod)
		in := opening(proto, neighbour, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(ip.backendAddr(local)), "flow_new forwarded affinity_kept")
		in = opening(proto, stranger, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(ip.backendAddr(secondPod)), "flow_new forwarded")

		table := map[uint8]*ebpf.Map{unix.IPPROTO_TCP: l.Affinities, unix.IPPROTO_UDP: l.UdpAffinities}[proto]
		known, key := l.affinityOf(table, ip, a)
		known.LastNew -= ticks
		l.must(table.Put(key, known))
		if got := l.visit(ip, proto, ip.clientOf(1, 3, 1004), false); got != local {
			t.Errorf("in the last tick the client gets backend %d", got)
		}
		known.LastNew--
		l.must(table.Put(key, known))
		if got := l.visit(ip, proto, ip.clientOf(1, 4, 1005), true); got != secondPod {
			t.Errorf("behind its time the client gets backend %d", got)
		}
		l.wantRemembered(table, ip, a, secondPod)
	})
	// The golden case affinity-dead.
	forEachProtocol(c, "not with a backend that gets no new flows: its client stays with the next one", func(l *lb, ip ipVersion, proto uint8) {
		l.withAffinity(ip, proto, ticks, local)
		l.keep(ip, local, true)
		l.keep(ip, secondPod, true)
		l.visit(ip, proto, ip.clientOf(1, 1, 1001), true)
		l.keep(ip, local, false)
		l.publish(0, secondPod)
		if got := l.visit(ip, proto, ip.clientOf(1, 1, 1002), true); got != secondPod {
			l.Fatalf("while its backend is not ready the client gets backend %d", got)
		}
		l.keep(ip, local, true)
		l.publish(0, local)
		in := opening(proto, ip.clientOf(1, 1, 1003), port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(ip.backendAddr(secondPod)), "flow_new forwarded affinity_kept")
	})
	forEachProtocol(c, "only new flows count, not the packets of old ones", func(l *lb, ip ipVersion, proto uint8) {
		l.withAffinity(ip, proto, ticks, local)
		client := ip.clientOf(1, 1, 1001)
		l.visit(ip, proto, client, true)
		table := map[uint8]*ebpf.Map{unix.IPPROTO_TCP: l.Affinities, unix.IPPROTO_UDP: l.UdpAffinities}[proto]
		known, key := l.affinityOf(table, ip, client)
		known.LastNew -= 5
		l.must(table.Put(key, known))
		f := localFlow{l, ip, proto, port(ip.vip, "80"), ip.backendAddr(local), client}
		f.fromClient(f.clientPacket(ack|psh, 1001, 5001, "more"), "forwarded")
		f.fromBackend(continuing(proto, f.backend, client))
		if now, _ := l.affinityOf(table, ip, client); now != known {
			l.Errorf("packets of a flow change %+v to %+v", known, now)
		}
		l.visit(ip, proto, ip.clientOf(1, 1, 1002), true)
		if now, _ := l.affinityOf(table, ip, client); now.LastNew-known.LastNew < 5 {
			l.Errorf("a new flow changes %+v to %+v", known, now)
		}
	})
	forEachProtocol(c, "an id that belongs to another backend by now is not believed", func(l *lb, ip ipVersion, proto uint8) {
		l.withAffinity(ip, proto, ticks, local)
		l.keep(ip, local, true)
		l.visit(ip, proto, ip.clientOf(1, 1, 1001), true)
		l.publish(0, secondPod)
		l.removeBackend(local) // free
		for i, change := range []func(){
			func() {},
			func() { l.backend(local, ip.backendAddr(thirdPod)) },                       // in use for another address
			func() { l.backend(local, ip.backendAddr(local)); l.giveBackend(local, 1) }, // for another frontend
			func() { // there is no such id
				l.must(l.AffinityBackends.Put(BlixtAffinityBackendKey{Addr: addrOf(ap(ip.backendAddr(local)).Addr())}, uint32(1<<20)))
			},
		} {
			change()
			in := opening(proto, ip.clientOf(1, 1, 2000+i), port(ip.vip, "80"))
			l.ingress(outside, in).toStack(in.to(ip.backendAddr(secondPod)), "flow_new forwarded")
		}
	})
	for _, ip := range ipVersions {
		c[ip.name+" a UDP flow whose backend does not serve any more goes where a new one would"] = func(l *lb) {
			l.withAffinity(ip, unix.IPPROTO_UDP, ticks, local)
			l.keep(ip, secondPod, true)
			client := ip.clientOf(1, 1, 1001)
			l.visit(ip, unix.IPPROTO_UDP, client, true)
			_, key := l.affinityOf(l.Affinities, ip, client)
			l.must(l.Affinities.Put(key, BlixtAffinity{Backend: addrOf(ap(ip.backendAddr(secondPod)).Addr()), LastNew: l.tick()}))
			l.publish(0, thirdPod)
			l.setServing(false)
			in := udp(client, port(ip.vip, "80")).withPayload("who serves me?")
			l.ingress(outside, in).toStack(in.to(ip.backendAddr(secondPod)), "flow_new forwarded affinity_kept")
			l.setServing(true)
			l.ingress(outside, in).toStack(in.to(ip.backendAddr(secondPod)), "forwarded")
		}
		c[ip.name+" a reject slot is not for clients that have a backend"] = func(l *lb) {
			l.withAffinity(ip, unix.IPPROTO_TCP, ticks, local)
			l.keep(ip, local, true)
			l.visit(ip, unix.IPPROTO_TCP, ip.clientOf(1, 1, 1001), true)
			l.publish(0, uint32(BlixtBackendIdBACKEND_REJECT))
			if got := l.visit(ip, unix.IPPROTO_TCP, ip.clientOf(1, 1, 1002), false); got != local {
				l.Errorf("the client gets backend %d", got)
			}
			in := opening(unix.IPPROTO_TCP, ip.clientOf(2, 1, 1001), port(ip.vip, "80"))
			l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_no_backend")
		}
	}
	c.run(t)
}

func TestOnlyProvenClientsAreRemembered(t *testing.T) {
	c := cases{}
	none := func(l *lb, m *ebpf.Map, when string) {
		l.Helper()
		var key BlixtAffinityKey
		if m.NextKey(nil, &key) == nil {
			l.Errorf("%s: a client is remembered in %s", when, m)
		}
	}
	forEachProtocol(c, "not by its first packets", func(l *lb, ip ipVersion, proto uint8) {
		l.withAffinity(ip, proto, 100, local)
		for i := range 3 {
			l.visit(ip, proto, ip.clientOf(1, 1, 1001+i), false)
		}
		none(l, l.Affinities, "unanswered")
		none(l, l.UdpAffinities, "unanswered")
		f := localFlow{l, ip, proto, port(ip.vip, "80"), ip.backendAddr(local), ip.clientOf(1, 1, 1001)}
		f.fromBackend(answer(proto, f.backend, f.client))
		none(l, l.Affinities, "answered")
		if proto == unix.IPPROTO_TCP {
			f.fromClient(establishing(proto, f.client, f.vip), "forwarded flow_established")
			l.wantRemembered(l.Affinities, ip, f.client, local)
			none(l, l.UdpAffinities, "established")
			return
		}
		l.wantRemembered(l.UdpAffinities, ip, f.client, local)
	})
	for _, ip := range ipVersions {
		c[ip.name+" a flood of datagrams that are answered evicts nobody who is proven"] = func(l *lb) {
			l.withAffinity(ip, unix.IPPROTO_TCP, 100, local)
			vip := ap(port(ip.vip, "80"))
			var f BlixtFrontend
			l.must(l.Frontends.Lookup(BlixtFrontendKey{Addr: addrOf(vip.Addr()), Port: htons(80), Protocol: unix.IPPROTO_TCP}, &f))
			l.must(l.Frontends.Put(BlixtFrontendKey{Addr: addrOf(vip.Addr()), Port: htons(80), Protocol: unix.IPPROTO_UDP}, f))
			proven := ip.clientOf(1, 1, 1001)
			l.visit(ip, unix.IPPROTO_TCP, proven, true)
			for i := range 3000 { // three times the table of tests
				client := fmt.Sprintf("101.%d.%d.1:999", i/256, i%256)
				if ip.name == "IPv6" {
					client = fmt.Sprintf("[2001:db8:77:%x::1]:999", i)
				}
				in := opening(unix.IPPROTO_UDP, client, vip.String())
				if _, _, err := l.run(hook{dev: outside}, in.bytes(), 0); err != nil {
					l.Fatal(err)
				}
				re := answer(unix.IPPROTO_UDP, ip.backendAddr(local), client)
				if _, _, err := l.run(hook{dev: outside, egress: true, from: pods}, re.bytes(), 0); err != nil {
					l.Fatal(err)
				}
			}
			l.wantRemembered(l.Affinities, ip, proven, local)
			var key BlixtAffinityKey
			if l.UdpAffinities.NextKey(nil, &key) != nil {
				l.Error("the flood was not remembered at all: it tests nothing")
			}
			// And UDP of a proven client is remembered where it is proven.
			l.keep(ip, local, true)
			l.visit(ip, unix.IPPROTO_UDP, ip.clientOf(1, 9, 5353), true)
			l.wantRemembered(l.UdpAffinities, ip, proven, 0)
		}
	}
	c.run(t)
}

// With a memory, no client moves unless its backend goes: whatever happens to rings.
func TestNoClientMovesUnlessItsBackendGoes(t *testing.T) {
	for _, ip := range ipVersions {
		l := newLB(t)
		random := rand.New(rand.NewPCG(1, 2))
		l.withAffinity(ip, unix.IPPROTO_TCP, 1<<20, local)
		ready := map[int]bool{local: true, secondPod: false, thirdPod: true}
		change := func() {
			var ids []uint32
			for _, id := range []int{local, secondPod, thirdPod} {
				l.keep2(ip, id, ready[id])
				for range 1 + random.IntN(4) {
					if ready[id] {
						ids = append(ids, uint32(id))
					}
				}
			}
			random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			if l.slots > 1800 {
				l.slots = 0
			}
			l.publish(0, ids...)
		}
		change()
		has := map[int]int{}
		moves := 0
		for i := range 1500 {
			client := random.IntN(40)
			got := l.visit(ip, unix.IPPROTO_TCP, ip.clientOf(client, 1+random.IntN(200), 1024+i), true)
			if was, known := has[client]; known && was != got {
				moves++
				if ready[was] {
					t.Fatalf("%s: client %d moves from %d to %d, which is ready", ip.name, client, was, got)
				}
			}
			if !ready[got] {
				t.Fatalf("%s: client %d gets %d, which is not ready", ip.name, client, got)
			}
			has[client] = got
			if i%10 == 9 {
				id := []int{local, secondPod, thirdPod}[random.IntN(3)]
				ready[id] = !ready[id]
				if !ready[local] && !ready[secondPod] && !ready[thirdPod] {
					ready[id] = true
				}
				change()
			}
			if i%100 == 99 {
				deleteAll[BlixtFlowKey, BlixtFlow](l, l.Flows)
			}
		}
		if moves == 0 {
			t.Errorf("%s: nobody has moved: it tests nothing", ip.name)
		}
	}
}

// keep2 is keep for a backend of which it is not known whether it is kept.
func (l *lb) keep2(ip ipVersion, id int, kept bool) {
	l.Helper()
	l.keep(ip, id, true)
	l.keep(ip, id, kept)
}

// remember has the client of ip remembered with a backend, as a proven one.
func (l *lb) remember(ip ipVersion, id int) {
	l.Helper()
	_, key := l.affinityOf(l.Affinities, ip, ip.client)
	l.must(l.Affinities.Put(key, BlixtAffinity{Backend: addrOf(ap(ip.backendAddr(id)).Addr()), LastNew: l.tick()}))
}
