// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
)

// The key and the input of the paper's appendix A are the numbers from 0 on.
func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestSipIsThatOfThePaper(t *testing.T) {
	key := Key(counting(16))
	if got, want := Hash(key, counting(15)), uint64(0xa129ca6149be45e5); got != want {
		t.Errorf("appendix A: %#x, want %#x", got, want)
	}
	// Of the authors' reference implementation: the hashes of the first 0, 1, ... bytes, as it writes them.
	for n, want := range []uint64{0x310e0edd47db6f72, 0xfd67dc93c539f874, 0x5a4fa9d909806c0d, 0x2d7efbd796666785,
		0xb7877127e09427cf, 0x8da699cd64557618, 0xcee3fe586e46c9cb, 0x37d1018bf50002ab, 0x6224939a79f5f593} {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], Hash(key, counting(n)))
		if got := binary.BigEndian.Uint64(b[:]); got != want {
			t.Errorf("%d bytes: %#x, want %#x", n, got, want)
		}
	}
}

// A packet of each kind that may carry a message.
func packet(r *rand.Rand, protocol uint8, v6 bool, flags uint8, payload int) []byte {
	addrs := []string{"10.0.0.1", "10.1.0.10"}
	if v6 {
		addrs = []string{"fd00::1", "fd00:1::10"}
	}
	p := forge.Packet{Src: netip.MustParseAddr(addrs[0]), Dst: netip.MustParseAddr(addrs[1]), Protocol: protocol, Hop: 64}
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, uint16(r.Uint32())), uint16(r.Uint32()))
	size, at := 20, 16
	if protocol == unix.IPPROTO_UDP {
		size, at = 8, 6
	}
	p.Payload = make([]byte, size+payload)
	for i := range p.Payload {
		p.Payload[i] = byte(r.Uint32())
	}
	copy(p.Payload, ports)
	if protocol == unix.IPPROTO_TCP {
		p.Payload[12], p.Payload[13] = 5<<4, flags
	} else {
		binary.BigEndian.PutUint16(p.Payload[4:], uint16(len(p.Payload)))
	}
	binary.BigEndian.PutUint16(p.Payload[at:], 0)
	h := header{v6: v6, protocol: protocol, src: p.Src, dst: p.Dst}
	binary.BigEndian.PutUint16(p.Payload[at:], ^h.sum(p.Payload))
	return p.Bytes()
}

func sumOf(ip []byte) uint16 {
	h, err := headerOf(ip)
	if err != nil {
		panic(err)
	}
	return h.sum(ip[h.l4:h.end])
}

func TestMessagesChangeNoSum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	key := Key(counting(16))
	for i := range 4000 {
		v6, protocol := i%2 == 1, []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}[i/2%2]
		size := 0
		if protocol == unix.IPPROTO_UDP {
			size = r.IntN(100)
		}
		p := packet(r, protocol, v6, syn, size)
		m := Message{Flags: uint8(r.Uint32N(64)) &^ Alone, Key: uint8(r.Uint32N(4)), Idle: uint8(r.Uint32()), Time: r.Uint32(), Boot: uint16(r.Uint32()),
			Service: uint16(r.Uint32()), Client: netip.MustParseAddrPort("198.51.100.7:40000")}
		for name, put := range map[string]func([]byte, Key) ([]byte, error){"within": m.Within, "alone": m.Alone} {
			out, err := put(p, key)
			if err != nil {
				t.Fatal(err)
			}
			if got := sumOf(out); got != 0xffff {
				t.Fatalf("%s, protocol %d, %d bytes: all of layer 4 adds up to %#x, want 0xffff", name, protocol, size, got)
			}
			f, err := Find(out)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want := m
			want.Kind = KindSurplus
			if name == "alone" {
				want.Flags |= Alone
				if protocol == unix.IPPROTO_TCP {
					want.Kind = KindTCP
				}
			} else if !bytes.Equal(f.Rest, p) {
				t.Fatalf("%s: the packet without the message is %x, want %x", name, f.Rest, p)
			}
			if f.Message != want || f.Off != 0 || !f.Genuine(key) {
				t.Fatalf("%s: found %v, off by %d, genuine %v; want %v", name, f.Message, f.Off, f.Genuine(key), want)
			}
		}
	}
}

func TestEveryBitIsSigned(t *testing.T) {
	key := Key(counting(16))
	r := rand.New(rand.NewPCG(3, 4))
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		out, err := Message{Client: netip.MustParseAddrPort("[2001:db8::7]:40000"), Time: 7}.Within(packet(r, protocol, false, syn, 0), key)
		if err != nil {
			t.Fatal(err)
		}
		for at := len(out) - Len; at < len(out); at++ {
			for bit := range 8 {
				out[at] ^= 1 << bit
				if f, err := Find(out); err == nil && f.Genuine(key) {
					t.Errorf("bit %d of byte %d is not signed", bit, at-len(out)+Len)
				}
				out[at] ^= 1 << bit
			}
		}
		for bit := range 32 { // the ports
			out[20+bit/8] ^= 1 << (bit % 8)
			if f, err := Find(out); err == nil && f.Genuine(key) {
				t.Errorf("bit %d of the ports is not signed", bit)
			}
			out[20+bit/8] ^= 1 << (bit % 8)
		}
	}
}
