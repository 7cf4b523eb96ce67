// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Verdicts of the program.
const (
	tcxNext  = 0xffffffff // -1
	tcxDrop  = 2
	redirect = 7
)

// The kernel sums the packet before and after, and compares that with what
// the program has made of skb->csum.
const checksumComplete = 1 << 2

// A hook says where the packet is seen.
type hook struct {
	dev     string
	egress  bool
	from    string // at egress: the device that the packet came in by; "": a socket of this host
	gsoSize uint32
}

// mac is the address of the hook's device.
func (h hook) mac() [6]byte {
	if h.dev == "lo" {
		return [6]byte{}
	}
	return deviceMAC
}

// An lb is the loaded data plane, its maps as empty as at the start.
type lb struct {
	testing.TB
	*BlixtObjects
	lab      *lab
	complete bool // run with a complete checksum wherever that means something
	repeat   uint32
	slots    uint32
	words    map[uint32]uint64
}

// shrink makes tables of a size that tests can fill.
func shrink(spec *ebpf.CollectionSpec) {
	for name, size := range map[string]uint32{"rings": 2048, "flows": 4096, "new_flows": 4096, "fragments": 256,
		"frontends": 64, "addresses": 64, "published": 64, "backends": 256, "backend_flows": 256, "frontend_stats": 64} {
		spec.Maps[name].MaxEntries = size
	}
}

func load(change func(*ebpf.CollectionSpec)) (*BlixtObjects, error) {
	spec, err := LoadBlixt()
	if err != nil {
		return nil, err
	}
	change(spec)
	objs := &BlixtObjects{}
	return objs, spec.LoadAndAssign(objs, nil)
}

// Verification takes most of the time of loading, so tests share one program.
var shared = sync.OnceValues(func() (*BlixtObjects, error) { return load(shrink) })

// newLB returns a data plane with empty tables and a SNAT range.
func newLB(t *testing.T) *lb {
	t.Helper()
	objs, err := shared()
	return startLB(t, objs, err)
}

func startLB(t testing.TB, objs *BlixtObjects, err error) *lb {
	t.Helper()
	if err != nil {
		var v *ebpf.VerifierError
		if errors.As(err, &v) {
			t.Fatalf("%+v", v)
		}
		t.Fatal(err)
	}
	theLab, err := theLab()
	if err != nil {
		t.Fatal(err)
	}
	l := &lb{TB: t, BlixtObjects: objs, lab: theLab}
	l.clear()
	l.config(0)
	return l
}

func (l *lb) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func empty[K, V any](l *lb, m *ebpf.Map) {
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
	empty[BlixtAddr, BlixtAddress](l, l.Addresses)
	empty[BlixtFrontendKey, BlixtFrontend](l, l.Frontends)
	empty[BlixtFlowKey, BlixtFlow](l, l.Flows)
	empty[BlixtFlowKey, BlixtFlow](l, l.NewFlows)
	empty[BlixtFragmentKey, BlixtFragment](l, l.Fragments)
	for i := range l.Published.MaxEntries() {
		l.must(l.Published.Put(i, uint64(0)))
	}
	for i := range l.Backends.MaxEntries() {
		l.must(l.Backends.Put(i, BlixtBackend{}))
	}
	l.slots, l.words = 0, map[uint32]uint64{}
}

// Ports of translated sources. Few, so that tests can take them all.
const (
	snatMin = 30000
	snatMax = 30099
)

func (l *lb) config(flags BlixtConfigFlag) {
	l.Helper()
	l.must(l.BlixtLayout1.Put(uint32(0), BlixtConfig{Flags: uint32(flags), SnatMin: snatMin, SnatMax: snatMax}))
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func addrOf(a netip.Addr) BlixtAddr { return BlixtAddr{Bytes: a.As16()} }

func (l *lb) address(a string, exclusive bool) {
	l.Helper()
	var v BlixtAddress
	if exclusive {
		v.Flags = uint32(BlixtAddressFlagADDRESS_EXCLUSIVE)
	}
	l.must(l.Addresses.Put(addrOf(netip.MustParseAddr(a)), v))
}

// backend writes a backend of generation 1, on this node if it is in the
// network of pods or of the host itself.
func (l *lb) backend(id uint32, addr string) {
	l.Helper()
	b := BlixtBackend{Addr: addrOf(ap(addr).Addr()), Port: htons(ap(addr).Port()), Generation: 1}
	for _, local := range []string{"10.2.0.0/24", "fd00:2::/64", "192.0.2.1/32", "2001:db8::1/128"} {
		if netip.MustParsePrefix(local).Contains(ap(addr).Addr()) {
			b.Flags = uint16(BlixtBackendFlagBACKEND_LOCAL)
		}
	}
	l.must(l.Backends.Put(id, b))
}

// gone ends the use of a backend.
func (l *lb) gone(id uint32) {
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

// publish writes a ring beside the one that serves and switches to it.
func (l *lb) publish(index uint32, ids ...uint32) {
	l.Helper()
	first := l.slots
	for i, id := range ids {
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

// clientHash is the hash of blixt.h, written from its description.
func clientHash(src netip.AddrPort) uint32 {
	b := src.Addr().As16()
	lo, hi := binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:])
	h := lo * 0xff51afd7ed558ccd
	h ^= h >> 33
	h = (h ^ hi) * 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	h = (h ^ uint64(htons(src.Port()))) * 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return uint32(h >> 32)
}

// snat returns the packet with the source that a flow of its sender gets
// first; later flows whose port is taken get the next one.
func (p packet) snat(addr string, later int) packet {
	n := uint32(snatMax - snatMin + 1)
	port := snatMin + (clientHash(p.src)%n+uint32(later))%n
	p.src = netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port))
	return p
}

