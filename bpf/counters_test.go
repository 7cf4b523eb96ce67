// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// counts are the counters that are not zero, by name.
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

// counterNames returns the names of enum counter, as status shows them.
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

// lookupAll reads a whole per-CPU array. The values of one element, one for each
// CPU, follow each other.
func lookupAll[V any](l *lb, m *ebpf.Map) (values []V, cpus int) {
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
	values, cpus := lookupAll[uint64](l, l.Counters)
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
	values, _ := lookupAll[BlixtFrontendCounters](l, l.FrontendStats)
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

// checkFrontends compares the counters of the frontends with the program's counters.
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
