// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"cmp"
	"slices"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// PolicyStatus is what one policy does to the flows to one of its targets.
type PolicyStatus struct {
	Policy string `json:"policy"` // namespace/name
	Target string `json:"target"` // kind/namespace/name, of a listener with /name behind
	// DryRun only counts what would be refused.
	DryRun bool `json:"dryRun,omitempty"`
	// InForce is false if the tables have no room for it.
	InForce bool `json:"inForce"`
	// Frontends is how many ask it.
	Frontends int `json:"frontends"`
	// Sources is how many prefixes its list has in the tables.
	Sources int `json:"sources,omitempty"`
	// Refused are the flows that were refused, or would be, by reason: of those that it can
	// have.
	Refused map[string]uint64 `json:"refused,omitempty"`
	// Concurrent is how many flows there are, if it limits them.
	Concurrent uint32 `json:"concurrent,omitempty"`
	// Forgotten is how many sources began anew, as the table of limited sources had no room.
	Forgotten uint64 `json:"forgotten,omitempty"`

	id uint32
}

// refusalNames are those of reasons why a policy refuses a flow.
var refusalNames = map[bpf.BlixtRefusal]string{
	bpf.BlixtRefusalREFUSED_SOURCE:            "source",
	bpf.BlixtRefusalREFUSED_SOURCE_RATE:       "source_rate",
	bpf.BlixtRefusalREFUSED_TOTAL_RATE:        "total_rate",
	bpf.BlixtRefusalREFUSED_SOURCE_CONCURRENT: "source_concurrent",
	bpf.BlixtRefusalREFUSED_TOTAL_CONCURRENT:  "total_concurrent",
	bpf.BlixtRefusalREFUSED_ADOPTED:           "adopted",
}

// refusals are the reasons that a restriction can have.
func refusals(r *lb.Restriction) (all []bpf.BlixtRefusal) {
	add := func(can bool, why bpf.BlixtRefusal) {
		if can {
			all = append(all, why)
		}
	}
	add(r.Sources, bpf.BlixtRefusalREFUSED_SOURCE)
	if l := r.Limits; l != nil {
		add(l.PerSource.NewPerSecond > 0, bpf.BlixtRefusalREFUSED_SOURCE_RATE)
		add(l.Total.NewPerSecond > 0, bpf.BlixtRefusalREFUSED_TOTAL_RATE)
		add(l.PerSource.Concurrent > 0, bpf.BlixtRefusalREFUSED_SOURCE_CONCURRENT)
		add(l.Total.Concurrent > 0, bpf.BlixtRefusalREFUSED_TOTAL_CONCURRENT)
		add(l.PerSource.NewPerSecond+l.Total.NewPerSecond > 0, bpf.BlixtRefusalREFUSED_ADOPTED)
	}
	return all
}

// heldPolicies returns the restrictions of frontends, as far as it does not take counters.
func heldPolicies(c *datapath.Contents, frontends func(yield func(*lb.Frontend) bool)) []PolicyStatus {
	byKey := map[uint64]*PolicyStatus{}
	for f := range frontends {
		for i := range f.Restrictions {
			r := &f.Restrictions[i]
			key := datapath.PolicyKey(r)
			p := byKey[key]
			if p == nil {
				p = &PolicyStatus{Policy: r.Policy, Target: r.Target, DryRun: r.DryRun, Refused: map[string]uint64{}}
				p.id, p.Sources, p.InForce = c.PolicyID(r)
				for _, why := range refusals(r) {
					p.Refused[refusalNames[why]] = 0
				}
				byKey[key] = p
			}
			p.Frontends++
		}
	}
	all := make([]PolicyStatus, 0, len(byKey))
	for _, p := range byKey {
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b PolicyStatus) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Target, b.Target), cmp.Compare(a.id, b.id))
	})
	return all
}

// countPolicies returns them with what was counted.
func countPolicies(t datapath.Counts, held []PolicyStatus) ([]PolicyStatus, error) {
	all := slices.Clone(held)
	for i := range all {
		p := &all[i]
		if !p.InForce {
			continue
		}
		c, err := t.PolicyCounts(p.id)
		if err != nil {
			return nil, err
		}
		refused := make(map[string]uint64, len(p.Refused))
		for why, name := range refusalNames {
			if _, can := p.Refused[name]; can || c.Refused[why] > 0 {
				refused[name] = c.Refused[why]
			}
		}
		p.Refused, p.Concurrent, p.Forgotten = refused, c.Concurrent, c.Forgotten
	}
	return all, nil
}
