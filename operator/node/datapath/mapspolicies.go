// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// policyMaps are those of policies: see bpf.IsOptional.
type policyMaps struct {
	// Mapped into memory, by words. All are there, or none.
	words, elements, states []uint64
	stats, sources, limited *ebpf.Map
}

// newPolicyMaps returns the maps of policies, if the program has all of them.
func (m *Maps) newPolicyMaps(maps map[string]*ebpf.Map) (p policyMaps, err error) {
	p.stats, p.sources, p.limited = maps[bpf.BlixtMapPolicyStats], maps[bpf.BlixtMapSources], maps[bpf.BlixtMapLimitedSources]
	arrays := map[string]*[]uint64{
		bpf.BlixtMapFrontendPolicies: &p.words, bpf.BlixtMapPolicies: &p.elements, bpf.BlixtMapPolicyStates: &p.states,
	}
	for name := range arrays {
		if maps[name] == nil || p.stats == nil || p.sources == nil || p.limited == nil {
			return policyMaps{}, nil
		}
	}
	for name, memory := range arrays {
		if *memory, err = mmap[uint64](m, maps[name]); err != nil {
			return policyMaps{}, err
		}
	}
	return p, nil
}

// EnforcesPolicies implements Tables.
func (m *Maps) EnforcesPolicies() bool { return m.policies.words != nil }
