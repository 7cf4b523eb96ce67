// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Lengths of frames: the shortest that Ethernet has for IPv4, with its checksum, and as
// much more for IPv6 as the header is longer. A generator needs multiples of 8.
var frameSize = map[int]int{4: 64, 6: 88}

// frame builds a datagram.
func frame(from, to net.HardwareAddr, src, dst netip.AddrPort, checksum bool) ([]byte, error) {
	eth := &layers.Ethernet{SrcMAC: from, DstMAC: to}
	udp := &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
	var network interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	}
	family, head := 4, 14+20+8
	if src.Addr().Is6() {
		family, head = 6, 14+40+8
		eth.EthernetType = layers.EthernetTypeIPv6
		network = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
	} else {
		eth.EthernetType = layers.EthernetTypeIPv4
		network = &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, Flags: layers.IPv4DontFragment, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
	}
	if err := udp.SetNetworkLayerForChecksum(network); err != nil {
		return nil, err
	}
	buffer := gopacket.NewSerializeBuffer()
	payload := gopacket.Payload(make([]byte, frameSize[family]-head))
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, network, udp, payload); err != nil {
		return nil, fmt.Errorf("build frame: %w", err)
	}
	f := bytes.Clone(buffer.Bytes())
	if !checksum {
		binary.BigEndian.PutUint16(f[head-2:], 0)
	}
	return f, nil
}

// ends returns where a datagram comes from and goes to, and false for other frames.
func ends(f []byte) (src, dst netip.AddrPort, ok bool) {
	at, size := 26, 4
	switch {
	case len(f) >= 42 && f[12] == 8 && f[13] == 0 && f[23] == 17:
	case len(f) >= 62 && f[12] == 0x86 && f[13] == 0xdd && f[20] == 17:
		at, size = 22, 16
	default:
		return src, dst, false
	}
	from, _ := netip.AddrFromSlice(f[at : at+size])
	to, _ := netip.AddrFromSlice(f[at+size : at+2*size])
	ports := f[at+2*size:]
	return netip.AddrPortFrom(from, binary.BigEndian.Uint16(ports)), netip.AddrPortFrom(to, binary.BigEndian.Uint16(ports[2:])), true
}

// answer returns a datagram with its ends exchanged. Checksums do not change by that.
func answer(f []byte) []byte {
	a := bytes.Clone(f)
	swap := func(at, size int) {
		copy(a[at:], f[at+size:at+2*size])
		copy(a[at+size:], f[at:at+size])
	}
	swap(0, 6)
	if f[12] == 8 {
		swap(26, 4)
		swap(34, 2)
	} else {
		swap(22, 16)
		swap(54, 2)
	}
	return a
}
