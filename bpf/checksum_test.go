// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// onesSum is the ones' complement sum of RFC 1071, not complemented.
func onesSum(b []byte) uint16 {
	var sum uint64
	for ; len(b) > 1; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func pseudoHeader(src, dst netip.Addr, protocol uint8, length int) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	if src.Is4() {
		return binary.BigEndian.AppendUint16(append(b, 0, protocol), uint16(length))
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(length)), 0, 0, 0, protocol)
}

// checkSums verifies every checksum of a frame: IP header, layer 4, and those
// of the packet that an ICMP error quotes. link is the length of the link
// header.
func checkSums(frame []byte, link int) error {
	if len(frame) < link+20 {
		return fmt.Errorf("frame of %d bytes", len(frame))
	}
	return checkIP(frame[link:], false)
}

// checkIP checks the packet b. A quoted packet may be cut short.
func checkIP(b []byte, quote bool) error {
	var src, dst netip.Addr
	var protocol uint8
	var data []byte
	whole := true
	cut := false
	switch b[0] >> 4 {
	case 4:
		head, length := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		if len(b) < head {
			return errors.New("IPv4 header cut short")
		}
		if sum := onesSum(b[:head]); sum != 0xffff {
			return fmt.Errorf("IPv4 header checksum off: sum %#x", sum)
		}
		cut = length > len(b)
		if cut && !quote {
			return fmt.Errorf("IPv4 length %d in %d bytes", length, len(b))
		}
		src, _ = netip.AddrFromSlice(b[12:16])
		dst, _ = netip.AddrFromSlice(b[16:20])
		protocol, data = b[9], b[head:min(length, len(b))]
		whole = binary.BigEndian.Uint16(b[6:])&0x3fff == 0
	case 6:
		length := 40 + int(binary.BigEndian.Uint16(b[4:]))
		if len(b) < 40 {
			return errors.New("IPv6 header cut short")
		}
		cut = length > len(b)
		if cut && !quote {
			return fmt.Errorf("IPv6 length %d in %d bytes", length, len(b))
		}
		src, _ = netip.AddrFromSlice(b[8:24])
		dst, _ = netip.AddrFromSlice(b[24:40])
		protocol, data = b[6], b[40:min(length, len(b))]
		for protocol == unix.IPPROTO_HOPOPTS || protocol == unix.IPPROTO_ROUTING || protocol == unix.IPPROTO_DSTOPTS ||
			protocol == unix.IPPROTO_FRAGMENT {
			size := int(data[1])*8 + 8
			if protocol == unix.IPPROTO_FRAGMENT {
				size = 8
				if binary.BigEndian.Uint16(data[2:])&0xfff9 != 0 {
					return nil
				}
			}
			protocol, data = data[0], data[size:]
		}
	default:
		return fmt.Errorf("IP version %d", b[0]>>4)
	}
	if cut || !whole {
		return nil // the sum covers bytes that are not here
	}
	return check4(src, dst, protocol, data)
}

func check4(src, dst netip.Addr, protocol uint8, data []byte) error {
	sum := onesSum(append(pseudoHeader(src, dst, protocol, len(data)), data...))
	switch protocol {
	case unix.IPPROTO_UDP:
		if binary.BigEndian.Uint16(data[6:]) == 0 {
			return nil
		}
	case unix.IPPROTO_ICMP:
		sum = onesSum(data)
	case unix.IPPROTO_TCP, unix.IPPROTO_ICMPV6:
	default:
		return nil
	}
	if sum != 0xffff {
		return fmt.Errorf("checksum of protocol %d from %s to %s off: sum %#x", protocol, src, dst, sum)
	}
	isError := protocol == unix.IPPROTO_ICMP && (data[0] == 3 || data[0] == 11 || data[0] == 12) ||
		protocol == unix.IPPROTO_ICMPV6 && data[0] < 128
	if isError {
		if err := checkIP(data[8:], true); err != nil {
			return fmt.Errorf("quoted packet: %w", err)
		}
	}
	return nil
}
