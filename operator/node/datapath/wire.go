// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// ToAddr returns an address as it is in the maps: 16 bytes, IPv4 mapped into
// IPv6; zero for the zero Addr.
func ToAddr(a netip.Addr) bpf.BlixtAddr {
	if !a.IsValid() { // zero: none
		return bpf.BlixtAddr{}
	}
	return bpf.BlixtAddr{Bytes: a.As16()}
}

// FromAddr is the reverse of ToAddr.
func FromAddr(a bpf.BlixtAddr) netip.Addr {
	if a == (bpf.BlixtAddr{}) {
		return netip.Addr{}
	}
	return netip.AddrFrom16(a.Bytes).Unmap()
}

// ToPort returns a port in network byte order.
func ToPort(p uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, p))
}

// FromPort is the reverse of ToPort.
func FromPort(p uint16) uint16 { return ToPort(p) }

func toKey(k lb.Key) bpf.BlixtFrontendKey {
	return bpf.BlixtFrontendKey{Addr: ToAddr(k.Addr), Port: ToPort(k.Port), Protocol: uint8(k.Protocol)}
}

func fromKey(k bpf.BlixtFrontendKey) lb.Key {
	return lb.Key{Addr: FromAddr(k.Addr), Port: FromPort(k.Port), Protocol: lb.Protocol(k.Protocol)}
}

func toBackend(index uint32, b lb.Backend, flags uint16, ref, generation uint32) bpf.BlixtBackend {
	return bpf.BlixtBackend{
		Addr: ToAddr(b.Addr.Addr()), Port: ToPort(b.Addr.Port()), Flags: flags, Frontend: index, Generation: generation, Ref: ref,
	}
}

func frontendFlags(f *lb.Frontend) (flags uint32) {
	if f.Records {
		flags |= FrontendRecords
	}
	if f.DropNoBackend {
		flags |= FrontendDropNone
	}
	return flags
}

// challengeOf returns the number of new flows in a second from which clients of a frontend
// are challenged: 0 is never, 1 always.
func challengeOf(f *lb.Frontend) uint32 {
	switch c := f.Challenge; {
	case c == nil:
		return 0
	case c.Always:
		return 1
	default:
		return max(c.NewPerSecond, 1)
	}
}

// backendFlags returns the flags that are the state's. Those of Hearing come on top.
func backendFlags(b lb.Backend) (flags uint16) {
	if b.Local {
		flags |= BackendLocal
	}
	if b.NotServing {
		flags |= BackendNotServing
	}
	if b.ThroughStack {
		flags |= BackendStack
	}
	if b.Protected {
		flags |= BackendProtected
	}
	return flags
}

func fromBackend(b bpf.BlixtBackend) BackendKey {
	return BackendKey{
		Addr:      netip.AddrPortFrom(FromAddr(b.Addr), FromPort(b.Port)),
		Local:     b.Flags&BackendLocal != 0,
		Protected: b.Flags&BackendProtected != 0,
	}
}

// inUse reports whether a backend id is in use: its generation is then odd.
func inUse(b bpf.BlixtBackend) bool { return b.Generation&1 != 0 }

// Ticks returns a duration in the data plane's unit, rounded up so that nothing
// expires too early. It returns at most math.MaxInt32: the data plane compares
// signed differences of ticks, and would take more for a negative time-out.
func Ticks(d time.Duration) uint32 {
	const tick = 1 << TickShift
	ticks := int64(d) / tick
	if int64(d)%tick > 0 { // not d+tick-1, which may overflow
		ticks++
	}
	return uint32(min(ticks, math.MaxInt32))
}

// RingRef is an element of `published`: the ring that serves a frontend.
type RingRef uint64

const (
	offsetBits     = int(bpf.BlixtPublishedBitsRING_OFFSET_BITS)
	sizeBits       = int(bpf.BlixtPublishedBitsRING_SIZE_BITS)
	generationMask = 1<<int(bpf.BlixtPublishedBitsRING_GENERATION_BITS) - 1
)

// newRingRef returns the reference to a ring of size slots at an offset.
func newRingRef(offset, size, generation uint32) RingRef {
	return RingRef(offset) | RingRef(size)<<offsetBits | RingRef(generation&generationMask)<<(offsetBits+sizeBits)
}

// Offset returns the first slot of the ring.
func (w RingRef) Offset() uint32 { return uint32(w) & (1<<offsetBits - 1) }

// Size returns the number of slots; 0: everything is rejected.
func (w RingRef) Size() uint32 { return uint32(w>>offsetBits) & (1<<sizeBits - 1) }

// Generation changes with each publication. It is 0 only for an index that was
// never published.
func (w RingRef) Generation() uint32 { return uint32(w >> (offsetBits + sizeBits)) }

// next returns the reference that publishes another ring in place of this one.
func (w RingRef) next(offset, size uint32) RingRef {
	generation := (w.Generation() + 1) & generationMask
	return newRingRef(offset, size, max(generation, 1))
}

// sourceKey returns the key of a prefix in a set of `sources`.
func sourceKey(p netip.Prefix, set uint32) bpf.BlixtSourceKey {
	bits := setBits + p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return bpf.BlixtSourceKey{Bits: uint32(bits), Set: set, Addr: ToAddr(p.Addr())}
}
