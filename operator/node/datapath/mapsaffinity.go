// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// PortRanges implements Tables. An earlier program has none, and serves no more than a
// frontend's own port.
func (m *Maps) PortRanges() (map[lb.Key]bpf.BlixtPortRanges, error) {
	if m.portRanges == nil {
		return nil, nil
	}
	return readHash[bpf.BlixtPortRanges](m.portRanges, fromKey)
}

// PutPortRanges implements Tables.
func (m *Maps) PutPortRanges(k lb.Key, r bpf.BlixtPortRanges) error {
	if m.portRanges == nil {
		return nil
	}
	return m.portRanges.Put(toKey(k), r)
}

// DeletePortRanges implements Tables.
func (m *Maps) DeletePortRanges(k lb.Key) error {
	if m.portRanges == nil {
		return nil
	}
	return remove(m.portRanges, toKey(k))
}

func toAffinityKey(k AffinityKey) bpf.BlixtAffinityBackendKey {
	return bpf.BlixtAffinityBackendKey{Frontend: k.Frontend, Addr: ToAddr(k.Addr)}
}

// AffinityBackends implements Tables. An earlier program remembers no client.
func (m *Maps) AffinityBackends() (map[AffinityKey]uint32, error) {
	if m.affinityBackends == nil {
		return nil, nil
	}
	return readHash[uint32](m.affinityBackends, func(k bpf.BlixtAffinityBackendKey) AffinityKey {
		return AffinityKey{k.Frontend, FromAddr(k.Addr)}
	})
}

// PutAffinityBackend implements Tables.
func (m *Maps) PutAffinityBackend(k AffinityKey, id uint32) error {
	if m.affinityBackends == nil {
		return nil
	}
	return m.affinityBackends.Put(toAffinityKey(k), id)
}

// DeleteAffinityBackend implements Tables.
func (m *Maps) DeleteAffinityBackend(k AffinityKey) error {
	if m.affinityBackends == nil {
		return nil
	}
	return remove(m.affinityBackends, toAffinityKey(k))
}
