// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// PolicyProgress returns the progress of Gateways as BlixtPolicies see it: with the nodes
// whose program knows no policies.
func PolicyProgress(f Fleet, gateways map[types.NamespacedName]gateway.Progress) map[types.NamespacedName]gateway.Progress {
	var without []string
	for _, r := range f.Reports {
		if r.Connected && !r.EnforcesPolicies && !r.Draining && !slices.Contains(without, r.Node) {
			without = append(without, r.Node)
		}
	}
	all := make(map[types.NamespacedName]gateway.Progress, len(gateways))
	for name, p := range gateways {
		p.Also = ""
		if len(without) > 0 && p.Nodes > 0 {
			p.Also = fmt.Sprintf("The program of %s is of a release without BlixtPolicies: until it is upgraded, new connections to what policies restrict are refused there, and the rest of the policies is ignored.", phrase.Sample(without))
		}
		all[name] = p
	}
	return all
}

// LackingPolicies returns what nodes have no room for of BlixtPolicies: a sentence for each,
// by namespace/name.
func LackingPolicies(f Fleet) map[string]string {
	nodes, tables := map[string][]string{}, map[string]map[string]bool{}
	for _, r := range f.Reports {
		full := r.TableFull
		if full == nil || r.Draining {
			continue
		}
		for _, policy := range full.Policies {
			if tables[policy] == nil {
				tables[policy] = map[string]bool{}
			}
			tables[policy][full.PolicyTable] = true
			if !slices.Contains(nodes[policy], r.Node) {
				nodes[policy] = append(nodes[policy], r.Node)
			}
		}
	}
	all := make(map[string]string, len(nodes))
	for policy, where := range nodes {
		all[policy] = fmt.Sprintf("Table %s has no room for it on %s. What was in force before stays in force; what never was refuses new connections. Shorten lists of sources, delete policies, or use a bytecode image with larger tables.",
			strings.Join(slices.Sorted(maps.Keys(tables[policy])), " and "), phrase.Sample(where))
	}
	return all
}
