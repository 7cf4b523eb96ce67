// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// errInjected is the error with which methods of Fake fail on purpose.
var errInjected = errors.New("injected fault")

// Fake are tables in memory, for tests, which can fail. They can do what the
// kernel cannot: fail although the write was done.
type Fake struct {
	// Faults is the part of all calls that fail, from 0 to 1.
	Faults float64
	// Rand chooses them. It must be set if Faults is.
	Rand *rand.Rand
	// CrashAfter is the number of writes after which every call fails, until it
	// is set again; 0: never.
	CrashAfter int
	// After, if set, is called after each write that was done.
	After func()
	// Earlier is true for a program without the tables of Announcing and of policies.
	Earlier bool
	// MaxPeers is the size of `peers`; 0: there is always room.
	MaxPeers int
	// NoMemory, if set, reports whether the kernel has no memory for an entry of `sources`.
	NoMemory func() bool
	// Answers, if set, reports whether another node has answered a probe.
	Answers func(FlowKey, bpf.BlixtProbeForm) bool

	sizes     Sizes
	config    bpf.BlixtConfig
	addresses map[netip.Addr]bpf.BlixtAddress
	frontends map[lb.Key]bpf.BlixtFrontend
	published []RingRef
	rings     []uint32
	backends  []bpf.BlixtBackend

	// What the data plane would write.
	FlowTable      map[bpf.BlixtFlowKey]bpf.BlixtFlow
	Tombstones     map[bpf.BlixtFlowKey]bool
	EstablishedNow []uint32
	FlowsOf        map[uint32]uint64
	CountersOf     map[uint32]bpf.BlixtFrontendCounters
	CounterTable   []uint64
	LinkPacketsNow []uint64
	RefsOf         []RefCounters      // by id
	RTTOf          map[uint32]Latency // by index
	HealthOf       map[uint32]Health  // by id of the backend
	NewFlowTable   map[bpf.BlixtFlowKey]bpf.BlixtFlow
	LaterNumbers   map[bpf.BlixtFlowKey][2]uint32 // in `flow_cache`
	PolicyCountsOf map[uint32]PolicyCounts        // by id
	ConcurrentNow  []int32                        // by id
	LimitedTable   map[bpf.BlixtLimitedSourceKey]bpf.BlixtLimitedSource
	EndedRecords   map[bpf.BlixtFlowKey]bpf.BlixtEndReason // by EndRecord

	mu            sync.Mutex // of all but the exported fields
	hostListens   map[lb.Key]uint32
	interest      []uint8
	writes, reads int
	a             fakeAnnouncing
	p             fakePolicies
	affinity      fakeAffinity
}

var (
	_ Tables = (*Fake)(nil)
	_ Counts = (*Fake)(nil)
	_ Flows  = (*Fake)(nil)
)

// NewFake returns empty tables.
func NewFake(s Sizes) *Fake {
	return &Fake{
		sizes:          s,
		p:              newFakePolicies(s),
		addresses:      map[netip.Addr]bpf.BlixtAddress{},
		frontends:      map[lb.Key]bpf.BlixtFrontend{},
		published:      make([]RingRef, s.Frontends),
		rings:          make([]uint32, s.RingSlots),
		backends:       make([]bpf.BlixtBackend, s.Backends),
		FlowTable:      map[bpf.BlixtFlowKey]bpf.BlixtFlow{},
		NewFlowTable:   map[bpf.BlixtFlowKey]bpf.BlixtFlow{},
		interest:       make([]uint8, bpf.BlixtLimitINTEREST_SIZE),
		Tombstones:     map[bpf.BlixtFlowKey]bool{},
		EstablishedNow: make([]uint32, 1+s.Frontends),
		FlowsOf:        map[uint32]uint64{},
		CountersOf:     map[uint32]bpf.BlixtFrontendCounters{},
		CounterTable:   make([]uint64, bpf.BlixtCounterCOUNTERS),
		LinkPacketsNow: make([]uint64, 2*bpf.BlixtLimitMAX_LINKS),
		RefsOf:         make([]RefCounters, s.Refs),
		RTTOf:          map[uint32]Latency{},
		affinity:       newFakeAffinity(),
		PolicyCountsOf: map[uint32]PolicyCounts{},
		ConcurrentNow:  make([]int32, s.Policies),
		LimitedTable:   map[bpf.BlixtLimitedSourceKey]bpf.BlixtLimitedSource{},
		EndedRecords:   map[bpf.BlixtFlowKey]bpf.BlixtEndReason{},
	}
}

