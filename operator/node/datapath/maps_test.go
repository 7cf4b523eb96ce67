// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/ring"
)

// specMaps creates the maps of the embedded object, which needs root.
func specMaps(t testing.TB, change func(*ebpf.CollectionSpec)) map[string]*ebpf.Map {
	t.Helper()
	spec, err := bpf.LoadBlixt()
	if err != nil {
		t.Fatal(err)
	}
	change(spec)
	all := map[string]*ebpf.Map{}
	for name, s := range spec.Maps {
		if name[0] == '.' {
			continue
		}
		m, err := ebpf.NewMap(s)
		if err != nil {
			t.Fatalf("create map %s, which needs root: %v", name, err)
		}
		t.Cleanup(func() { m.Close() })
		all[name] = m
	}
	return all
}

func kernelMaps(t testing.TB, s Sizes) *Maps {
	t.Helper()
	m, err := New(specMaps(t, func(spec *ebpf.CollectionSpec) {
		spec.Maps[bpf.BlixtMapFlows].MaxEntries = uint32(2 * s.Flows)
		spec.Maps[bpf.BlixtMapNewFlows].MaxEntries = uint32(2 * s.NewFlows)
		spec.Maps[bpf.BlixtMapUdpFlows].MaxEntries = uint32(2*s.UDPFlows + s.UDPFlows/4)
	}))
	if err != nil {
		t.Fatal(err)
	}
	if s.Refs > 0 { // the program does not care how many are in use
		m.sizes.Refs = s.Refs
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// pins mounts a BPF file system in a mount namespace of the test's own and
// pins maps there.
func pins(t *testing.T, all map[string]*ebpf.Map) (dir string) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the namespace ends with the thread
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatalf("mounting needs root: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mount, unix.MNT_DETACH) })
	dir = filepath.Join(mount, "maps")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, m := range all {
		if err := m.Pin(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpenChecksWhatItOpens(t *testing.T) {
	all := specMaps(t, func(*ebpf.CollectionSpec) {})
	dir := pins(t, all)
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	wrong := func(name string, spec *ebpf.MapSpec, want string) {
		t.Helper()
		other, err := ebpf.NewMap(spec)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		path := filepath.Join(dir, name)
		if err := os.Rename(path, path+"-aside"); err != nil {
			t.Fatal(err)
		}
		if err := other.Pin(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if err := os.Rename(path+"-aside", path); err != nil {
			t.Fatal(err)
		}
	}
	array := func(value, n, flags uint32) *ebpf.MapSpec {
		return &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: value, MaxEntries: n, Flags: flags}
	}
	wrong("backends", array(32, 100, 0), "map backends: does not fit: max_entries 100, want at least 65536")
	wrong("backends", array(40, 65536, 0), "value size 40, want 32")
	wrong("backends", array(32, 65536, unix.BPF_F_MMAPABLE), "flags")
	wrong("backends", &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 32, MaxEntries: 65536}, "type Hash, want Array")
	wrong("rings", array(8, 100, unix.BPF_F_MMAPABLE), "max_entries 100")

	layout := filepath.Join(dir, bpf.LayoutMap)
	if err := os.Rename(layout, filepath.Join(dir, "blixt_layout_9")); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	if err == nil || !strings.Contains(err.Error(), "maps are of layout blixt_layout_9, this program knows "+bpf.LayoutMap) {
		t.Errorf("error %v, want one that names both layouts", err)
	}
	if err := os.Remove(filepath.Join(dir, "blixt_layout_9")); err != nil {
		t.Fatal(err)
	}
	if _, err = Open(dir); err == nil || !strings.Contains(err.Error(), "no map "+bpf.LayoutMap) {
		t.Errorf("error %v, want one that misses the layout map", err)
	}
}

// The embedded object has the same values as the constants here.
func TestContract(t *testing.T) {
	spec, err := bpf.LoadBlixt()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range bpf.MapNames() {
		if spec.Maps[name] == nil {
			t.Errorf("object has no map %s", name)
		}
	}
	names, err := CounterNames()
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if name == "" || name != strings.ToLower(name) {
			t.Errorf("counter %d is called %q", i, name)
		}
	}
	if names[0] != "not_ours" || len(names) != int(bpf.BlixtCounterCOUNTERS) {
		t.Errorf("counters are %v", names)
	}
}

func TestWord(t *testing.T) {
	w := newRingRef(1<<24-2, 65521, 1<<20-1)
	if w.Offset() != 1<<24-2 || w.Size() != 65521 || w.Generation() != 1<<20-1 {
		t.Errorf("word %x", w)
	}
	if n := w.next(2, 251); n.Generation() != 1 || n.Offset() != 2 || n.Size() != 251 {
		t.Errorf("next word %x: a generation is never 0", n)
	}
}

func TestTicks(t *testing.T) {
	for d, want := range map[time.Duration]uint32{0: 0, 1: 1, 1 << 30: 1, 1<<30 + 1: 2, time.Minute: 56, 1 << 61: math.MaxInt32, math.MaxInt64: math.MaxInt32} {
		if got := Ticks(d); got != want {
			t.Errorf("%v: %d ticks, want %d", d, got, want)
		}
	}
}

// A reader that runs beside a constantly publishing writer sees whole rings
// only.
func TestReadersSeeWholeRings(t *testing.T) {
	m := kernelMaps(t, smallSizes)
	var stop atomic.Bool
	var torn atomic.Int64
	var reads int
	const ranges = 64
	rings, err := m.rings.at(0, ranges*252/2)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			w := RingRef(atomic.LoadUint64(&m.published[0]))
			if w.Size() == 0 {
				continue
			}
			first, others := uint32(rings[w.Offset()/2]), int64(0)
			for i := range w.Size() {
				at := w.Offset() + i
				if uint32(rings[at/2]>>(32*(at%2))) != first {
					others++
				}
			}
			// A reader that was stopped for longer than a range rests is none
			// of those that the second is for.
			if now := RingRef(atomic.LoadUint64(&m.published[0])); now.Generation()-w.Generation() < ranges-1 {
				torn.Add(others)
				reads++
			}
		}
	}()
	word := RingRef(0)
	for i := range uint32(2000) {
		slots := make([]uint32, 251)
		for j := range slots {
			slots[j] = i + 1
		}
		offset := i % ranges * 252
		if err := m.WriteRing(offset, slots); err != nil {
			t.Fatal(err)
		}
		word = word.next(offset, 251)
		if err := m.Publish(0, word); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	<-done
	t.Logf("%d reads", reads)
	if n := torn.Load(); n > 0 {
		t.Errorf("%d slots of another ring", n)
	}
}

// BenchmarkPublish lets one of a frontend's backends come and go on the kernel's maps:
// compute, write, switch. From 121 backends on a ring has its full size.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{100, 221, 10_000} {
		b.Run(fmt.Sprint("backends=", n), func(b *testing.B) {
			f := lb.Frontend{Addr: manyKey.Addr, Port: manyKey.Port, Protocol: manyKey.Protocol}
			for _, mm := range manyMembers(n) {
				f.Backends = append(f.Backends, lb.Backend{Addr: mm.Addr, Weight: mm.Weight})
			}
			benchmarkEndpointChange(b, lb.State{Frontends: []lb.Frontend{f}})
		})
	}
}