// counts are counters that are not zero, by name.
type counts map[string]uint64

func (c counts) String() string {
	var s []string
	for k, v := range c {
		if v == 1 {
			s = append(s, k)
		} else {
			s = append(s, k+"="+strconv.FormatUint(v, 10))
		}
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

func parseCounts(s string) counts {
	c := counts{}
	for f := range strings.FieldsSeq(s) {
		name, n, ok := strings.Cut(f, "=")
		c[name] = 1
		if ok {
			v, err := strconv.ParseUint(n, 10, 64)
			if err != nil {
				panic(err)
			}
			c[name] = v
		}
	}
	return c
}

// counterNames are those of enum counter, as status shows them.
var counterNames = sync.OnceValue(func() []string {
	spec, err := LoadBlixt()
	if err != nil {
		panic(err)
	}
	names := make([]string, BlixtCounterCOUNTERS)
	for name, value := range enumOf(spec, "counter") {
		if value < uint64(len(names)) {
			names[value] = strings.ToLower(strings.TrimPrefix(name, "COUNTER_"))
		}
	}
	return names
})

func enumOf(spec *ebpf.CollectionSpec, name string) map[string]uint64 {
	var e *btf.Enum
	if err := spec.Types.TypeByName(name, &e); err != nil {
		panic(err)
	}
	values := map[string]uint64{}
	for _, v := range e.Values {
		values[v.Name] = v.Value
	}
	return values
}

func sumPerCPU(m *ebpf.Map, key uint32) (uint64, error) {
	var each []uint64
	if err := m.Lookup(key, &each); err != nil {
		return 0, err
	}
	var sum uint64
	for _, v := range each {
		sum += v
	}
	return sum, nil
}

// all reads a per-CPU array in one go: the values of one element follow each other.
func all[V any](l *lb, m *ebpf.Map) (values []V, cpus int) {
	l.Helper()
	cpus = ebpf.MustPossibleCPU()
	n := int(m.MaxEntries())
	keys := make([]uint32, n)
	values = make([]V, n*cpus)
	var cursor ebpf.MapBatchCursor
	if _, err := m.BatchLookup(&cursor, keys, values, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		l.Fatal(err)
	}
	return values, cpus
}

func (l *lb) counters() counts {
	l.Helper()
	c := counts{}
	values, cpus := all[uint64](l, l.Counters)
	for i, v := range values {
		if v != 0 {
			c[counterNames()[i/cpus]] += v
		}
	}
	return c
}

// frontendSums adds up the counters of all frontends.
func (l *lb) frontendSums() (sum BlixtFrontendCounters) {
	l.Helper()
	values, _ := all[BlixtFrontendCounters](l, l.FrontendStats)
	for _, c := range values {
		sum.NewFlows += c.NewFlows
		sum.Rejected += c.Rejected
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
		sum.ReplyPackets += c.ReplyPackets
		sum.ReplyBytes += c.ReplyBytes
	}
	return sum
}

func (l *lb) linkPackets(h hook) uint64 {
	l.Helper()
	key := l.lab.devices[h.dev] % uint32(BlixtLimitMAX_LINKS) * 2
	if h.egress {
		key++
	}
	n, err := sumPerCPU(l.LinkPackets, key)
	l.must(err)
	return n
}

// A result is what became of one packet.
type result struct {
	l       *lb
	hook    hook
	in      packet
	frame   []byte // as sent
	verdict uint32
	out     []byte
	counts  counts
	routed  bool // redirected, with a link header that the kernel is to replace
	summed  bool // run with a complete checksum
	stale   bool // skb->csum does not fit the packet, which is all that the kernel then tells
}

// run passes a frame through the program.
func (l *lb) run(h hook, frame []byte, flags uint32) (verdict uint32, out []byte, err error) {
	ctx := make([]byte, 192)
	dev := l.lab.devices[h.dev]
	from := dev
	if h.egress {
		from = l.lab.devices[h.from] // 0 for ""
	}
	// Offsets in struct __sk_buff.
	binary.NativeEndian.PutUint32(ctx[36:], from)
	binary.NativeEndian.PutUint32(ctx[40:], dev)
	binary.NativeEndian.PutUint32(ctx[176:], h.gsoSize)
	o := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+512), Context: ctx, Flags: flags, Repeat: max(1, l.repeat)}
	l.lab.do(func() {
		if h.dev == tunnel && !h.egress {
			// What eth_type_trans takes for the link header has to name the device.
			if err = l.lab.setMAC(tunnel, frame[:6]); err != nil {
				return
			}
		}
		verdict, err = l.Blixt.Run(o)
	})
	return verdict, o.DataOut, err
}