// Writes returns how many writes were done since it was last called.
func (f *Fake) Writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.writes
	f.writes = 0
	return n
}

// Reads returns how many reads were done since it was last called.
func (f *Fake) Reads() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.reads
	f.reads = 0
	return n
}

func (f *Fake) fails() error {
	if f.CrashAfter > 0 && f.writes >= f.CrashAfter || f.Faults > 0 && f.Rand.Float64() < f.Faults {
		return errInjected
	}
	return nil
}

func get[T any](f *Fake, read func() T) (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	return read(), f.fails()
}

func (f *Fake) write(do func()) error {
	f.mu.Lock()
	err := f.fails()
	done := err == nil || f.CrashAfter == 0 && f.Rand.IntN(2) == 0
	if done {
		do()
		f.writes++
	}
	f.mu.Unlock()
	if done && f.After != nil {
		f.After()
	}
	return err
}

// Sizes implements Tables.
func (f *Fake) Sizes() Sizes { return f.sizes }

// Config implements Tables.
func (f *Fake) Config() (bpf.BlixtConfig, error) {
	return get(f, func() bpf.BlixtConfig { return f.config })
}

// SetConfig implements Tables.
func (f *Fake) SetConfig(c bpf.BlixtConfig) error { return f.write(func() { f.config = c }) }

// AddInterest implements Tables.
func (f *Fake) AddInterest(a bpf.BlixtAddr, bits bpf.BlixtInterestFlag) error {
	set := uint8(bits | InterestFresh)
	at := bpf.InterestHash(a)
	if have, err := get(f, func() uint8 { return f.interest[at] }); err != nil || have&set == set {
		return err
	}
	return f.write(func() { f.interest[at] |= set })
}

// SettleInterest implements Flows.
func (f *Fake) SettleInterest(needed []uint8, clear bool) error {
	return f.write(func() {
		for i := range f.interest {
			f.interest[i] = settled(f.interest[i], needed[i], clear)
		}
	})
}

// Interest returns the byte of an address in `interest`.
func (f *Fake) Interest(a netip.Addr) bpf.BlixtInterestFlag {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bpf.BlixtInterestFlag(f.interest[bpf.InterestHash(ToAddr(a))])
}

// Addresses implements Tables.
func (f *Fake) Addresses() (map[netip.Addr]bpf.BlixtAddress, error) {
	return get(f, func() map[netip.Addr]bpf.BlixtAddress { return maps.Clone(f.addresses) })
}

// PutAddress implements Tables.
func (f *Fake) PutAddress(ip netip.Addr, a bpf.BlixtAddress) error {
	if have, _ := get(f, func() int { return len(f.addresses) }); have >= f.sizes.Addresses {
		if _, ok := f.addresses[ip]; !ok {
			return errors.New("table addresses is full")
		}
	}
	return f.write(func() { f.addresses[ip] = a })
}

// DeleteAddress implements Tables.
func (f *Fake) DeleteAddress(ip netip.Addr) error {
	return f.write(func() { delete(f.addresses, ip) })
}

// Frontends implements Tables.
func (f *Fake) Frontends() (map[lb.Key]bpf.BlixtFrontend, error) {
	return get(f, func() map[lb.Key]bpf.BlixtFrontend { return maps.Clone(f.frontends) })
}