// BenchmarkPublishAll loads empty maps with as many frontends as they have room for.
func BenchmarkPublishAll(b *testing.B) {
	for _, n := range []int{3, 10} {
		b.Run(fmt.Sprintf("frontends=4096/backends=%d", n), func(b *testing.B) {
			var s lb.State
			for i := range 4096 {
				f := lb.Frontend{Addr: manyKey.Addr, Port: uint16(i + 1), Protocol: manyKey.Protocol}
				for _, mm := range manyMembers(n) {
					f.Backends = append(f.Backends, lb.Backend{Addr: mm.Addr, Weight: mm.Weight})
				}
				s.Frontends = append(s.Frontends, f)
			}
			for b.Loop() {
				b.StopTimer()
				w := &writer{tables: kernelMaps(b, smallSizes), clock: newClock()}
				b.StartTimer()
				if _, err := w.apply(s, 5); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// manyFrontends returns a state of 4,000 frontends with 15 backends each.
func manyFrontends() (s lb.State) {
	for i := range 4000 {
		f := lb.Frontend{Addr: manyKey.Addr, Port: uint16(i + 1), Protocol: manyKey.Protocol}
		for _, mm := range manyMembers(15) {
			f.Backends = append(f.Backends, lb.Backend{Addr: mm.Addr, Weight: mm.Weight})
		}
		s.Frontends = append(s.Frontends, f)
	}
	return s
}

// BenchmarkSame checks whether somebody else has written the kernel's maps,
// which a writer does every ten seconds.
func BenchmarkSame(b *testing.B) {
	m := kernelMaps(b, smallSizes)
	w := &writer{tables: m, clock: newClock()}
	if _, err := w.apply(manyFrontends(), 5); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if same, err := w.image.Same(m); err != nil || !same {
			b.Fatal(same, err)
		}
	}
}

// BenchmarkPublishEndpoint lets one endpoint come and go on the kernel's maps, with so
// many frontends of 15 endpoints each.
func BenchmarkPublishEndpoint(b *testing.B) {
	for _, frontends := range []int{1, 4000} {
		b.Run(fmt.Sprint("frontends=", frontends), func(b *testing.B) {
			s := manyFrontends()
			s.Frontends = s.Frontends[:frontends]
			benchmarkEndpointChange(b, s)
		})
	}
}

func benchmarkEndpointChange(b *testing.B, s lb.State) {
	m, c, target := kernelMaps(b, smallSizes), newClock(), NewTarget()
	contents, err := Read(m, c.now)
	if err == nil {
		err = target.Replace(s)
	}
	if err != nil {
		b.Fatal(err)
	}
	write := func() {
		c.now = c.now.Add(reuseGrace)
		p := target.Plan(contents, c.now)
		if _, err := Apply(m, contents, p, c.Now); err != nil || p.LeftOut != nil || !p.Complete() {
			b.Fatal(err, p.LeftOut)
		}
	}
	write()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f := s.Frontends[i/2%len(s.Frontends)]
		f.Backends = f.Backends[:len(f.Backends)-1+i%2]
		if err := target.Change([]lb.Frontend{f}, nil, nil); err != nil {
			b.Fatal(err)
		}
		write()
	}
}

var manyKey = lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: 80}

func manyMembers(n int) []ring.Member {
	members := make([]ring.Member, n)
	for i := range members {
		members[i] = ring.Member{
			Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 8080),
			Weight: lb.WeightUnit,
		}
	}
	return members
}

// Flows of both protocols are read and removed where the data plane has them, and
// their numbers are those that it sees.
func TestFlowsOfTheKernel(t *testing.T) {
	all := specMaps(t, func(*ebpf.CollectionSpec) {})
	m, err := New(all)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	tables := map[lb.Protocol]*ebpf.Map{lb.TCP: all[bpf.BlixtMapFlows], lb.UDP: all[bpf.BlixtMapUdpFlows]}
	want := map[FlowKey]bool{}
	for protocol, table := range tables {
		for i := range uint16(5000) { // more than a batch
			key := FlowKey{Sport: i, Protocol: uint8(protocol)}
			if err := table.Put(key, Flow{Frontend: uint32(protocol)}); err != nil {
				t.Fatal(err)
			}
			want[key] = true
		}
	}
	err = m.EachFlow(func(entries []FlowEntry) bool {
		for _, e := range entries {
			if e.Value.Frontend != uint32(e.Key.Protocol) {
				t.Errorf("%+v is read of another table", e)
			}
			delete(want, e.Key)
		}
		return true
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%d entries are not seen (%v)", len(want), err)
	}
	for protocol := range tables {
		key := FlowKey{Protocol: uint8(protocol)}
		for _, there := range []bool{true, false} {
			if _, found, err := m.Flow(key); found != there || err != nil {
				t.Errorf("%s: found %v (%v), want %v", protocol, found, err, there)
			}
			if found, err := m.DeleteFlow(key); found != there || err != nil {
				t.Errorf("%s: deleted %v (%v), want %v", protocol, found, err, there)
			}
		}
	}

	established, last := all[bpf.BlixtMapEstablished], m.Sizes().Frontends
	if err := established.Put(uint32(last), uint32(7)); err != nil {
		t.Fatal(err)
	}
	m.AddEstablished(last, -9)
	m.AddEstablished(0, 3)
	var n uint32
	if err := established.Lookup(uint32(last), &n); err != nil || int32(n) != -2 {
		t.Errorf("the data plane sees %d (%v), want -2", int32(n), err)
	}
	if got := m.Established(); got[0] != 3 || int32(got[last]) != -2 || len(got) != 1+last {
		t.Errorf("%d numbers, the first is %d, the last %d", len(got), got[0], int32(got[last]))
	}
}

// Where the host listens is read at once, however many keys there are.
func TestHostListens(t *testing.T) {
	m := kernelMaps(t, Sizes{Flows: 1 << 10, NewFlows: 1 << 10, UDPFlows: 1 << 10})
	key := lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.UDP, Port: 8472}
	if got, err := m.HostListens(); len(got) != 0 || err != nil {
		t.Errorf("got %v (%v), want none", got, err)
	}
	if err := m.hostListens.Put(toKey(key), uint32(42)); err != nil {
		t.Fatal(err)
	}
	if got, err := m.HostListens(); len(got) != 1 || got[key] != 42 || err != nil {
		t.Errorf("got %v (%v)", got, err)
	}
	for p := range uint16(2000) {
		k := key
		k.Port = p
		if err := m.hostListens.Put(toKey(k), uint32(p)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := m.HostListens()
	if err != nil || len(got) == 0 || len(got) > int(m.hostListens.MaxEntries()) {
		t.Errorf("%d keys (%v)", len(got), err)
	}
	for k, tick := range got {
		if tick != uint32(k.Port) && k != key {
			t.Errorf("%s has tick %d", k, tick)
		}
	}
}
