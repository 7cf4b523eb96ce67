// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What Go computes of `interest` and `flow_cache` is what the program does.

// The bits that the program sets for a flow are those that its entries need.
func TestGoAgreesOnInterest(t *testing.T) {
	c := cases{}
	run := func(name string, begin func(l *lb, ip ipVersion, proto uint8, before []byte)) {
		forEachProtocol(c, name, func(l *lb, ip ipVersion, proto uint8) {
			l.serve(ip, proto, local)
			before := slices.Clone(l.memory(l.Interest))
			begin(l, ip, proto, before)
			want, entries := slices.Clone(before), 0
			for _, table := range []*ebpf.Map{l.Flows, l.NewFlows, l.UdpFlows} {
				var k BlixtFlowKey
				var f BlixtFlow
				for it := table.Iterate(); it.Next(&k, &f); entries++ {
					a, bits := EntryInterest(k, f)
					want[InterestHash(a)] |= byte(bits | BlixtInterestFlagINTEREST_FRESH)
				}
			}
			for i, have := range l.memory(l.Interest) {
				if have != want[i] {
					l.Errorf("byte %d of interest is %b, want %b", i, have, want[i])
				}
			}
			if entries == 0 || bytes.Equal(before, want) {
				l.Errorf("%d entries need nothing", entries)
			}
		})
	}
	for _, established := range []bool{false, true} {
		name := map[bool]string{false: "begins", true: "is established"}[established]
		run(name+", local", func(l *lb, ip ipVersion, proto uint8, _ []byte) { l.openFlow(ip, proto, established) })
		run(name+", remote", func(l *lb, ip ipVersion, proto uint8, _ []byte) { l.openRemote(ip, proto, established) })
	}
	run("of the host", func(l *lb, ip ipVersion, proto uint8, _ []byte) {
		source := l.openRemote(ip, proto, false)
		own := opening(proto, source, ip.remote)
		l.send(hook{dev: inside, egress: true, from: pods}, own).wantVerdict(tcxNext, "host_translated")
	})
	run("of a backend that is gone", func(l *lb, ip ipVersion, proto uint8, before []byte) {
		l.openRemote(ip, proto, true)
		f := l.openFlow(ip, proto, true)
		l.removeBackend(remote)
		l.removeBackend(local)
		copy(l.memory(l.Interest), before) // only tombstones are left soon
		for _, vip := range []string{f.vip, port(ip.shared, "80")} {
			l.ingress(outside, establishing(proto, ip.client, vip))
		}
	})
	c.run(t)
}

// openRemote begins a flow to a remote backend at the shared address, and
// establishes it if asked. It returns the translated source.
func (l *lb) openRemote(ip ipVersion, proto uint8, established bool) string {
	l.Helper()
	vip := port(ip.shared, "80")
	l.frontend(1, proto, vip, remote)
	in := opening(proto, ip.client, vip)
	source := in.snat(ip.nodeIn, 0).src.String()
	l.ingress(outside, in).redirected(in.from(source).to(ip.remote).hop(), "flow_new forwarded")
	if established {
		re := answer(proto, ip.remote, source)
		l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
		on := establishing(proto, ip.client, vip)
		l.ingress(outside, on).redirected(on.from(source).to(ip.remote).hop(), "forwarded"+andEstablished(proto))
	}
	return source
}

// Go finds a flow's slot, and the numbers that its entry may not have.
func TestGoAgreesOnSlots(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "", func(l *lb, ip ipVersion, proto uint8) {
		const seed = 0xfedcba9876543210
		l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, Seed: seed}))
		l.serve(ip, proto, local)
		f := l.openFlow(ip, proto, true)
		for i := range uint32(3) {
			f.fromClient(f.clientPacket(ack, 1001+100*i, 5001+10*i, strings.Repeat("x", 100)), "forwarded")
			f.fromBackend(f.reply().segmentIfTCP(ack, 1001+100*i))
		}
		found := 0
		for i := range l.FlowCache.MaxEntries() {
			if set := l.memory(l.FlowCache)[256*i : 256*i+256]; bytes.Count(set, []byte{0}) == len(set) {
				continue
			}
			var set BlixtCacheSet
			l.must(l.FlowCache.Lookup(i, &set))
			for _, s := range set.Ways {
				key := BlixtFlowKey{Src: s.Src, Dst: s.Dst, Sport: s.Sport, Dport: s.Dport, Protocol: s.Protocol}
				if s.Protocol == 0 {
					continue
				}
				if found++; CacheSet(key, seed) != i || set.Slot(key) == nil || set.Slot(key).Numbers != s.Numbers {
					l.Errorf("slot of %v is in set %d, want %d", key, i, CacheSet(key, seed))
				}
			}
		}
		if found != 2 {
			l.Errorf("%d slots, want one for each direction", found)
		}
		if proto != unix.IPPROTO_TCP {
			return
		}
		for p, want := range map[string][2]uint32{"client": {1301, 5021}, "backend": {5001 + uint32(len(f.reply().payload)), 1201}} {
			key := map[string]BlixtFlowKey{"client": keyOf(f.forward()), "backend": keyOf(f.reply())}[p]
			var set BlixtCacheSet
			l.must(l.FlowCache.Lookup(CacheSet(key, seed), &set))
			s := set.Slot(key)
			if s == nil {
				l.Errorf("no slot of the %s", p)
			} else if got := [2]uint32{uint32(s.Numbers), uint32(s.Numbers >> 32)}; got != want {
				l.Errorf("numbers of the %s are %d, want %d", p, got, want)
			}
		}
	})
	c.run(t)
}