// PutFrontend implements Tables.
func (f *Fake) PutFrontend(k lb.Key, e bpf.BlixtFrontend) error {
	if have, _ := get(f, func() int { return len(f.frontends) }); have >= f.sizes.Frontends {
		if _, ok := f.frontends[k]; !ok {
			return errors.New("table frontends is full")
		}
	}
	return f.write(func() { f.frontends[k] = e })
}

// DeleteFrontend implements Tables.
func (f *Fake) DeleteFrontend(k lb.Key) error { return f.write(func() { delete(f.frontends, k) }) }

// Published implements Tables.
func (f *Fake) Published() ([]RingRef, error) {
	return get(f, func() []RingRef { return slices.Clone(f.published) })
}

// Publish implements Tables.
func (f *Fake) Publish(index uint32, w RingRef) error {
	return f.write(func() { f.published[index] = w })
}

// Ring implements Tables.
func (f *Fake) Ring(offset, n uint32) ([]uint32, error) {
	return get(f, func() []uint32 { return slices.Clone(f.rings[offset : offset+n]) })
}

// HasRing implements Tables.
func (f *Fake) HasRing(offset uint32, slots []uint32) (bool, error) {
	return get(f, func() bool { return slices.Equal(f.rings[offset:int(offset)+len(slots)], slots) })
}

// WriteRing implements Tables.
func (f *Fake) WriteRing(offset uint32, slots []uint32) error {
	return f.write(func() {
		copy(f.rings[offset:], slots)
		if len(slots)%2 != 0 {
			f.rings[int(offset)+len(slots)] = 0
		}
	})
}

// ZeroSlots implements Tables.
func (f *Fake) ZeroSlots() (offset, n uint32, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	start := 0
	for i := 0; i <= len(f.rings); i++ {
		if i < len(f.rings) && f.rings[i] == 0 {
			continue
		}
		if run := uint32(i - start); run > n {
			offset, n = uint32(start), run
		}
		start = i + 1
	}
	return offset, n, f.fails()
}

// Backends implements Tables.
func (f *Fake) Backends() ([]bpf.BlixtBackend, error) {
	return get(f, func() []bpf.BlixtBackend {
		n := len(f.backends)
		for n > 0 && f.backends[n-1] == (bpf.BlixtBackend{}) {
			n--
		}
		return slices.Clone(f.backends[:n])
	})
}

// PutBackend implements Tables.
func (f *Fake) PutBackend(id uint32, b bpf.BlixtBackend) error {
	return f.write(func() { f.backends[id] = b })
}

// RefKeys implements Tables.
func (f *Fake) RefKeys() ([]uint64, error) {
	return get(f, func() []uint64 {
		keys := make([]uint64, len(f.RefsOf))
		for id := range keys {
			keys[id] = f.RefsOf[id].Key
		}
		return keys
	})
}

// GiveRef implements Tables.
func (f *Fake) GiveRef(id uint32, key uint64) error {
	return f.write(func() { f.RefsOf[id] = RefCounters{Key: key} })
}

// RefCounters implements Counts.
func (f *Fake) RefCounters(id uint32, key uint64) (RefCounters, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if int(id) >= len(f.RefsOf) || f.RefsOf[id].Key != key {
		return RefCounters{}, false
	}
	return f.RefsOf[id], true
}

// ClientRTT implements Counts.
func (f *Fake) ClientRTT(index uint32) (Latency, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.RTTOf[index], len(f.RefsOf) > 0
}

// ResetBackendFlows implements Tables.
func (f *Fake) ResetBackendFlows(id uint32) error {
	return f.write(func() { delete(f.FlowsOf, id) })
}

// ResetFrontendCounters implements Tables.
func (f *Fake) ResetFrontendCounters(index uint32) error {
	return f.write(func() {
		delete(f.CountersOf, index)
		delete(f.RTTOf, index)
	})
}

// Counters implements Counts.
func (f *Fake) Counters() ([]uint64, error) {
	return get(f, func() []uint64 { return slices.Clone(f.CounterTable) })
}

