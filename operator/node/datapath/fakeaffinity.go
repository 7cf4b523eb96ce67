// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"maps"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// fakeAffinity are the tables of ranges, and of what frontends keep for their clients.
type fakeAffinity struct {
	ranges map[lb.Key]bpf.BlixtPortRanges
	kept   map[AffinityKey]uint32
}

func newFakeAffinity() fakeAffinity {
	return fakeAffinity{map[lb.Key]bpf.BlixtPortRanges{}, map[AffinityKey]uint32{}}
}

// PortRanges implements Tables.
func (f *Fake) PortRanges() (map[lb.Key]bpf.BlixtPortRanges, error) {
	return get(f, func() map[lb.Key]bpf.BlixtPortRanges { return maps.Clone(f.affinity.ranges) })
}

// PutPortRanges implements Tables.
func (f *Fake) PutPortRanges(k lb.Key, r bpf.BlixtPortRanges) error {
	return f.write(func() { f.affinity.ranges[k] = r })
}

// DeletePortRanges implements Tables.
func (f *Fake) DeletePortRanges(k lb.Key) error {
	return f.write(func() { delete(f.affinity.ranges, k) })
}

// AffinityBackends implements Tables.
func (f *Fake) AffinityBackends() (map[AffinityKey]uint32, error) {
	return get(f, func() map[AffinityKey]uint32 { return maps.Clone(f.affinity.kept) })
}

// PutAffinityBackend implements Tables.
func (f *Fake) PutAffinityBackend(k AffinityKey, id uint32) error {
	return f.write(func() { f.affinity.kept[k] = id })
}

// DeleteAffinityBackend implements Tables.
func (f *Fake) DeleteAffinityBackend(k AffinityKey) error {
	return f.write(func() { delete(f.affinity.kept, k) })
}
