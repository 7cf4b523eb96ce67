// SPDX-License-Identifier: Apache-2.0

// Package announce is a model of the messages by which nodes announce clients to
// each other. It shares no code with the data plane, so that tests can compare
// both: it signs and reads messages, and puts them into packets. Packets begin
// with their IP header, and are no fragments.
package announce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Len is the length of a message.
const Len = 40

// ID is in every message: Blixt, version 1.
const ID = 0xb117

// Kinds of a message: as an option of TCP (RFC 6994), and in the surplus area of a datagram or behind a SYN (RFC 9868).
const (
	KindTCP     = 253
	KindSurplus = 127
)

// Flags of a message. The two bits above them are the index of the key.
const (
	Alone  = 1 << iota // the packet has nothing but the message
	Ask                // nothing is announced: the sender asks whose packets these are
	Plain              // the source is a node, and stays what it is
	Opens              // alone, as an option of a SYN: the client's SYN follows
	Probe              // nothing is announced, an answer is wanted
	Answer             // of a probe, with the time of the probe
)

// Message is what a message says.
type Message struct {
	Kind    uint8 // 0: what the place asks for
	Flags   uint8
	Key     uint8 // index of the key
	Idle    uint8 // the flow may be without packets for 2^Idle ticks
	Client  netip.AddrPort
	Time    uint32 // of the sender's CLOCK_MONOTONIC, in 2^24 ns
	Boot    uint16
	Service uint16
}

// Tuple is that of the packet which carries a message.
type Tuple struct {
	Src, Dst netip.AddrPort
	Protocol uint8
}

// bytes are those of struct flow_key.
func (t Tuple) bytes() []byte {
	src, dst := t.Src.Addr().As16(), t.Dst.Addr().As16()
	b := append(src[:], dst[:]...)
	b = binary.BigEndian.AppendUint16(b, t.Src.Port())
	b = binary.BigEndian.AppendUint16(b, t.Dst.Port())
	return append(b, t.Protocol, 0, 0, 0)
}

// Now is the time of a message that is made now, on this machine. The clock is the coarse one, as in the program.
func Now() uint32 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
		panic(err)
	}
	return uint32(now.Nano() >> 24)
}

// Sign signs the bytes b of a message, whatever they say, for a packet with this tuple.
func Sign(key Key, t Tuple, b []byte) {
	binary.LittleEndian.PutUint64(b[32:], mac(key, t, b[:32]))
}

// Encode returns the message, signed for a packet with this tuple.
func (m Message) Encode(key Key, t Tuple) []byte {
	client := m.Client.Addr()
	if !client.IsValid() {
		client = netip.IPv6Unspecified()
	}
	addr := client.As16()
	b := []byte{m.Kind, Len}
	b = binary.BigEndian.AppendUint16(b, ID)
	b = append(b, m.Flags&0x3f|m.Key<<6, m.Idle)
	b = binary.BigEndian.AppendUint16(b, m.Client.Port())
	b = append(b, addr[:]...)
	b = binary.BigEndian.AppendUint32(b, m.Time)
	b = binary.BigEndian.AppendUint16(b, m.Boot)
	b = binary.BigEndian.AppendUint16(b, m.Service)
	b = append(b, make([]byte, 8)...)
	Sign(key, t, b)
	return b
}

func mac(key Key, t Tuple, signed []byte) uint64 {
	return Hash(key, append(t.bytes(), signed...))
}

// Genuine reports whether the key has signed the message b for this tuple.
func Genuine(key Key, t Tuple, b []byte) bool {
	return len(b) == Len && binary.LittleEndian.Uint64(b[32:]) == mac(key, t, b[:32])
}

// Parse decodes a message. It does not ask who has signed it.
func Parse(b []byte) (Message, error) {
	if len(b) != Len || b[1] != Len || binary.BigEndian.Uint16(b[2:]) != ID {
		return Message{}, errors.New("not a message of this version")
	}
	addr := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	return Message{
		Kind: b[0], Flags: b[4] & 0x3f, Key: b[4] >> 6, Idle: b[5],
		Client: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[6:])),
		Time:   binary.BigEndian.Uint32(b[24:]), Boot: binary.BigEndian.Uint16(b[28:]), Service: binary.BigEndian.Uint16(b[30:]),
	}, nil
}

func (m Message) String() string {
	return fmt.Sprintf("kind %d flags %06b key %d idle %d client %v time %#x boot %d service %#04x", m.Kind, m.Flags, m.Key, m.Idle, m.Client, m.Time, m.Boot, m.Service)
}
