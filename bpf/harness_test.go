// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// Verdicts of the program.
const (
	tcxNext  = 0xffffffff // -1
	tcxDrop  = 2
	redirect = 7
)

// A flag of test runs (BPF_F_TEST_SKB_CHECKSUM_COMPLETE): skb->csum is set
// before the program runs, and compared with the packet's sum afterwards.
const checksumComplete = 1 << 2

// A hook is where a packet is seen.
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

// An lb is the loaded data plane.
type lb struct {
	mark uint32 // of the last packet, as the program has left it
	testing.TB
	*BlixtObjects
	lab      *lab
	complete bool // run with checksumComplete where the kernel can check it
	repeat   uint32
	slots    uint32
	words    map[uint32]uint64
}

// shrinkTables makes the tables such that tests can fill and clear them.
func shrinkTables(spec *ebpf.CollectionSpec) {
	for name, size := range map[string]uint32{"rings": 2048, "flows": 4096, "new_flows": 4096, "udp_flows": 4096, "fragments": 256, "new_fragments": 256, "held_slots": 256, "backend_addresses": 256, "announced_backends": 256, "icmp_fragments": 256,
		"frontends": 64, "addresses": 64, "published": 64, "backends": 256, "backend_flows": 256, "port_searches": 512, "host_ports": 256, "masqueraded_ports": 1024, "frontend_stats": 64, "established": 65, "answer_buckets": 69, "syn_counts": 64, "recorded": 64, "frontend_policies": 64, "policies": 64, "policy_states": 64, "policy_stats": 64, "sources": 1 << 15, "limited_sources": 4096, "proven": 1024, "affinities": 1024, "udp_affinities": 1024, "affinity_backends": 64, "port_ranges": 64, "ref_stats": 16, "client_rtt": 64, "backend_health": 256} {
		spec.Maps[name].MaxEntries = size
	}
	spec.Maps["announced_udp"].Flags |= unix.BPF_F_MMAPABLE // it is large, and cleared for each test
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

// Tests share one program: its verification takes most of the time of loading.
var sharedObjects = sync.OnceValues(func() (*BlixtObjects, error) { return load(shrinkTables) })

// newLB returns a data plane with empty tables and a SNAT range.
func newLB(t *testing.T) *lb {
	t.Helper()
	objs, err := sharedObjects()
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
	theLab, err := sharedLab()
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

// context returns the struct __sk_buff of a packet that is seen at the hook.
func (l *lb) context(h hook) []byte {
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
	return ctx
}

// run passes a frame through the program.
func (l *lb) run(h hook, frame []byte, flags uint32) (verdict uint32, out []byte, err error) {
	o := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+512), Context: l.context(h), ContextOut: make([]byte, 192), Flags: flags, Repeat: max(1, l.repeat)}
	l.lab.do(func() {
		if h.dev == tunnel && !h.egress {
			// The kernel takes the first bytes for a link header: it has to name the device.
			if err = l.lab.setMAC(tunnel, frame[:6]); err != nil {
				return
			}
		}
		verdict, err = l.Blixt.Run(o)
		l.mark = binary.NativeEndian.Uint32(o.ContextOut.([]byte)[8:])
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
	objs, err := sharedObjects()
	if err != nil {
		return false
	}
	lab, err := sharedLab()
	if err != nil {
		return false
	}
	l := &lb{BlixtObjects: objs, lab: lab}
	_, _, err = l.run(hook{dev: "lo"}, make([]byte, 64), checksumComplete)
	return err == nil
})

// send passes a packet through the program and records all that it did.
func (l *lb) send(h hook, p packet) *result {
	l.Helper()
	return l.sendFrame(h, p, p.bytes())
}

func (l *lb) sendFrame(h hook, p packet, frame []byte) *result {
	l.Helper()
	r := &result{l: l, hook: h, in: p, frame: frame, began: announce.Now()}
	before, sums, links := l.counters(), l.frontendSums(), l.linkPackets(h)
	var flags uint32
	// The kernel checks only packets with a plain Ethernet header.
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

// cases are tests by the behaviour that they show. Each runs on empty tables,
// and a second time with the checksum of the whole packet in skb->csum.
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

// egressHost sends a packet that a socket of this host has made, at egress.
func (l *lb) egressHost(dev string, p packet) *result {
	l.Helper()
	return l.send(hook{dev: dev, egress: true}, p)
}

// egressForwarded sends a packet that has come in by another device, at egress
// towards the clients.
func (l *lb) egressForwarded(from string, p packet) *result {
	l.Helper()
	return l.send(hook{dev: outside, egress: true, from: from}, p)
}
