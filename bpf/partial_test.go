// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

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
	l   *lb
	fd  int
	mac [6]byte // of the device
}

const vnetLen = 10 // size of struct virtio_net_hdr

func (l *lb) tap(dev string) *tap {
	l.Helper()
	t := &tap{l: l}
	l.lab.do(func() {
		peer, err := netlink.LinkByName(dev + "-peer")
		l.must(err)
		device, err := netlink.LinkByName(dev)
		l.must(err)
		t.mac = [6]byte(device.Attrs().HardwareAddr)
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
	t.sendMerged(p, 0)
}

// sendMerged sends a TCP packet as GRO merges it, of segments with so much payload.
func (t *tap) sendMerged(p packet, gsoSize uint16) {
	t.l.Helper()
	p.partial = true
	frame := p.bytes()
	copy(frame, t.mac[:])
	copy(frame[6:], farMAC[:])
	start := len(frame) - len(p.layer4()) - p.padding
	offset := 16
	if p.protocol == unix.IPPROTO_UDP {
		offset = 6
	}
	header := make([]byte, vnetLen)
	header[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(header[6:], uint16(start))
	binary.NativeEndian.PutUint16(header[8:], uint16(offset))
	if gsoSize > 0 {
		header[1] = 1 // VIRTIO_NET_HDR_GSO_TCPV4
		if p.v6() {
			header[1] = 4
		}
		binary.NativeEndian.PutUint16(header[2:], uint16(start+20))
		binary.NativeEndian.PutUint16(header[4:], gsoSize)
	}
	_, err := unix.Write(t.fd, append(header, frame...))
	t.l.must(err)
}

// receive returns the next frame of the test. sum is where the device has to
// sum it from, and to where it writes the checksum: 0 if it has not to.
func (t *tap) receive() (frame []byte, sum struct{ from, to int }) {
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
		if header[0]&1 != 0 {
			sum.from = int(binary.NativeEndian.Uint16(header[6:]))
			sum.to = sum.from + int(binary.NativeEndian.Uint16(header[8:]))
		}
		return frame, sum
	}
	t.l.Fatal("no packet arrived within 2 s")
	return nil, sum
}

// complete writes the checksum in place of the device.
func complete(frame []byte, from, to int) {
	binary.BigEndian.PutUint16(frame[to:], ^onesSum(frame[from:]))
	if frame[to] == 0 && frame[to+1] == 0 { // as skb_checksum_help does
		frame[to], frame[to+1] = 0xff, 0xff
	}
}

// wantPacket receives the next packet and checks it.
func (t *tap) wantPacket(p packet) {
	t.l.Helper()
	got, sum := t.receive()
	if sum.to == 0 {
		t.l.Error("checksum is complete, want it left to the device")
	} else {
		complete(got, sum.from, sum.to)
	}
	t.compare(got, p)
	if err := checkSums(got, 14); err != nil {
		t.l.Errorf("checksums: %v", err)
	}
}

func (t *tap) compare(got []byte, p packet) {
	t.l.Helper()
	frame := p.bytes()
	copy(frame, farMAC[:])
	copy(frame[6:], t.mac[:])
	if !bytes.Equal(got, frame) {
		t.l.Errorf("packet (-want +got):\n%s", diff(frame, got, false))
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
				want := parseCounts("flow_new forwarded=2 replied" + andEstablished(protocol))
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

// setTxChecksum tells whether the device claims to complete checksums itself.
func (l *lb) setTxChecksum(dev string, on bool) {
	l.Helper()
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_STXCSUM}
	if on {
		value.data = 1
	}
	l.lab.do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		l.must(err)
		defer func() { _ = unix.Close(fd) }()
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:], dev)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			l.must(errno)
		}
	})
}

// withPartialPadding is an ICMP error about a packet whose checksum is partial:
// zeros follow the quote. Whoever sums the message, writes 0xffff among them.
func (p packet) withPartialPadding(about uint8, summed bool) packet {
	most := 576 - 28 - 20
	if p.v6() {
		most = 1280 - 48 - 20
	}
	padding := make([]byte, 20)
	if summed {
		at := map[uint8]int{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: 6}[about]
		padding[at], padding[at+1] = 0xff, 0xff
	}
	p.payload = append(slices.Clone(p.payload[:min(len(p.payload), most)]), padding...)
	return p
}

// TestICMPAboutPartialChecksum answers packets whose checksum is partial with
// ICMP errors. The answer must be right if the device sums it, if the kernel
// does so in place of the device, and if nobody does as on the way to a
// container on this host.
func TestICMPAboutPartialChecksum(t *testing.T) {
	live, err := labWithNeighbours()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for _, offload := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s %s, offload %t", ip.name, protocolName(protocol), offload), func(t *testing.T) {
					l := newLB(t)
					l.lab = live
					l.setTxChecksum(outside, offload)
					t.Cleanup(func() { l.setTxChecksum(outside, true) })
					l.attach(outside)
					client := l.tap(outside)
					l.serve(ip, protocol, narrow)
					want := func(e packet) {
						t.Helper()
						frame, sum := client.receive()
						if left := sum.to != 0; left != offload {
							t.Errorf("checksum left to the device: %t, want %t", left, offload)
						}
						if offload {
							client.compare(frame, e.withPartialPadding(protocol, false))
							complete(frame, sum.from, sum.to)
						}
						client.compare(frame, e.withPartialPadding(protocol, true))
					}
					mtu := map[string]uint32{"IPv4": 1000, "IPv6": 1280}[ip.name]
					for _, exts := range [][]extension{nil, {hopByHop()}} {
						in := establishing(protocol, ip.client, port(ip.vip, "80")).withSize(1350)
						in.df, in.partial = true, true
						if exts != nil && ip.name == "IPv4" {
							in.options = []byte{1, 1, 1, 1, 1, 1, 1, 0}
						} else {
							in.exts = exts
						}
						client.sendPartial(in)
						want(in.tooBig(mtu))
						if protocol == unix.IPPROTO_TCP {
							in = in.withSize(20000)
							client.sendMerged(in, 1300)
							want(in.tooBig(mtu))
						} else {
							in = in.to(port(ip.vip, "81")).withSize(1)
							client.sendPartial(in)
							want(in.portUnreachable())
						}
					}
				})
			}
		}
	}
}
