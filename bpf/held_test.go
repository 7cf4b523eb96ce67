// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A reassembly is what a receiver has got of a datagram.
type reassembly struct {
	id    uint32
	parts map[int][]byte
	end   int // 0: not known
}

// add adds a fragment, or a whole packet, from its IP header on.
func (r *reassembly) add(l *lb, ip []byte) {
	l.Helper()
	at, more, id, data := 0, false, uint32(0), []byte(nil)
	if ip[0]>>4 == 4 {
		word := binary.BigEndian.Uint16(ip[6:])
		at, more, id, data = int(word&0x1fff)*8, word&0x2000 != 0, uint32(binary.BigEndian.Uint16(ip[4:])), ip[20:]
		if onesSum(ip[:20]) != 0xffff {
			l.Errorf("the sum of the IPv4 header is off: %x", ip[:20])
		}
	} else {
		if ip[6] != unix.IPPROTO_FRAGMENT {
			l.Fatalf("not a fragment: %x", ip[:48])
		}
		word := binary.BigEndian.Uint16(ip[42:])
		at, more, id, data = int(word&^7), word&1 != 0, binary.BigEndian.Uint32(ip[44:]), ip[48:]
	}
	if r.parts == nil {
		r.parts, r.id = map[int][]byte{}, id
	}
	if id != r.id {
		l.Errorf("fragment of identification %#x, the first one had %#x", id, r.id)
	}
	r.parts[at] = data
	if !more {
		r.end = at + len(data)
	}
}

// whole returns the datagram once all of it has come.
func (r *reassembly) whole() []byte {
	var b []byte
	for len(b) < r.end || r.end == 0 {
		part := r.parts[len(b)]
		if part == nil {
			return nil
		}
		b = append(b, part...)
	}
	return b
}

// TestFragmentsInAnyOrder sends the fragments of a datagram in every order, to a backend
// and back: all of them arrive, with one identification.
func TestFragmentsInAnyOrder(t *testing.T) {
	live, err := labWithNeighbours()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		for _, order := range [][]int{{1, 0, 2}, {2, 1, 0}, {1, 2, 0}, {2, 0, 1}, {0, 2, 1}} {
			name := ip.name
			for _, i := range order {
				name += " " + string(rune('0'+i))
			}
			t.Run(name, func(t *testing.T) {
				l := newLB(t)
				l.lab = live
				l.attach(outside, inside)
				client, backend := l.tap(outside), l.tap(inside)
				l.serve(ip, unix.IPPROTO_UDP, remote)
				before := l.counters()
				pass := func(from, to *tap, in, out packet) {
					t.Helper()
					in.df, in.id = false, 0x4444
					pieces := []packet{in.fragment(0, 1200), in.fragment(1200, 2400), in.fragment(2400, 0)}
					for _, i := range order {
						from.send(pieces[i])
					}
					var r reassembly
					for range pieces {
						frame, _ := to.receive()
						r.add(l, frame[14:])
					}
					if !bytes.Equal(r.whole(), out.layer4()) {
						t.Errorf("%d fragments arrive, but not what was sent", len(r.parts))
					}
				}
				in := udp(ip.client, port(ip.vip, "80")).withSize(3000)
				out := in.snat(ip.nodeIn, 0).to(ip.remote)
				pass(client, backend, in, out)
				re := udp(ip.remote, out.src.String()).withSize(2900)
				pass(backend, client, re, re.from(port(ip.vip, "80")).to(ip.client))
				counts := l.counters().minus(before)
				if held := uint64(2 * slices.Index(order, 0)); counts["fragment_held"] != held || counts["forwarded"] != 3 || counts["replied"] != 3 {
					t.Errorf("counters %v, want 3 forwarded, 3 replied, %d held", counts, held)
				}
			})
		}
	}
}

// TestHeldFragmentsOfOthersPass has fragments overtake that turn out not to be ours: they
// go on to the stack.
func TestHeldFragmentsOfOthersPass(t *testing.T) {
	live, err := labWithNeighbours()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		t.Run(ip.name, func(t *testing.T) {
			l := newLB(t)
			l.lab = live
			l.attach(outside)
			client := l.tap(outside)
			l.serve(ip, unix.IPPROTO_UDP, remote)
			before := l.counters()
			in := udp(ip.client, port(ip.shared, "81")).withSize(2000)
			in.df = false
			client.send(in.fragment(1200, 0))
			client.send(in.fragment(0, 1200))
			l.eventually(func() bool {
				c := l.counters().minus(before)
				return c["fragment_held"] == 1 && c["not_ours"] >= 2
			})
		})
	}
}

// TestHeldFragmentsAreBounded sends more of them than are kept: the latest are.
func TestHeldFragmentsAreBounded(t *testing.T) {
	l := newLB(t)
	ip := ipVersions[0]
	l.serve(ip, unix.IPPROTO_UDP, local)
	in := udp(ip.client, port(ip.vip, "80")).withSize(1400)
	in.df = false
	for i := range 8 { // of one datagram
		l.ingress(outside, in.fragment(512+i*8, 0)).dropped("fragment_held")
	}
	l.ingress(outside, in.fragment(1024, 0)).dropped("drop_fragment")
	for i := range 3 * uint32(BlixtLimitMAX_HELD) { // of others
		in.id = 100 + i
		l.ingress(outside, in.fragment(512, 0)).dropped("fragment_held")
	}
	in.id = 7 // those of the first datagram were overwritten
	l.ingress(outside, in.fragment(512, 0)).dropped("fragment_held")
}

// eventually waits until ok returns true.
func (l *lb) eventually(ok func() bool) {
	l.Helper()
	for deadline := time.Now().Add(2 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatal("it has not come true in 2 s")
		}
	}
}
