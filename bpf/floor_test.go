// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf/floor"
)

// floors are the programs that the data plane is compared with.
type floors struct {
	testing.TB
	floor.FloorObjects
	services, backends uint32 // how many there are
}

// loadFloors loads the programs with room for that many flows, of one direction, and sets of the cache.
func loadFloors(t testing.TB, flows, sets uint32) *floors {
	t.Helper()
	spec, err := floor.LoadFloor()
	if err != nil {
		t.Fatal(err)
	}
	spec.Maps["flows4"].MaxEntries = flows
	spec.Maps["flows6"].MaxEntries = flows
	spec.Maps["cache"].MaxEntries = sets
	if err := spec.Variables["cache_sets"].Set(sets); err != nil {
		t.Fatal(err)
	}
	f := &floors{TB: t}
	if err := spec.LoadAndAssign(&f.FloorObjects, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// reset forgets all services and flows.
func (f *floors) reset() {
	f.Helper()
	f.services, f.backends = 0, 0
	l := &lb{TB: f.TB}
	deleteAll[[3]uint32, uint32](l, f.Services4)
	deleteAll[[6]uint32, uint32](l, f.Services6)
	f.clear()
	free := make([]byte, f.Cache.ValueSize())
	for i := range f.Cache.MaxEntries() {
		if err := f.Cache.Put(i, free); err != nil {
			f.Fatal(err)
		}
	}
}

// clear empties the tables of flows.
func (f *floors) clear() {
	f.Helper()
	l := &lb{TB: f.TB}
	deleteAll[[4]uint32, uint32](l, f.Flows4)
	deleteAll[[10]uint32, uint32](l, f.Flows6)
}

// serve translates the address and port `from` of a protocol to those of `to`, in turns.
func (f *floors) serve(protocol uint8, from string, to ...string) {
	f.Helper()
	must := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
	}
	words := func(b []byte) (w [4]uint32) {
		for i := range len(b) / 4 {
			w[i] = binary.NativeEndian.Uint32(b[4*i:])
		}
		return w
	}
	const ringSlots = 4096
	for i := range uint32(ringSlots) {
		must(f.Ring.Put(f.services*ringSlots+i, f.backends+i%uint32(len(to))))
	}
	for _, backend := range to {
		must(f.Backends.Put(f.backends, floor.FloorBackend{Addr: words(ap(backend).Addr().AsSlice()), Port: htons(ap(backend).Port())}))
		f.backends++
	}
	addr := words(ap(from).Addr().AsSlice())
	head := [2]uint32{uint32(htons(ap(from).Port())), uint32(protocol)}
	if ap(from).Addr().Is4() {
		must(f.Services4.Put([3]uint32{head[0], head[1], addr[0]}, f.services))
	} else {
		must(f.Services6.Put([6]uint32{head[0], head[1], addr[0], addr[1], addr[2], addr[3]}, f.services))
	}
	f.services++
}

// TestFloors shows that the programs do the work that they are a measure for.
func TestFloors(t *testing.T) {
	f := loadFloors(t, 64, 64)
	lab, err := sharedLab()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			vip := port(ip.vip, "80")
			f.serve(protocol, vip, ip.local)
			f.serve(protocol, ip.local, vip)
			forward, reply := proto(protocol, ip.client, vip), proto(protocol, ip.local, ip.client)
			for name, c := range map[string]struct {
				program  *ebpf.Program
				in, want packet
			}{
				"parse only":           {f.ParseOnly, forward, forward},
				"stateless":            {f.StatelessForward, forward, forward.to(ip.local)},
				"stateless, replies":   {f.StatelessReply, reply, reply.from(vip)},
				"connections":          {f.ConntrackForward, forward, forward.to(ip.local)},
				"connections, replies": {f.ConntrackReply, reply, reply.from(vip)},
				"cache":                {f.FlowCacheForward, forward, forward.to(ip.local)},
				"cache, replies":       {f.FlowCacheReply, reply, reply.from(vip)},
			} {
				t.Run(name+" "+ip.name+" "+protocolName(protocol), func(t *testing.T) {
					l := &lb{TB: t, lab: lab, BlixtObjects: &BlixtObjects{BlixtPrograms: BlixtPrograms{Blixt: c.program}}}
					for range 2 { // the second one finds an entry
						verdict, out, err := l.run(hook{dev: outside}, c.in.bytes(), 0)
						l.must(err)
						r := &result{l: l, in: c.in, frame: c.in.bytes(), verdict: verdict, out: out}
						if verdict != tcxNext {
							t.Errorf("verdict %d, want next", int32(verdict))
						}
						r.wantPacket(c.want)
					}
				})
			}
			dropped := forward.to(port(ip.vip, "81"))
			l := &lb{TB: t, lab: lab, BlixtObjects: &BlixtObjects{BlixtPrograms: BlixtPrograms{Blixt: f.ConntrackForward}}}
			if verdict, _, err := l.run(hook{dev: outside}, dropped.bytes(), 0); err != nil || verdict != tcxDrop {
				t.Errorf("%v: verdict %d, want drop; error %v", dropped.dst, int32(verdict), err)
			}
		}
	}
}
