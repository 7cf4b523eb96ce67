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
	{dev: outside}, {dev: inside}, {dev: pods}, {dev: "lo"}, {dev: still},
	{dev: outside, egress: true}, {dev: "lo", egress: true}, {dev: outside, egress: true, from: pods}, {dev: inside, egress: true, from: outside},
	{dev: tunnel, egress: true}, {dev: tunnel, egress: true, from: pods},
}

// A link says what is put in front of the fuzzer's bytes.
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

// fuzzWorld has frontends with every kind of backend and flows in every
// state, that of both IP versions at once.
var fuzzWorld = sync.OnceValue(func() func(*testing.T) *lb {
	var l *lb
	return func(t *testing.T) *lb {
		if l != nil {
			l.TB = t
			return l
		}
		l = newLB(t)
		for i, w := range worlds {
			l.serveFuzz(w, uint32(i))
		}
		return l
	}
})

func (l *lb) serveFuzz(w world, n uint32) {
	l.Helper()
	l.address(w.vip, true)
	l.address(w.shared, false)
	for i, addr := range []string{w.local, w.remote, w.narrow} {
		l.backend(8*n+uint32(i)+1, addr)
	}
	for i, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for j := range uint32(3) {
			l.frontend(16*n+8*uint32(i)+j, protocol, port(w.vip, []string{"80", "81", "82"}[j]), 8*n+j+1)
		}
		l.frontend(16*n+8*uint32(i)+3, protocol, port(w.vip, "83"), 0)
	}
	for _, p := range conversationsOf(w) {
		_, _, err := l.run(p.hook, p.packet.bytes(), 0)
		l.must(err)
	}
}

// A sighting is a packet and where it is seen.
type sighting struct {
	packet packet
	hook   hook
}

// conversationsOf are flows to a local and to a remote backend, and all that
// can be said about them.
func conversationsOf(w world) (s []sighting) {
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		vip, other := port(w.vip, "80"), port(w.vip, "81")
		out := opening(protocol, w.client, other).snat(w.nodeIn, 0).to(w.remote)
		s = append(s,
			sighting{opening(protocol, w.client, vip), hook{dev: outside}},
			sighting{answer(protocol, w.local, w.client), hook{dev: outside, egress: true, from: pods}},
			sighting{second(protocol, w.client, vip), hook{dev: outside}},
			sighting{opening(protocol, w.client, other), hook{dev: outside}},
			sighting{answer(protocol, w.remote, out.src.String()), hook{dev: inside}},
			sighting{second(protocol, w.client, other), hook{dev: outside}},
			sighting{opening(protocol, w.host, other), hook{dev: outside, egress: true}},
			sighting{opening(protocol, w.client, port(w.vip, "82")).sized(1400), hook{dev: outside}},
			sighting{opening(protocol, w.client, port(w.vip, "83")), hook{dev: outside}},
		)
		k := icmpKinds[w.name][1]
		from := ap(w.remote).Addr().String()
		s = append(s, sighting{icmpError(from, w.nodeIn, k.kind, k.code, k.rest, out, 0), hook{dev: inside}})
	}
	return s
}

// FuzzPacket passes arbitrary bytes through the program, and checks what holds
// for every packet: see sane.
func FuzzPacket(f *testing.F) {
	for _, w := range worlds {
		link := uint8(etherIPv4)
		if w.name == "IPv6" {
			link = etherIPv6
		}
		for _, p := range samples(w) {
			if p.vlan == 0 {
				f.Add(uint8(0), link, p.quoted())
			}
			f.Add(uint8(5), uint8(bare), p.bytes())
		}
		for _, s := range conversationsOf(w) {
			f.Add(uint8(slices.Index(fuzzHooks, s.hook)), link, s.packet.quoted())
		}
	}
	raw := tcp("8.0.1.7:40000", port(worlds[0].vip, "80"))
	f.Add(uint8(9), uint8(bare), raw.quoted())
	raw = tcp("[2001:db8:86dd::7]:40000", port(worlds[1].vip, "80"))
	f.Add(uint8(10), uint8(bare), raw.quoted())

	f.Fuzz(func(t *testing.T, where, link uint8, data []byte) {
		l := fuzzWorld()(t)
		h := fuzzHooks[int(where)%len(fuzzHooks)]
		frame := h.frame(link, data)
		if len(frame) > 3000 { // a test run takes a page, less its own needs
			return
		}
		r, err := l.fuzzed(h, frame)
		if errors.Is(err, unix.EINVAL) {
			return // too short for the kernel to try
		}
		l.must(err)
		r.sane()
	})
}
