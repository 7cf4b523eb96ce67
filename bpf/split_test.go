// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// send sends a packet whose checksum is complete.
func (t *tap) send(p packet) {
	t.l.Helper()
	frame := p.bytes()
	copy(frame, t.mac[:])
	copy(frame[6:], farMAC[:])
	_, err := unix.Write(t.fd, append(make([]byte, vnetLen), frame...))
	t.l.must(err)
}

// receiveFragments receives the IPv4 fragments of a datagram, in order, and returns it
// with their number and identification.
func (t *tap) receiveFragments(mtu int) (datagram []byte, pieces int, id uint32) {
	t.l.Helper()
	for more := true; more; pieces++ {
		frame, sum := t.receive()
		ip := frame[14:]
		word := binary.BigEndian.Uint16(ip[6:])
		if size := int(binary.BigEndian.Uint16(ip[2:])); size > mtu || size != len(ip) {
			t.l.Errorf("fragment of %d bytes in a frame of %d, the MTU is %d", size, len(frame), mtu)
		}
		if at := int(word&0x1fff) * 8; at != len(datagram) {
			t.l.Fatalf("fragment of offset %d, want %d", at, len(datagram))
		}
		if n := uint32(binary.BigEndian.Uint16(ip[4:])); pieces > 0 && n != id {
			t.l.Errorf("a fragment has identification %#x, the first one %#x", n, id)
		} else {
			id = n
		}
		if sum.to != 0 {
			t.l.Error("the device has to sum a fragment")
		}
		if onesSum(ip[:20]) != 0xffff || word&0x4000 != 0 {
			t.l.Errorf("IPv4 header %x", ip[:20])
		}
		datagram, more = append(datagram, ip[20:]...), word&0x2000 != 0
	}
	return datagram, pieces, id
}

// TestSplit sends packets that are larger than the MTU of the way, and may be fragmented.
func TestSplit(t *testing.T) {
	live, err := labWithNeighbours()
	if err != nil {
		t.Fatal(err)
	}
	ip := ipVersions[0]
	live.do(func() {
		err = netlink.NeighSet(&netlink.Neigh{LinkIndex: int(live.devices[inside]), State: netlink.NUD_PERMANENT,
			IP: netip.MustParseAddr("10.1.0.2").AsSlice(), HardwareAddr: farMAC[:]})
	})
	if err != nil {
		t.Fatal(err)
	}
	const mtu = 1000
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, partial := range []bool{false, true} {
			for _, size := range []int{1200, 1333, 1440} {
				t.Run(fmt.Sprintf("%s of %d bytes, partial=%t", protocolName(protocol), size, partial), func(t *testing.T) {
					l := newLB(t)
					l.lab = live
					l.attach(outside, inside)
					client, backend := l.tap(outside), l.tap(inside)
					l.serve(ip, protocol, narrow)
					before, next := l.counters(), l.fragmentID()
					in := establishing(protocol, ip.client, port(ip.vip, "80")).withSize(size)
					in.df = false
					if partial {
						client.sendPartial(in)
					} else {
						client.send(in)
					}
					got, pieces, id := backend.receiveFragments(mtu)
					if want := in.snat(ip.nodeIn, 0).to(ip.narrow).layer4(); !bytes.Equal(got, want) {
						t.Errorf("%d fragments of %d bytes differ from what was sent, of %d", pieces, len(got), len(want))
					}
					if pieces != 2 || id != next&0xffff {
						t.Errorf("%d fragments of identification %#x, want 2 of %#x", pieces, id, next&0xffff)
					}
					want := counts{"fragmented": 1, "flow_new": 1, "forwarded": 2}
					if got := l.counters().minus(before); got.String() != want.String() {
						t.Errorf("counters %v, want %v", got, want)
					}
				})
			}
		}
		t.Run(protocolName(protocol)+" in fragments", func(t *testing.T) {
			l := newLB(t)
			l.lab = live
			l.attach(outside, inside)
			client, backend := l.tap(outside), l.tap(inside)
			l.serve(ip, protocol, narrow)
			in := establishing(protocol, ip.client, port(ip.vip, "80")).withSize(4000)
			in.df = false
			for _, f := range []packet{in.fragment(0, 1400), in.fragment(1400, 2800), in.fragment(2800, 0)} {
				client.send(f)
			}
			got, pieces, _ := backend.receiveFragments(mtu)
			if want := in.snat(ip.nodeIn, 0).to(ip.narrow).layer4(); !bytes.Equal(got, want) || pieces != 6 {
				t.Errorf("%d fragments of %d bytes differ from what was sent, of %d", pieces, len(got), len(want))
			}
		})
	}
	c := cases{}
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		c[protocolName(protocol)+" with IP options is dropped"] = func(l *lb) {
			l.serve(ip, protocol, narrow)
			in := establishing(protocol, ip.client, port(ip.vip, "80")).withSize(1200)
			in.df, in.options = false, []byte{1, 1, 1, 0}
			l.ingress(outside, in).dropped("drop_too_big")
		}
		c[protocolName(protocol)+" of merged segments is dropped"] = func(l *lb) {
			l.serve(ip, protocol, narrow)
			in := establishing(protocol, ip.client, port(ip.vip, "80")).withSize(2800)
			in.df = false
			l.send(hook{dev: outside, gsoSize: 1400}, in).dropped("drop_too_big")
		}
	}
	c.run(t)
}

// What follows a packet in its frame does not keep the packet from being split,
// even where the frame is too large for the device.
func TestSplitLeavesTrailersOut(t *testing.T) {
	for _, h := range []hook{{dev: outside}, {dev: outside, egress: true}, {dev: inside, egress: true, from: outside}} {
		l := newLB(t)
		ip := ipVersions[0]
		l.serve(ip, unix.IPPROTO_UDP, narrow)
		p := opening(unix.IPPROTO_UDP, ip.client, port(ip.vip, "80")).withSize(1400)
		p.padding = 81
		r, err := l.runRaw(h, p.bytes())
		l.must(err)
		r.wantVerdict(redirect, "fragmented")
	}
}