// FrontendCounters implements Counts.
func (f *Fake) FrontendCounters(index uint32) (bpf.BlixtFrontendCounters, error) {
	return get(f, func() bpf.BlixtFrontendCounters { return f.CountersOf[index] })
}

// FirstFrontendCounters implements Counts.
func (f *Fake) FirstFrontendCounters(n int) ([]bpf.BlixtFrontendCounters, error) {
	return get(f, func() []bpf.BlixtFrontendCounters {
		all := make([]bpf.BlixtFrontendCounters, n)
		for i := range all {
			all[i] = f.CountersOf[uint32(i)]
		}
		return all
	})
}

// SetUnanswered implements Flows.
func (f *Fake) SetUnanswered(id uint32, key, n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := &f.RefsOf[id]; c.Key == key {
		c.Unanswered = max(n, c.Unanswered)
	}
}

// BackendFlows implements Counts.
func (f *Fake) BackendFlows(id uint32) (uint64, error) {
	return get(f, func() uint64 { return f.FlowsOf[id] })
}

// FirstBackendFlows implements Counts.
func (f *Fake) FirstBackendFlows(n int) ([]uint64, error) {
	return get(f, func() []uint64 {
		all := make([]uint64, n)
		for id := range all {
			all[id] = f.FlowsOf[uint32(id)]
		}
		return all
	})
}

// HostListens implements Counts.
func (f *Fake) HostListens() (map[lb.Key]uint32, error) {
	return get(f, func() map[lb.Key]uint32 { return maps.Clone(f.hostListens) })
}

// SetHostListens sets what HostListens returns.
func (f *Fake) SetHostListens(ticks map[lb.Key]uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hostListens = maps.Clone(ticks)
}

// LinkPackets implements Counts.
func (f *Fake) LinkPackets() ([]uint64, error) {
	return get(f, func() []uint64 { return slices.Clone(f.LinkPacketsNow) })
}

// EachFlow implements Flows.
func (f *Fake) EachFlow(yield func([]FlowEntry) bool) error {
	return f.eachFlow(f.FlowTable, yield)
}

// EachNewFlow implements Flows.
func (f *Fake) EachNewFlow(yield func([]FlowEntry) bool) error {
	return f.eachFlow(f.NewFlowTable, yield)
}

func (f *Fake) eachFlow(table map[bpf.BlixtFlowKey]bpf.BlixtFlow, yield func([]FlowEntry) bool) error {
	flows, err := get(f, func() map[bpf.BlixtFlowKey]bpf.BlixtFlow { return maps.Clone(table) })
	for key, value := range flows {
		if !yield([]FlowEntry{{key, value}}) {
			return nil
		}
	}
	return err
}

// Flow implements Flows.
func (f *Fake) Flow(key bpf.BlixtFlowKey) (bpf.BlixtFlow, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	value, ok := f.FlowTable[key]
	return value, ok, f.fails()
}

// LatestNumbers implements Flows.
func (f *Fake) LatestNumbers(e FlowEntry) (next, ack uint32, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	numbers, ok := f.LaterNumbers[e.Key]
	if !ok {
		numbers = [2]uint32{e.Value.Next, e.Value.Ack}
	}
	return numbers[0], numbers[1], f.fails()
}

// DeleteFlow implements Flows.
func (f *Fake) DeleteFlow(key bpf.BlixtFlowKey) (found bool, err error) {
	err = f.write(func() {
		_, found = f.FlowTable[key]
		delete(f.FlowTable, key)
	})
	return found, err
}

// Bury implements Flows.
func (f *Fake) Bury(reply bpf.BlixtFlowKey, _ bpf.BlixtFlowFlag, _ uint32) error {
	return f.write(func() { f.Tombstones[reply] = true })
}

// Established implements Flows.
func (f *Fake) Established() []uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.EstablishedNow)
}

// AddEstablished implements Flows.
func (f *Fake) AddEstablished(element int, delta int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.EstablishedNow[element] += uint32(delta)
}
