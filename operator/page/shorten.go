// SPDX-License-Identifier: Apache-2.0

package page

import (
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// longestText is how many bytes of a message a View has: conditions may have 32 kB, and
// each reader gets a View every few seconds.
const longestText = 1000

// mostNames is how many addresses of a Gateway and routes of a listener a View has.
const mostNames = 32

// shorten clips what objects say, which whoever writes them decides.
func (v *View) shorten() {
	short := func(text string) string { return phrase.Clip(text, longestText) }
	v.Status.Findings = mapped(v.Status.Findings, func(f *finding.Finding) {
		f.Object, f.Seen, f.Remedy = short(f.Object), short(f.Seen), short(f.Remedy)
	})
	v.Nodes = mapped(v.Nodes, func(n *Node) { n.Reason = short(n.Reason) })
	for i := range v.Gateways {
		g := &v.Gateways[i]
		g.Problem = short(g.Problem)
		g.Declared.Listeners = nil // those of the View stand for them
		g.Declared.Addresses, _ = limit(g.Declared.Addresses, mostNames)
		for j := range g.Listeners {
			l := &g.Listeners[j]
			l.Problem = short(l.Problem)
			l.Routes, _ = limit(l.Routes, mostNames)
			l.Addresses, _ = limit(l.Addresses, mostNames)
		}
	}
	unanswered := map[string]string{}
	for node, why := range v.Unanswered {
		unanswered[node] = short(why)
	}
	v.Unanswered = unanswered
}

// mapped returns a copy whose elements a function has changed: others read the original.
func mapped[T any](all []T, change func(*T)) []T {
	all = slices.Clone(all)
	for i := range all {
		change(&all[i])
	}
	return all
}
