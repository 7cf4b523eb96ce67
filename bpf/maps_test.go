// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var memories = struct {
	sync.Mutex
	of map[*ebpf.Map][]byte
}{of: map[*ebpf.Map][]byte{}}

// memory returns the memory of an array that can be mapped. It stays mapped: the
// objects that tests share live as long as the process.
func (l *lb) memory(m *ebpf.Map) []byte {
	l.Helper()
	memories.Lock()
	defer memories.Unlock()
	if memories.of[m] == nil {
		size := int(m.ValueSize()+7) / 8 * 8 * int(m.MaxEntries())
		memory, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		l.must(err)
		memories.of[m] = memory
	}
	return memories.of[m]
}

// interested sets bits of the address's byte in `interest`, as a writer does.
func (l *lb) interested(a BlixtAddr, bits BlixtInterestFlag) {
	l.Helper()
	l.memory(l.Interest)[InterestHash(a)] |= byte(bits)
}

func deleteAll[K, V any](l *lb, m *ebpf.Map) {
	l.Helper()
	n := min(m.MaxEntries(), 4096)
	var cursor ebpf.MapBatchCursor
	for err := error(nil); err == nil; {
		_, err = m.BatchLookupAndDelete(&cursor, make([]K, n), make([]V, n), nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			l.Fatal(err)
		}
	}
}

// clear empties every table.
func (l *lb) clear() {
	l.Helper()
	clear(l.memory(l.Interest))
	for a := range hostAddresses {
		l.interested(addrOf(a), BlixtInterestFlagINTEREST_HOST)
	}
	clear(l.memory(l.FlowCache))
	clear(l.memory(l.BackendHealth))
	l.must(l.FragmentIds.Put(uint32(0), uint64(0)))
	deleteAll[BlixtAddr, BlixtAddress](l, l.Addresses)
	deleteAll[BlixtFrontendKey, BlixtFrontend](l, l.Frontends)
	deleteAll[BlixtFrontendKey, BlixtPortRanges](l, l.PortRanges)
	deleteAll[BlixtAffinityKey, BlixtAffinity](l, l.Affinities)
	deleteAll[BlixtAffinityKey, BlixtAffinity](l, l.UdpAffinities)
	deleteAll[BlixtAffinityBackendKey, uint32](l, l.AffinityBackends)
	deleteAll[BlixtFlowKey, BlixtFlow](l, l.Flows)
	deleteAll[BlixtFlowKey, BlixtFlow](l, l.NewFlows)
	deleteAll[BlixtFlowKey, BlixtFlow](l, l.UdpFlows)
	deleteAll[BlixtFlowKey, BlixtHostPort](l, l.HostPorts)
	deleteAll[BlixtFlowKey, BlixtHostPort](l, l.MasqueradedPorts)
	deleteAll[BlixtFrontendKey, uint32](l, l.HostListens)
	deleteAll[BlixtFragmentKey, BlixtFragment](l, l.Fragments)
	deleteAll[BlixtFragmentKey, BlixtFragment](l, l.NewFragments)
	deleteAll[BlixtHeldKey, uint64](l, l.HeldSlots)
	deleteAll[BlixtAddr, uint32](l, l.BackendAddresses)
	deleteAll[BlixtNextHop, BlixtSilence](l, l.SilentNeighbours)
	var client BlixtClientPrefix
	for l.ProtectedClients.NextKey(nil, &client) == nil { // this kind of map has no batches
		l.must(l.ProtectedClients.Delete(client))
	}
	for i := range l.PortSearches.MaxEntries() {
		l.must(l.PortSearches.Put(i, BlixtPortSearch{}))
	}
	for i := range l.Established.MaxEntries() {
		l.must(l.Established.Put(i, uint32(0)))
	}
	for i := range l.Published.MaxEntries() {
		l.must(l.Published.Put(i, uint64(0)))
	}
	for i := range l.Backends.MaxEntries() {
		l.must(l.Backends.Put(i, BlixtBackend{}))
	}
	deleteAll[BlixtIcmpFragment, uint32](l, l.IcmpFragments)
	l.clearAnnouncements()
	l.clearPolicies()
	l.clearRecords()
	for i := range l.AnswerBuckets.MaxEntries() {
		l.must(l.AnswerBuckets.Put(i, make([]uint64, ebpf.MustPossibleCPU())))
	}
	for _, index := range l.lab.devices { // no program has seen a packet
		none := make([]uint64, ebpf.MustPossibleCPU())
		if index == 1 { // but at lo: packets of a test run go nowhere, so that all neighbours are silent
			none[0] = 1
		}
		l.must(l.LinkPackets.Put(index%uint32(BlixtLimitMAX_LINKS)*2, none))
		l.must(l.LinkPackets.Put(index%uint32(BlixtLimitMAX_LINKS)*2+1, none))
	}
	l.slots, l.words = 0, map[uint32]uint64{}
}

// fragmentID returns the identification that the next fragmented datagram will get.
func (l *lb) fragmentID() uint32 {
	l.Helper()
	var n uint64
	l.must(l.FragmentIds.Lookup(uint32(0), &n))
	return uint32(n)
}

// The SNAT range. It is small, so that tests can use all its ports.
const (
	snatMin = 30000
	snatMax = 30099
)