func (l *lab) setMAC(name string, mac []byte) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetHardwareAddr(link, mac)
}

var completeWorks = sync.OnceValue(func() bool {
	objs, err := shared()
	if err != nil {
		return false
	}
	lab, err := theLab()
	if err != nil {
		return false
	}
	l := &lb{BlixtObjects: objs, lab: lab}
	_, _, err = l.run(hook{dev: "lo"}, make([]byte, 64), checksumComplete)
	return err == nil
})

// send passes a packet through the program and notes all that it did.
func (l *lb) send(h hook, p packet) *result {
	l.Helper()
	return l.sendFrame(h, p, p.bytes())
}

func (l *lb) sendFrame(h hook, p packet, frame []byte) *result {
	l.Helper()
	r := &result{l: l, hook: h, in: p, frame: frame}
	before, sums, links := l.counters(), l.frontendSums(), l.linkPackets(h)
	var flags uint32
	// The kernel's check does not understand other link headers than Ethernet's.
	if l.complete && !p.raw && p.vlan == 0 {
		flags = checksumComplete
		r.summed = true
	}
	var err error
	r.verdict, r.out, err = l.run(h, frame, flags)
	if flags != 0 && errors.Is(err, unix.EBADMSG) {
		r.stale, err = true, nil
	}
	l.must(err)
	r.counts = l.counters().minus(before)
	if n, want := l.linkPackets(h)-links, uint64(max(1, l.repeat)); n != want {
		l.Errorf("link_packets of %+v rose by %d, want %d", h, n, want)
	}
	r.checkFrontends(sums, l.frontendSums())
	return r
}

// checkFrontends compares what the frontends have counted with the counters.
func (r *result) checkFrontends(before, after BlixtFrontendCounters) {
	r.l.Helper()
	got := BlixtFrontendCounters{NewFlows: after.NewFlows - before.NewFlows, Rejected: after.Rejected - before.Rejected,
		Packets: after.Packets - before.Packets, Bytes: after.Bytes - before.Bytes,
		ReplyPackets: after.ReplyPackets - before.ReplyPackets, ReplyBytes: after.ReplyBytes - before.ReplyBytes}
	want := BlixtFrontendCounters{NewFlows: r.counts["flow_new"], Rejected: r.counts["reject_no_backend"],
		Packets: r.counts["forwarded"], ReplyPackets: r.counts["replied"]}
	size := uint64(len(r.frame) - r.linkLen() - r.in.padding)
	want.Bytes, want.ReplyBytes = want.Packets*size, want.ReplyPackets*size
	if got != want {
		r.l.Errorf("counters of the frontends rose by %+v, want %+v", got, want)
	}
}

func (r *result) linkLen() int {
	switch {
	case r.in.raw:
		return 0
	case r.in.vlan != 0:
		return 18
	}
	return 14
}

var verdictNames = map[uint32]string{tcxNext: "next", tcxDrop: "drop", redirect: "redirect"}

func (r *result) check(verdict uint32, counters string) {
	r.l.Helper()
	if !r.stale && r.verdict != verdict {
		r.l.Errorf("verdict %s (%d), want %s", verdictNames[r.verdict], int32(r.verdict), verdictNames[verdict])
	}
	if diff := cmp.Diff(parseCounts(counters), r.counts); diff != "" {
		r.l.Errorf("counters (-want +got):\n%s", diff)
	}
}

