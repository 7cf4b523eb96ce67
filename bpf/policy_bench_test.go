// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// prefixesInSet is how many a policy may have.
const prefixesInSet = 10_000

// BenchmarkAdmit measures the first packet of a flow as BenchmarkBegin does, to frontends
// whose policies are asked, beside one without any. Each policy has 10,000 prefixes of sources.
//
//	none, one, four  how many policies admit the source
//	limits           one limits new flows and concurrent ones too, of each source and of all
//	refused          one that refuses it: what a flood costs
//	judged           none, but it is counted how flows of the backend begin
func BenchmarkAdmit(b *testing.B) {
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			b.Run(protocolName(protocol)+ip.name[2:], func(b *testing.B) { benchmarkAdmit(b, ip, protocol) })
		}
	}
}

func benchmarkAdmit(b *testing.B, ip ipVersion, protocol uint8) {
	w := newWorld(b, map[string]uint32{BlixtMapFlows: 2 * roomForNew, BlixtMapNewFlows: 2 * roomForNew, BlixtMapUdpFlows: 2 * roomForNew,
		BlixtMapSources: 1 << 17, BlixtMapLimitedSources: 1 << 16}, roomForNew, 1<<16)
	l := w.startNew(b, ip, protocol)
	limited := BlixtPolicy{SourceInterval: 1, SourceBurst: 1 << 30, TotalInterval: 1, TotalBurst: 1 << 30, SourceConcurrent: 1 << 30, TotalConcurrent: 1 << 30, SourceBits4: 128, SourceBits6: 128}
	for id := range uint32(6) {
		p := BlixtPolicy{Sources: l.manyPrefixes(ip, id+1, id < 5)}
		if id == 4 {
			sources := p.Sources
			p = limited
			p.Sources = sources
		}
		l.must(l.Policies.Put(id+1, p))
	}
	var stages []*stage
	for i, s := range []struct {
		name     string
		policies []uint64
		verdict  uint32
	}{{"none", nil, tcxNext}, {"one", []uint64{1}, tcxNext}, {"four", []uint64{1, 2, 3, 4}, tcxNext}, {"limits", []uint64{5}, tcxNext}, {"refused", []uint64{6}, tcxDrop}, {"judged", nil, tcxNext}} {
		vip := port(ip.vip, fmt.Sprint(80+i))
		l.backend(uint32(40+i), ip.local)
		l.frontend(uint32(i), protocol, vip, uint32(40+i))
		l.policies(uint32(i), s.policies...)
		if s.name == "judged" {
			l.judge(uint32(40 + i))
		}
		stages = append(stages, &stage{name: s.name, hook: hook{dev: outside}, template: newTemplate(b, opening(protocol, ip.client, vip), 1<<20)})
	}
	verdict := func(s *stage) uint32 {
		if s.name == "refused" {
			return tcxDrop
		}
		return tcxNext
	}
	rounds(b, func() {
		for _, s := range stages {
			deleteAll[BlixtFlowKey, BlixtFlow](l, l.NewFlows)
			deleteAll[BlixtFlowKey, BlixtFlow](l, l.UdpFlows)
			s.without.add(s.template.run(b, w.lab, s.hook, contender{"harness", s.template.pass, tcxNext}, newInTurn))
			s.with.add(s.template.run(b, w.lab, s.hook, contender{s.name, w.objs.Blixt, verdict(s)}, newInTurn))
		}
	})
	b.ReportMetric(0, "ns/op")
	none := float64(stages[0].with-stages[0].without) / newInTurn
	for _, s := range stages {
		each := float64(s.with-s.without) / newInTurn
		b.ReportMetric(each, s.name+"-ns/packet")
		if s != stages[0] {
			b.ReportMetric(each/none, s.name+"-ratio")
		}
	}
}

// manyPrefixes writes a set of as many prefixes as a policy may have, and one that has all clients
// of the family. It returns the word that has a policy ask it.
func (l *lb) manyPrefixes(ip ipVersion, set uint32, admits bool) uint64 {
	l.Helper()
	verdict := BlixtSourceVerdictSOURCE_DENIED
	if admits {
		verdict = BlixtSourceVerdictSOURCE_ALLOWED
	}
	bits := uint32(32 + 32)
	client := netip.MustParsePrefix("2001:db8::/32")
	if ip.name == "IPv4" {
		bits, client = 32+96+16, netip.MustParsePrefix("198.51.0.0/16")
	}
	l.must(l.Sources.Put(BlixtSourceKey{Bits: bits, Set: set, Addr: addrOf(client.Addr())}, uint32(verdict)))
	for i := range uint32(prefixesInSet - 1) {
		var a netip.Addr
		n := uint32(128)
		if i%2 == 0 { // beside the client's, as in a list of a provider's networks
			v4 := [4]byte{198, 51}
			binary.BigEndian.PutUint16(v4[2:], uint16(i*13))
			v4[3] |= 128
			a = netip.AddrFrom4(v4)
		} else {
			v6 := netip.MustParseAddr("2001:db8::").As16()
			binary.BigEndian.PutUint32(v6[4:], i*7919)
			a, n = netip.AddrFrom16(v6), 64
		}
		l.must(l.Sources.Put(BlixtSourceKey{Bits: 32 + n, Set: set, Addr: addrOf(a)}, uint32(verdict)))
	}
	return uint64(BlixtPolicyFlagPOLICY_ONLY_ALLOWED)<<32 | uint64(set)
}
