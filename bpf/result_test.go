// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// A result is what the program has done with one packet.
type result struct {
	l       *lb
	hook    hook
	in      packet
	frame   []byte // as sent
	verdict uint32
	out     []byte
	counts  counts
	routed  bool   // redirected, with a link header that the kernel will replace
	summed  bool   // run with checksumComplete
	began   uint32 // time of messages then
	stale   bool   // skb->csum does not match the packet: then the kernel returns nothing else
}

func (r *result) linkLen() int {
	switch {
	case r.in.raw:
		return 0
	case r.in.vlan != 0:
		return 18
	}
	return 14
}

var verdictNames = map[uint32]string{tcxNext: "next", tcxDrop: "drop", redirect: "redirect"}

func (r *result) wantVerdict(verdict uint32, counters string) {
	r.l.Helper()
	if !r.stale && r.verdict != verdict {
		r.l.Errorf("verdict %s (%d), want %s", verdictNames[r.verdict], int32(r.verdict), verdictNames[verdict])
	}
	if diff := cmp.Diff(parseCounts(counters), r.counts); diff != "" {
		r.l.Errorf("counters (-want +got):\n%s", diff)
	}
}

// blank changes the end of the source MAC address so that the sum of the link
// header is zero: bpf_redirect_neigh adds that sum to a complete checksum and
// does not subtract it. The kernel replaces the header anyway.
func blank(frame []byte) {
	frame[10], frame[11] = 0, 0
	binary.BigEndian.PutUint16(frame[10:], ^onesSum(frame[:14]))
}

// wantPacket checks the packet's bytes and all its checksums.
func (r *result) wantPacket(want packet) {
	r.l.Helper()
	ports := want.protocol == unix.IPPROTO_TCP || want.protocol == unix.IPPROTO_UDP
	if ports && want.piece != nil && !want.piece.atomic && want.id == r.in.id {
		want.id = r.l.fragmentID() - 1 // if the test names none, it is that of the latest datagram
	}
	frame := want.bytes()
	if r.stale {
		// When the size changes the skb loses its complete checksum, which the kernel's check does not consider.
		if len(frame) == len(r.frame) {
			r.l.Error("skb->csum (CHECKSUM_COMPLETE) does not match the packet any more")
		}
		return
	}
	near, far := slices.Concat(peerMAC[:], deviceMAC[:]), slices.Concat(farMAC[:], deviceMAC[:])
	if r.routed && (bytes.HasPrefix(r.out, near) || bytes.HasPrefix(r.out, far)) {
		copy(frame, r.out[:12]) // from a slot: bpf_redirect sends it to the next hop as it is
	} else if r.summed && r.routed && len(r.out) > 14 && onesSum(r.out[:14]) == 0xffff {
		blank(frame)
	}
	if !bytes.Equal(r.out, frame) {
		r.l.Errorf("packet (-want +got):\n%s", diff(frame, r.out, want.raw))
	}
	link := 14
	if want.raw {
		link = 0
	} else if want.vlan != 0 {
		link = 18
	}
	if err := checkSums(r.out, link); err != nil {
		r.l.Errorf("after the program: %v", err)
	}
}

// diff shows where two frames differ, decoded and in hex.
func diff(want, got []byte, raw bool) string {
	a, b := dump(want, raw), dump(got, raw)
	var s strings.Builder
	for i := range min(max(len(a), len(b)), 24) { // the headers, if the packet is long
		switch {
		case i < len(a) && i < len(b) && a[i] == b[i]:
			continue
		case i < len(a):
			fmt.Fprintf(&s, "-%s\n", a[i])
		}
		if i < len(b) {
			fmt.Fprintf(&s, "+%s\n", b[i])
		}
	}
	return s.String()
}

// dump returns a frame, decoded and in hex.
func dump(frame []byte, raw bool) []string {
	var first gopacket.Decoder = layers.LayerTypeEthernet
	if raw && len(frame) > 0 {
		first = layers.LayerTypeIPv4
		if frame[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
	}
	lines := make([]string, 6) // so that the hex of two frames begins on the same line
	copy(lines, strings.Split(strings.TrimSpace(gopacket.NewPacket(frame, first, gopacket.Default).String()), "\n"))
	for i := 0; i < len(frame); i += 16 {
		lines = append(lines, fmt.Sprintf("%4d %s", i, hex.EncodeToString(frame[i:min(i+16, len(frame))])))
	}
	return lines
}

// What a test expects of a packet. Each takes the names of the counters that
// must rise; no other counter may.

// toStack: translated into want, then through the stack.
func (r *result) toStack(want packet, counters string) {
	r.l.Helper()
	r.wantVerdict(tcxNext, counters)
	r.wantPacket(want)
}

// redirected: translated into want, then sent past the stack.
func (r *result) redirected(want packet, counters string) {
	r.l.Helper()
	r.routed = true
	r.wantVerdict(redirect, counters)
	r.wantPacket(want)
}

func (r *result) dropped(counters string) {
	r.l.Helper()
	r.wantVerdict(tcxDrop, counters)
}

// untouched: passed on to the next program, unchanged.
func (r *result) untouched(counters string) {
	r.l.Helper()
	r.wantVerdict(tcxNext, counters)
	if r.stale {
		r.l.Error("skb->csum (CHECKSUM_COMPLETE) does not match the packet any more")
	} else if !bytes.Equal(r.out, r.frame) {
		r.l.Errorf("packet must not change (-want +got):\n%s", diff(r.frame, r.out, r.in.raw))
	}
}