// blank makes a link header that adds nothing to a sum, by the end of its
// source address: bpf_redirect_neigh adds it to a complete checksum and
// forgets to subtract it. The kernel replaces the header anyway.
func blank(frame []byte) {
	frame[10], frame[11] = 0, 0
	binary.BigEndian.PutUint16(frame[10:], ^onesSum(frame[:14]))
}

// becomes checks the packet's bytes, and that all its checksums are right.
func (r *result) becomes(want packet) {
	r.l.Helper()
	frame := want.bytes()
	if r.stale {
		// A packet whose size changes has no complete checksum any more, but the kernel's check does not know.
		if len(frame) == len(r.frame) {
			r.l.Error("skb->csum (CHECKSUM_COMPLETE) does not fit the packet any more")
		}
		return
	}
	if r.summed && r.routed && len(r.out) > 14 && onesSum(r.out[:14]) == 0xffff {
		blank(frame)
	}
	if !bytes.Equal(r.out, frame) {
		r.l.Errorf("packet (-want +got):\n%s", diff(frame, r.out, want.raw))
	}
	link := 14
	if want.raw {
		link = 0
	} else if want.vlan != 0 {
		link = 18
	}
	if err := checkSums(r.out, link); err != nil {
		r.l.Errorf("after the program: %v", err)
	}
}

// diff shows two frames, decoded and in hex, where they differ.
func diff(want, got []byte, raw bool) string {
	a, b := dump(want, raw), dump(got, raw)
	var s strings.Builder
	for i := range min(max(len(a), len(b)), 24) { // of a long packet the headers
		switch {
		case i < len(a) && i < len(b) && a[i] == b[i]:
			continue
		case i < len(a):
			fmt.Fprintf(&s, "-%s\n", a[i])
		}
		if i < len(b) {
			fmt.Fprintf(&s, "+%s\n", b[i])
		}
	}
	return s.String()
}

// dump decodes a frame for people.
func dump(frame []byte, raw bool) []string {
	var first gopacket.Decoder = layers.LayerTypeEthernet
	if raw && len(frame) > 0 {
		first = layers.LayerTypeIPv4
		if frame[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
	}
	lines := make([]string, 6) // so that the hex of both begins on the same line
	copy(lines, strings.Split(strings.TrimSpace(gopacket.NewPacket(frame, first, gopacket.Default).String()), "\n"))
	for i := 0; i < len(frame); i += 16 {
		lines = append(lines, fmt.Sprintf("%4d %s", i, hex.EncodeToString(frame[i:min(i+16, len(frame))])))
	}
	return lines
}

// What a test expects of a packet. Each takes the counters that must rise, by
// name, and no others.

// next: translated into want, and left to the stack.
func (r *result) next(want packet, counters string) {
	r.l.Helper()
	r.check(tcxNext, counters)
	r.becomes(want)
}

// redirected: translated into want, and sent out past the stack.
func (r *result) redirected(want packet, counters string) {
	r.l.Helper()
	r.routed = true
	r.check(redirect, counters)
	r.becomes(want)
}

func (r *result) dropped(counters string) {
	r.l.Helper()
	r.check(tcxDrop, counters)
}

// untouched: left to the next program as it came.
func (r *result) untouched(counters string) {
	r.l.Helper()
	r.check(tcxNext, counters)
	if r.stale {
		r.l.Error("skb->csum (CHECKSUM_COMPLETE) does not fit the packet any more")
	} else if !bytes.Equal(r.out, r.frame) {
		r.l.Errorf("packet must not change (-want +got):\n%s", diff(r.frame, r.out, r.in.raw))
	}
}

// cases are tests by the behaviour that they show. Each runs on empty tables,
// and once more with the checksum of the whole packet in skb->csum.
type cases map[string]func(l *lb)

func (c cases) run(t *testing.T) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(c)) {
		t.Run(name, func(t *testing.T) {
			c[name](newLB(t))
		})
		t.Run(name+", checksum complete", func(t *testing.T) {
			l := newLB(t)
			if !completeWorks() {
				t.Skip("kernel lacks: BPF_F_TEST_SKB_CHECKSUM_COMPLETE (Linux 6.11)")
			}
			l.complete = true
			c[name](l)
		})
	}
}

// Where a packet is seen.

func (l *lb) ingress(dev string, p packet) *result { l.Helper(); return l.send(hook{dev: dev}, p) }

// host: at egress, made by a socket of this host.
func (l *lb) host(dev string, p packet) *result {
	l.Helper()
	return l.send(hook{dev: dev, egress: true}, p)
}

// forwarded: at egress towards the clients, having come in by another device.
func (l *lb) forwarded(from string, p packet) *result {
	l.Helper()
	return l.send(hook{dev: outside, egress: true, from: from}, p)
}
