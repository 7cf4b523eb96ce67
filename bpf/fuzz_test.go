// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Where the fuzzer's packets are seen.
var fuzzHooks = []hook{
	{dev: outside}, {dev: inside}, {dev: pods}, {dev: "lo"}, {dev: noForwarding},
	{dev: outside, egress: true}, {dev: "lo", egress: true}, {dev: outside, egress: true, from: pods}, {dev: inside, egress: true, from: outside},
	{dev: tunnel, egress: true}, {dev: tunnel, egress: true, from: pods},
}

// What is put in front of the fuzzer's bytes.
const (
	bare = iota // nothing
	etherIPv4
	etherIPv6
	links
)

func (h hook) frame(link uint8, data []byte) []byte {
	mac := h.mac()
	frame := slices.Concat(mac[:], peerMAC[:])
	switch link % links {
	case etherIPv4:
		return append(append(frame, 8, 0), data...)
	case etherIPv6:
		return append(append(frame, 0x86, 0xdd), data...)
	}
	return data
}

// fuzzLB returns a data plane of both IP versions that has frontends with every
// kind of backend, and flows in every state.
var fuzzLB = sync.OnceValue(func() func(*testing.T) *lb {
	var l *lb
	return func(t *testing.T) *lb {
		if l != nil {
			l.TB = t
			return l
		}
		l = newLB(t)
		for i, ip := range ipVersions {
			l.serveFuzz(ip, uint32(i))
		}
		return l
	}
})

func (l *lb) serveFuzz(ip ipVersion, n uint32) {
	l.Helper()
	l.address(ip.vip, true)
	l.address(ip.shared, false)
	for i, addr := range []string{ip.local, ip.remote, ip.narrow} {
		l.backend(8*n+uint32(i)+1, addr)
	}
	for i, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for j := range uint32(3) {
			l.frontend(16*n+8*uint32(i)+j, protocol, port(ip.vip, []string{"80", "81", "82"}[j]), 8*n+j+1)
		}
		l.frontend(16*n+8*uint32(i)+3, protocol, port(ip.vip, "83"), 0)
	}
	for _, p := range flowPackets(ip) {
		_, _, err := l.run(p.hook, p.packet.bytes(), 0)
		l.must(err)
	}
}

// A hookedPacket is a packet and the hook that sees it.
type hookedPacket struct {
	packet packet
	hook   hook
}

// flowPackets returns the packets of flows to a local and to a remote backend,
// and ICMP errors about them.
func flowPackets(ip ipVersion) (s []hookedPacket) {
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		vip, other := port(ip.vip, "80"), port(ip.vip, "81")
		out := opening(protocol, ip.client, other).snat(ip.nodeIn, 0).to(ip.remote)
		s = append(s,
			hookedPacket{opening(protocol, ip.client, vip), hook{dev: outside}},
			hookedPacket{answer(protocol, ip.local, ip.client), hook{dev: outside, egress: true, from: pods}},
			hookedPacket{establishing(protocol, ip.client, vip), hook{dev: outside}},
			hookedPacket{opening(protocol, ip.client, other), hook{dev: outside}},
			hookedPacket{answer(protocol, ip.remote, out.src.String()), hook{dev: inside}},
			hookedPacket{establishing(protocol, ip.client, other), hook{dev: outside}},
			hookedPacket{opening(protocol, ip.host, other), hook{dev: outside, egress: true}},
			hookedPacket{opening(protocol, ip.client, port(ip.vip, "82")).withSize(1400), hook{dev: outside}},
			hookedPacket{opening(protocol, ip.client, port(ip.vip, "83")), hook{dev: outside}},
		)
		k := icmpKinds[ip.name][1]
		from := ap(ip.remote).Addr().String()
		s = append(s, hookedPacket{icmpError(from, ip.nodeIn, k.kind, k.code, k.rest, out, 0), hook{dev: inside}})
	}
	return s
}

// FuzzPacket passes arbitrary bytes through the program, and checks what holds
// for every packet: see checkInvariants.
func FuzzPacket(f *testing.F) {
	for _, ip := range ipVersions {
		link := uint8(etherIPv4)
		if ip.name == "IPv6" {
			link = etherIPv6
		}
		for _, p := range samples(ip) {
			if p.vlan == 0 {
				f.Add(uint8(0), link, p.ipBytes())
			}
			f.Add(uint8(5), uint8(bare), p.bytes())
		}
		for _, s := range flowPackets(ip) {
			f.Add(uint8(slices.Index(fuzzHooks, s.hook)), link, s.packet.ipBytes())
		}
	}
	raw := tcp("8.0.1.7:40000", port(ipVersions[0].vip, "80"))
	f.Add(uint8(9), uint8(bare), raw.ipBytes())
	raw = tcp("[2001:db8:86dd::7]:40000", port(ipVersions[1].vip, "80"))
	f.Add(uint8(10), uint8(bare), raw.ipBytes())

	f.Fuzz(func(t *testing.T, where, link uint8, data []byte) {
		l := fuzzLB()(t)
		h := fuzzHooks[int(where)%len(fuzzHooks)]
		frame := h.frame(link, data)
		if len(frame) > 3000 { // a test run takes at most a page, less what it needs itself
			return
		}
		r, err := l.runRaw(h, frame)
		if errors.Is(err, unix.EINVAL) {
			return // too short: the kernel does not run it
		}
		l.must(err)
		r.checkInvariants()
	})
}
