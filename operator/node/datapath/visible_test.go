// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// watch reads tables as packets do, after each write, and fails the test if a
// packet would see half a change. The packet may be slow: what it has read up
// to a second ago must still be good.
func watch(t *testing.T, f *Fake, c *clock) (look func()) {
	t.Helper()
	w := &watcher{t: t, f: f, c: c, ended: map[uint32]time.Time{}, refSeen: map[uint32]time.Time{}, flows: map[uint64]uint64{}}
	f.After = w.look
	return w.look
}

type watcher struct {
	t        *testing.T
	f        *Fake
	c        *clock
	rings    []seen // served, now or not long ago
	ended    map[uint32]time.Time
	backends []bpf.BlixtBackend
	refs     []uint64             // the keys of the ids
	refSeen  map[uint32]time.Time // when a backend had the id last
	flows    map[uint64]uint64    // by key: what its id must have counted

	seenPolicies seenPolicies
}

// seen is a ring that a packet may be using.
type seen struct {
	key   lb.Key
	index uint32
	ref   RingRef
	slots []uint32
	last  time.Time // when it was served last
}

func (w *watcher) look() {
	w.t.Helper()
	for key, e := range w.f.frontends {
		w.frontend(key, e)
	}
	w.addresses()
	w.slowPackets()
	w.reuse()
	w.counts()
	w.policies()
	w.kept()
	w.ranges()
	w.backends = slices.Clone(w.f.backends)
}

// addresses checks that packets to each address are looked at.
func (w *watcher) addresses() {
	w.t.Helper()
	for ip, a := range w.f.addresses {
		if have, want := w.f.Interest(ip), AddressInterest(a); have&want != want {
			w.t.Fatalf("address %s: its byte of interest has bits %b, want %b", ip, have, want)
		}
	}
}

// kept checks that whoever is led to a backend again meets one of the frontend, with the
// address that the client had.
func (w *watcher) kept() {
	w.t.Helper()
	for key, id := range w.f.affinity.kept {
		if b := w.f.backends[id]; !inUse(b) || b.Frontend != key.Frontend || FromAddr(b.Addr) != key.Addr {
			w.t.Fatalf("clients of frontend %d that had %s are led to backend %d, which is %+v", key.Frontend, key.Addr, id, b)
		}
	}
}

// ranges checks that ranges which packets look for are there, and lead to frontends.
func (w *watcher) ranges() {
	w.t.Helper()
	for ip, a := range w.f.addresses {
		if a.Flags&AddressRanges == 0 {
			continue
		}
		n := 0
		for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
			for _, r := range w.f.affinity.ranges[lb.Key{Addr: ip, Protocol: protocol}].Of {
				if r.Last == 0 {
					continue
				}
				n++
				key := lb.Key{Addr: ip, Protocol: protocol, Port: FromPort(r.Port)}
				if _, served := w.f.frontends[key]; !served {
					w.t.Fatalf("ports %d-%d lead to %s, which is no frontend", r.First, r.Last, key)
				}
			}
		}
		if n == 0 {
			w.t.Fatalf("packets to %s look for ranges, and find none", ip)
		}
	}
}

// frontend checks that everything a packet reads now is complete.
func (w *watcher) frontend(key lb.Key, e bpf.BlixtFrontend) {
	w.t.Helper()
	word := w.f.published[e.Index]
	if word.Generation() == 0 {
		w.t.Fatalf("%s leads to index %d, which is not published", key, e.Index)
	}
	slots := w.f.rings[word.Offset() : word.Offset()+word.Size()]
	for i, id := range slots {
		if b := w.f.backends[id]; id != 0 && (!inUse(b) || b.Frontend != e.Index) {
			w.t.Fatalf("%s: slot %d holds backend %d, which is %+v", key, i, id, b)
		}
	}
	now := w.c.now
	i := slices.IndexFunc(w.rings, func(s seen) bool { return s.index == e.Index && s.ref == word && s.key == key })
	if i < 0 {
		w.rings = append(w.rings, seen{key, e.Index, word, slices.Clone(slots), now})
	} else {
		w.rings[i].last = now
	}
}

// slowPackets checks that no ring has changed that was served within a
// second.
func (w *watcher) slowPackets() {
	w.t.Helper()
	now := w.c.now
	w.rings = slices.DeleteFunc(w.rings, func(s seen) bool { return now.Sub(s.last) >= reuseGrace })
	for _, s := range w.rings {
		if !slices.Equal(s.slots, w.f.rings[s.ref.Offset():s.ref.Offset()+s.ref.Size()]) {
			w.t.Fatalf("%s: the ring at %d changed %v after it was served", s.key, s.ref.Offset(), now.Sub(s.last))
		}
	}
}

