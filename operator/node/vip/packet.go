// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Offsets and values of ARP (RFC 826) and neighbour discovery (RFC 4861), behind the
// link's header.
const (
	arpLen                       = 28
	arpSenderMAC, arpSenderIP    = 8, 14
	arpTargetMAC, arpTargetIP    = 18, 24
	arpRequest, arpReply         = 1, 2
	ip6HeaderLen                 = 40
	icmp6Solicit, icmp6Advertise = 135, 136
	ndTarget                     = ip6HeaderLen + 8
	ndOptions                    = ndTarget + 16
	ndRouter, ndOverride         = 0x80, 0x20
)

const (
	broadcastMAC = "\xff\xff\xff\xff\xff\xff"
	// allNodesMAC is that of ff02::1.
	allNodesMAC = "\x33\x33\x00\x00\x00\x01"
)

// frame is a packet, and whom on the link it is for.
type frame struct {
	to       string
	protocol uint16
	payload  []byte
}

// newFrame returns a probe for an address, or its announcement. router: the host forwards
// IPv6, and says so.
func newFrame(m message, ip netip.Addr, mac string, router bool) frame {
	if ip.Is4() {
		return newARP(m, ip, mac)
	}
	if m == probe {
		return newSolicitation(ip)
	}
	return newAdvertisement(ip, mac, router)
}

// newARP returns an ARP request for the address. A probe has no sender address; in an
// announcement it is the address itself (RFC 5227, 2.1.1 and 2.3).
func newARP(m message, ip netip.Addr, mac string) frame {
	p := []byte{0, 1, 8, 0, 6, 4, 0, arpRequest, arpLen - 1: 0}
	copy(p[arpSenderMAC:], mac)
	if m == announcement {
		copy(p[arpSenderIP:], ip.AsSlice())
	}
	copy(p[arpTargetIP:], ip.AsSlice())
	return frame{broadcastMAC, unix.ETH_P_ARP, p}
}

// newSolicitation returns a neighbour solicitation as duplicate address detection sends
// it: from no address, to the solicited-node address (RFC 4862, 5.4.2).
func newSolicitation(ip netip.Addr) frame {
	a := ip.As16()
	group := netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
	return frame{
		"\x33\x33\xff" + string(a[13:]), unix.ETH_P_IPV6,
		newICMP6(netip.IPv6Unspecified(), group, append([]byte{icmp6Solicit, 0, 0, 0, 0, 0, 0, 0}, a[:]...)),
	}
}

// newAdvertisement returns an unsolicited neighbour advertisement that overrides what
// neighbours have cached (RFC 4861, 7.2.6).
func newAdvertisement(ip netip.Addr, mac string, router bool) frame {
	flags := byte(ndOverride)
	if router {
		flags |= ndRouter
	}
	body := append([]byte{icmp6Advertise, 0, 0, 0, flags, 0, 0, 0}, ip.AsSlice()...)
	body = append(append(body, 2, 1), mac...) // target link-layer address
	return frame{allNodesMAC, unix.ETH_P_IPV6, newICMP6(ip, netip.IPv6LinkLocalAllNodes(), body)}
}

// newICMP6 returns an IPv6 packet of a body without its checksum.
func newICMP6(from, to netip.Addr, body []byte) []byte {
	p := []byte{0x60, 0, 0, 0, 0, byte(len(body)), unix.IPPROTO_ICMPV6, 255}
	p = append(append(append(p, from.AsSlice()...), to.AsSlice()...), body...)
	sum := uint32(len(body)) + unix.IPPROTO_ICMPV6
	for i := 8; i < len(p); i += 2 { // the addresses, and the body, whose length is even
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[ip6HeaderLen+2:], ^uint16(sum))
	return p
}

// parseARP returns what an ARP packet shows about an address. It returns false for what
// is no ARP for IPv4 on Ethernet, or shows nothing.
func parseARP(p []byte) (ip netip.Addr, mac string, kind sign, ok bool) {
	if len(p) < arpLen || !bytes.Equal(p[:6], []byte{0, 1, 8, 0, 6, 4}) {
		return ip, "", 0, false
	}
	mac = string(p[arpSenderMAC:arpSenderIP])
	sender, target := netip.AddrFrom4([4]byte(p[arpSenderIP:])), netip.AddrFrom4([4]byte(p[arpTargetIP:]))
	switch {
	case sender.IsUnspecified() && p[7] == arpRequest:
		return target, mac, asks, isUnicast(mac)
	case sender == target || p[7] == arpRequest:
		return sender, mac, announces, isUnicast(mac)
	}
	return sender, mac, answers, isUnicast(mac)
}

// parseND is parseARP for neighbour discovery. from is the sender's MAC.
func parseND(p []byte, from string) (ip netip.Addr, mac string, kind sign, ok bool) {
	// Hop limit 255 shows that it comes from the link.
	if len(p) < ndOptions || p[6] != unix.IPPROTO_ICMPV6 || p[7] != 255 {
		return ip, "", 0, false
	}
	ip = netip.AddrFrom16([16]byte(p[ndTarget:]))
	switch p[ip6HeaderLen] {
	case icmp6Solicit:
		sender := netip.AddrFrom16([16]byte(p[8:]))
		return ip, from, asks, sender.IsUnspecified() && isUnicast(from)
	case icmp6Advertise:
		// What answers a probe goes to all, as what nobody asked for does.
		return ip, from, announces, isUnicast(from)
	}
	return ip, "", 0, false
}

// isUnicast reports whether a MAC may be that of a host.
func isUnicast(mac string) bool {
	return len(mac) == 6 && mac[0]&1 == 0 && mac != "\x00\x00\x00\x00\x00\x00"
}
