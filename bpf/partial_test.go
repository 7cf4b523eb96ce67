// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Local senders and containers send packets whose checksum the device has to
// complete (CHECKSUM_PARTIAL). Test runs do not support them. So here such
// packets come in by a real device, and are captured where they leave.

var farMAC = [6]byte{2, 0, 0, 0, 0, 9} // of routers and backends: no device here has it

var labWithNeighbours = sync.OnceValues(func() (*lab, error) {
	return newLab(func(l *lab) error {
		if err := l.configure(); err != nil {
			return err
		}
		for dev, addrs := range map[string][]string{outside: {"192.0.2.254", "2001:db8::254"}, inside: {"10.1.0.10", "fd00:1::10"}} {
			for _, a := range addrs {
				n := &netlink.Neigh{LinkIndex: int(l.devices[dev]), State: netlink.NUD_PERMANENT, IP: netip.MustParseAddr(a).AsSlice(),
					HardwareAddr: farMAC[:]}
				if err := netlink.NeighSet(n); err != nil {
					return err
				}
			}
		}
		return nil
	})
})

// attach attaches the program to both hooks of the devices until the test ends.
func (l *lb) attach(devs ...string) {
	l.Helper()
	for _, dev := range devs {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			var attached link.Link
			var err error
			l.lab.do(func() {
				attached, err = link.AttachTCX(link.TCXOptions{Interface: int(l.lab.devices[dev]), Program: l.Blixt, Attach: at})
			})
			l.must(err)
			l.Cleanup(func() { _ = attached.Close() })
		}
	}
}

// A tap is a packet socket on the peer of a device.
type tap struct {
	l  *lb
	fd int
}

const vnetLen = 10 // size of struct virtio_net_hdr

func (l *lb) tap(dev string) *tap {
	l.Helper()
	t := &tap{l: l}
	l.lab.do(func() {
		peer, err := netlink.LinkByName(dev + "-peer")
		l.must(err)
		t.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(htons(unix.ETH_P_ALL)))
		l.must(err)
		l.must(unix.SetsockoptInt(t.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
		l.must(unix.SetsockoptTimeval(t.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}))
		l.must(unix.Bind(t.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: peer.Attrs().Index}))
	})
	l.Cleanup(func() { _ = unix.Close(t.fd) })
	return t
}