// counts checks that an id has counted what its backendRef got, and nothing else, and
// that it rests before another one gets it. Then each backend gets a flow.
func (w *watcher) counts() {
	w.t.Helper()
	keys, _ := w.f.RefKeys()
	for id, key := range keys {
		if w.refs != nil && w.refs[id] != key {
			if seen, ok := w.refSeen[uint32(id)]; ok && w.c.now.Sub(seen) < reuseGrace {
				w.t.Fatalf("id %d: given to another backendRef after %v", id, w.c.now.Sub(seen))
			}
			delete(w.flows, w.refs[id])
		}
		if got := w.f.RefsOf[id].Flows; key != 0 && got != w.flows[key] {
			w.t.Fatalf("id %d: has counted %d flows, want %d", id, got, w.flows[key])
		}
	}
	w.refs = keys
	for id, b := range w.f.backends {
		if !inUse(b) || b.Ref == 0 {
			continue
		}
		if keys[b.Ref] == 0 {
			w.t.Fatalf("backend %d: has id %d of nobody", id, b.Ref)
		}
		w.refSeen[b.Ref] = w.c.now
		w.flows[keys[b.Ref]]++
		w.f.RefsOf[b.Ref].Flows++
	}
}

// reuse checks that an entry in use never changes, except its flag
// BACKEND_NOT_SERVING and its backendRef, that generations grow by one, and that an id rests before
// it is used again.
func (w *watcher) reuse() {
	w.t.Helper()
	for id, b := range w.f.backends {
		if w.backends == nil || w.backends[id] == b {
			continue
		}
		old := w.backends[id]
		if inUse(old) && b.Generation == old.Generation {
			if old.Ref = b.Ref; old.Flags != b.Flags {
				old.Flags ^= BackendNotServing
			}
			if b != old {
				w.t.Fatalf("backend %d: %+v changed to %+v", id, w.backends[id], b)
			}
			continue
		}
		if b.Generation != old.Generation+1 {
			w.t.Fatalf("backend %d: generation %d after %d", id, b.Generation, old.Generation)
		}
		if inUse(old) {
			w.ended[uint32(id)] = w.c.now
			if b.Generation--; b != old {
				w.t.Fatalf("backend %d: %+v ends as %+v", id, old, b)
			}
			continue
		}
		if ended, ok := w.ended[uint32(id)]; ok && w.c.now.Sub(ended) < reuseGrace {
			w.t.Fatalf("backend %d: used again after %v", id, w.c.now.Sub(ended))
		}
	}
}

// The watcher itself must see what it looks for.
func TestWatcherSeesFaults(t *testing.T) {
	s := parseState(t, "address 192.0.2.1\ntcp 192.0.2.1:80\n  10.0.0.1:80 1 @web:80\n  10.0.0.2:80 1 @web:80\n")
	for name, spoil := range map[string]func(f *Fake, index uint32, ids []uint32){
		"backend freed while in a ring":  func(f *Fake, _ uint32, ids []uint32) { f.backends[ids[0]].Generation++ },
		"backend of another frontend":    func(f *Fake, _ uint32, ids []uint32) { f.backends[ids[0]].Frontend++ },
		"ring changed in place":          func(f *Fake, i uint32, _ []uint32) { f.rings[f.published[i].Offset()] ^= 3 },
		"address passed by":              func(f *Fake, _ uint32, _ []uint32) { clear(f.interest) },
		"counters of nobody":             func(f *Fake, _ uint32, ids []uint32) { f.backends[ids[0]].Ref = 4 },
		"counted twice":                  func(f *Fake, _ uint32, _ []uint32) { f.RefsOf[1].Flows++ },
		"given to another one too early": func(f *Fake, _ uint32, _ []uint32) { f.RefsOf[1] = RefCounters{Key: 9} },
		"index not published":            func(f *Fake, i uint32, _ []uint32) { f.published[i] = 0 },
		"address changed in place": func(f *Fake, _ uint32, ids []uint32) {
			f.backends[ids[0]].Addr = ToAddr(netip.MustParseAddr("10.0.0.9"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake, c := NewFake(smallSizes), newClock()
			w := &writer{tables: fake, clock: c}
			if _, err := w.apply(s, 1); err != nil {
				t.Fatal(err)
			}
			var served *Served
			for _, served = range w.image.Frontends {
			}
			if !failsIn(func(t *testing.T) {
				look := watch(t, fake, c)
				look()
				spoil(fake, served.Entry.Index, slices.Sorted(maps.Values(served.IDs)))
				look()
			}) {
				t.Error("not seen")
			}
		})
	}
}

// failsIn runs a test function beside the test and reports whether it failed.
func failsIn(f func(*testing.T)) bool {
	inner := &testing.T{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(inner)
	}()
	<-done
	return inner.Failed()
}
