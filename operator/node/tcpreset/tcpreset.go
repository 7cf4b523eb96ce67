// SPDX-License-Identifier: Apache-2.0

// Package tcpreset ends TCP connections of others: it sends RSTs in their name.
package tcpreset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sender sends RSTs. It needs CAP_NET_RAW.
type Sender struct{ v4, v6 int }

// New returns a sender in the current network namespace.
func New() (*Sender, error) {
	// Of this protocol a socket sends packets with the headers that it is given, and receives none.
	v4, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("open raw socket: %w", err)
	}
	v6, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		v6 = -1 // a host without IPv6
	}
	return &Sender{v4, v6}, nil
}

// Close releases the sockets.
func (s *Sender) Close() error {
	err := unix.Close(s.v4)
	if s.v6 >= 0 {
		err = errors.Join(err, unix.Close(s.v6))
	}
	return err
}

// Send sends a RST with this sequence number that seems to come from `from`.
func (s *Sender) Send(from, to netip.AddrPort, seq uint32) error {
	packet := rst(from, to, seq)
	if to.Addr().Is4() {
		return unix.Sendto(s.v4, packet, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	}
	if s.v6 < 0 {
		return unix.EAFNOSUPPORT
	}
	return unix.Sendto(s.v6, packet, 0, &unix.SockaddrInet6{Addr: to.Addr().As16()})
}

const (
	tcpLen   = 20
	hopLimit = 64 // the default that RFC 1700 recommends
	flagRST  = 0x04
)

// rst returns an IP packet: RFC 791, 3.1, RFC 8200, 3, RFC 9293, 3.1.
func rst(from, to netip.AddrPort, seq uint32) []byte {
	tcp := make([]byte, tcpLen)
	binary.BigEndian.PutUint16(tcp[0:], from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	binary.BigEndian.PutUint32(tcp[4:], seq)
	tcp[12], tcp[13] = tcpLen/4<<4, flagRST
	src, dst := from.Addr().AsSlice(), to.Addr().AsSlice()
	binary.BigEndian.PutUint16(tcp[16:], checksum(src, dst, []byte{0, unix.IPPROTO_TCP, 0, tcpLen}, tcp))
	if to.Addr().Is4() {
		ip := make([]byte, 20, 20+tcpLen) // the kernel adds identification and checksum
		ip[0], ip[8], ip[9] = 4<<4|5, hopLimit, unix.IPPROTO_TCP
		binary.BigEndian.PutUint16(ip[2:], 20+tcpLen)
		ip[6] = 0x40 // do not fragment
		copy(ip[12:], src)
		copy(ip[16:], dst)
		return append(ip, tcp...)
	}
	ip := make([]byte, 40, 40+tcpLen)
	ip[0], ip[6], ip[7] = 6<<4, unix.IPPROTO_TCP, hopLimit
	binary.BigEndian.PutUint16(ip[4:], tcpLen)
	copy(ip[8:], src)
	copy(ip[24:], dst)
	return append(ip, tcp...)
}

// checksum returns the Internet checksum of parts of even length: RFC 1071.
func checksum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, p := range parts {
		for i := 0; i < len(p); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