// sendPartial sends a packet whose layer-4 checksum covers the pseudo header
// only: the device has to complete it.
func (t *tap) sendPartial(p packet) {
	t.l.Helper()
	frame := p.bytes()
	copy(frame[6:], farMAC[:])
	start := len(frame) - len(p.layer4()) - p.padding
	offset := 16
	if p.protocol == unix.IPPROTO_UDP {
		offset = 6
	}
	sum := onesSum(pseudoHeader(p.src.Addr(), p.dst.Addr(), p.protocol, len(p.layer4())))
	if sum == 0xffff {
		sum = 0 // the same number in ones' complement, and harder to get right
	}
	binary.BigEndian.PutUint16(frame[start+offset:], sum)
	header := make([]byte, vnetLen)
	header[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(header[6:], uint16(start))
	binary.NativeEndian.PutUint16(header[8:], uint16(offset))
	_, err := unix.Write(t.fd, append(header, frame...))
	t.l.must(err)
}

// receive returns the next frame of the test. It completes the checksum in
// place of the device, and reports whether that was necessary.
func (t *tap) receive() (frame []byte, partial bool) {
	t.l.Helper()
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		b := make([]byte, 4096)
		n, from, err := unix.Recvfrom(t.fd, b, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		t.l.must(err)
		header, frame := b[:vnetLen], b[vnetLen:n]
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if frame[12] == 0x86 && (frame[20] == 0 || frame[20] == unix.IPPROTO_ICMPV6 && frame[54] >= 130) {
			continue // multicast listener and neighbour discovery
		}
		if header[0]&1 == 0 {
			return frame, false
		}
		start := int(binary.NativeEndian.Uint16(header[6:]))
		at := start + int(binary.NativeEndian.Uint16(header[8:]))
		binary.BigEndian.PutUint16(frame[at:], ^onesSum(frame[start:]))
		if frame[at] == 0 && frame[at+1] == 0 { // as skb_checksum_help does
			frame[at], frame[at+1] = 0xff, 0xff
		}
		return frame, true
	}
	t.l.Fatal("no packet arrived within 2 s")
	return nil, false
}

// wantPacket receives the next packet and checks it.
func (t *tap) wantPacket(p packet) {
	t.l.Helper()
	got, partial := t.receive()
	frame := p.bytes()
	copy(frame, farMAC[:])
	copy(frame[6:], deviceMAC[:])
	if !bytes.Equal(got, frame) {
		t.l.Errorf("packet (-want +got):\n%s", diff(frame, got, false))
	}
	if err := checkSums(got, 14); err != nil {
		t.l.Errorf("after the device: %v", err)
	}
	if !partial {
		t.l.Error("checksum is complete, want it left to the device")
	}
}

func TestPartialChecksum(t *testing.T) {
	live, err := labWithNeighbours()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			t.Run(ip.name+" "+protocolName(protocol), func(t *testing.T) {
				l := newLB(t)
				l.lab = live
				l.attach(outside, inside)
				client, backend := l.tap(outside), l.tap(inside)
				l.serve(ip, protocol, remote)
				vip := port(ip.vip, "80")
				before := l.counters()

				in := opening(protocol, ip.client, vip)
				out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
				client.sendPartial(in)
				backend.wantPacket(out)
				re := answer(protocol, ip.remote, out.src.String())
				backend.sendPartial(re)
				client.wantPacket(re.from(vip).to(ip.client).hop())
				in = establishing(protocol, ip.client, vip).withSize(1000)
				client.sendPartial(in)
				backend.wantPacket(in.snat(ip.nodeIn, 0).to(ip.remote).hop())
				want := counts{"flow_new": 1, "forwarded": 2, "replied": 1, "flow_established": 1}
				if got := l.counters().minus(before); got.String() != want.String() {
					t.Errorf("counters %v, want %v", got, want)
				}
				if protocol != unix.IPPROTO_TCP {
					return
				}
				// RSTs: the one that the program makes, and the one that a backend's packet is turned into.
				in = establishing(protocol, ip.client, port(ip.vip, "81"))
				client.sendPartial(in)
				client.wantPacket(in.rstAnswer(rst, 5001, 0))
				l.removeBackend(remote)
				re = re.segment(ack|psh, 5001, 1001, "last words")
				backend.sendPartial(re)
				client.wantPacket(re.from(vip).to(ip.client).turnedIntoRST())
			})
		}
		// The sum of the pseudo header can be zero, which does not mean "no checksum" here.
		t.Run(ip.name+" UDP with a partial sum of zero", func(t *testing.T) {
			l := newLB(t)
			l.lab = live
			l.attach(outside, inside)
			client, backend := l.tap(outside), l.tap(inside)
			l.serve(ip, unix.IPPROTO_UDP, remote)
			in := udp(ip.client, port(ip.vip, "80"))
			length := func(n int) uint16 {
				return onesSum(pseudoHeader(in.src.Addr(), in.dst.Addr(), in.protocol, n))
			}
			// The client's address can be chosen such that the sum of the pseudo header becomes zero.
			a := in.src.Addr().AsSlice()
			in = in.withSize(100)
			sum := length(len(in.layer4()))
			low := uint32(binary.BigEndian.Uint16(a[len(a)-2:])) + 0xffff - uint32(sum)
			binary.BigEndian.PutUint16(a[len(a)-2:], uint16(low%0xffff))
			src, _ := netip.AddrFromSlice(a)
			in.src = netip.AddrPortFrom(src, 40000)
			if got := length(len(in.layer4())); got != 0xffff && got != 0 {
				t.Fatalf("partial sum of the test packet is %#x, want 0 or 0xffff", got)
			}
			client.sendPartial(in)
			backend.wantPacket(in.snat(ip.nodeIn, 0).to(ip.remote).hop())
		})
	}
}