func (l *lb) config(flags BlixtConfigFlag) {
	l.Helper()
	var old BlixtConfig
	l.must(l.BlixtLayout2.Lookup(uint32(0), &old))
	l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{Flags: uint32(flags), SnatMin: snatMin, SnatMax: snatMax, CacheEpoch: old.CacheEpoch}))
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func addrOf(a netip.Addr) BlixtAddr { return BlixtAddr{Bytes: a.As16()} }

func (l *lb) address(a string, exclusive bool) {
	l.Helper()
	var v BlixtAddress
	bits := BlixtInterestFlagINTEREST_VIP | BlixtInterestFlagINTEREST_SHARED
	if exclusive {
		v.Flags = uint32(BlixtAddressFlagADDRESS_EXCLUSIVE)
		bits = BlixtInterestFlagINTEREST_VIP
	}
	l.interested(addrOf(netip.MustParseAddr(a)), bits)
	l.must(l.Addresses.Put(addrOf(netip.MustParseAddr(a)), v))
}

// backend writes a backend of generation 1. It is on this node if its address
// is in the network of pods, or the host's own.
func (l *lb) backend(id uint32, addr string) {
	l.Helper()
	var b BlixtBackend
	l.must(l.Backends.Lookup(id, &b)) // its frontend stays
	b = BlixtBackend{Addr: addrOf(ap(addr).Addr()), Port: htons(ap(addr).Port()), Generation: 1, Frontend: b.Frontend}
	for _, local := range []string{"10.2.0.0/24", "fd00:2::/64", "192.0.2.1/32", "2001:db8::1/128"} {
		if netip.MustParsePrefix(local).Contains(ap(addr).Addr()) {
			b.Flags = uint16(BlixtBackendFlagBACKEND_LOCAL)
		}
	}
	l.must(l.Backends.Put(id, b))
}

// removeBackend ends the backend's generation: its id is free, and in use again
// after a second call.
func (l *lb) removeBackend(id uint32) {
	l.Helper()
	var b BlixtBackend
	l.must(l.Backends.Lookup(id, &b))
	b.Generation++
	l.must(l.Backends.Put(id, b))
}

const idleTicks = 60

// frontend writes a frontend with a ring of the ids, in slots of that order.
func (l *lb) frontend(index uint32, protocol uint8, addr string, ids ...uint32) {
	l.Helper()
	k := BlixtFrontendKey{Addr: addrOf(ap(addr).Addr()), Port: htons(ap(addr).Port()), Protocol: protocol}
	l.publish(index, ids...)
	l.must(l.Frontends.Put(k, BlixtFrontend{Index: index, IdleTicks: idleTicks}))
}

// publish writes a new ring and switches the frontend to it. Its backends become
// those of the frontend.
func (l *lb) publish(index uint32, ids ...uint32) {
	l.Helper()
	first := l.slots
	for i, id := range ids {
		l.giveBackend(id, index)
		var two uint64
		at := first + uint32(i)
		l.must(l.Rings.Lookup(at/2, &two))
		shift := at % 2 * 32
		two = two&^(0xffffffff<<shift) | uint64(id)<<shift
		l.must(l.Rings.Put(at/2, two))
	}
	l.slots += uint32(len(ids))
	generation := l.words[index]>>44 + 1
	word := uint64(first) | uint64(len(ids))<<24 | generation<<44
	l.words[index] = word
	l.must(l.Published.Put(index, word))
}

// giveBackend makes the backend one of the frontend.
func (l *lb) giveBackend(id, frontend uint32) {
	l.Helper()
	var b BlixtBackend
	l.must(l.Backends.Lookup(id, &b))
	if id != uint32(BlixtBackendIdBACKEND_REJECT) && b.Frontend != frontend {
		b.Frontend = frontend
		l.must(l.Backends.Put(id, b))
	}
}

// local makes the backend one of this node.
func (l *lb) local(id uint32) {
	l.Helper()
	var b BlixtBackend
	l.must(l.Backends.Lookup(id, &b))
	b.Flags |= uint16(BlixtBackendFlagBACKEND_LOCAL)
	l.must(l.Backends.Put(id, b))
}

// clientHash is the hash of ring.h with the seed of the tests, 0.
func clientHash(src netip.AddrPort) uint32 { return seededHash(src, 0) }

func seededHash(src netip.AddrPort, seed uint64) uint32 {
	b := src.Addr().As16()
	lo, hi := binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:])
	h := (lo ^ seed) * 0xff51afd7ed558ccd
	h ^= h >> 33
	h = ((h + seed) ^ hi) * 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	h = ((h + seed) ^ uint64(htons(src.Port()))) * 0xff51afd7ed558ccd
	h ^= h >> 33
	h = (h + seed) * 0xc4ceb9fe1a85ec53
	return uint32(h >> 32)
}

// snat returns the packet with the translated source of its sender's first
// flow. Later flows, whose port is taken, get the next ports of that client.
func (p packet) snat(addr string, later int) packet {
	const n = snatMax - snatMin + 1
	hash := clientHash(p.src)
	port := snatMin + (hash+uint32(later)*(hash/n|1))%n
	if p.src.Port() < 1024 {
		port = 791 // the privileged port of the range
	}
	p.src = netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port))
	return p
}
