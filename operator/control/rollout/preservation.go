// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"cmp"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// FindPreservation returns where nodes preserve the addresses of clients. It is not
// known while a new leader has not heard from all nodes.
func FindPreservation(f Fleet) (p gateway.Preservation, known bool) {
	if f.Unavailable != "" {
		return p, false
	}
	if f.ThroughStack {
		p.Why = "packets to other nodes take the node's network stack, which translates their source: spec.dataplane.remoteBackends.path of the BlixtConfig is Stack"
		return p, true
	}
	p.Nodes = map[string]gateway.NodePreservation{}
	for _, n := range f.counted() {
		if n.unheard {
			return p, false
		}
		p.Nodes[n.name] = gateway.NodePreservation{NotUndoing: inWords[lb.ReasonAway], NotAnnouncing: inWords[lb.ReasonAway]}
	}
	for i := range f.Reports {
		r := &f.Reports[i]
		if _, counted := p.Nodes[r.Node]; counted && !r.Draining {
			p.Nodes[r.Node] = preservationOf(r)
		}
	}
	for i := range f.Reports {
		r := &f.Reports[i]
		if _, counted := p.Nodes[r.Node]; !counted || r.Draining || r.Announcing == nil {
			continue
		}
		for _, pair := range r.Announcing.Pairs {
			if n, counted := p.Nodes[pair.Node]; counted && pair.Unanswered != 0 {
				n.Unreached[r.Node] = pair.Unanswered
			}
		}
	}
	return p, true
}

// preservationOf returns what a node takes part in, as its agent reports.
func preservationOf(r *lb.Report) gateway.NodePreservation {
	n := gateway.NodePreservation{Unreached: map[string]lb.Forms{}}
	switch {
	case r.Announcing == nil:
		n.NotUndoing = inWords[cmp.Or(r.UndoesNot, lb.ReasonEarlier)]
		n.NotAnnouncing = inWords[lb.ReasonEarlier]
	case r.UndoesNot != "":
		n.NotUndoing = cmp.Or(inWords[r.UndoesNot], r.UndoesNot)
	}
	if a := r.Announcing; a != nil && slices.ContainsFunc(a.Unannounced, func(u lb.Unannounced) bool { return u.Reason == lb.ReasonNoKey }) {
		n.NotAnnouncing = inWords[lb.ReasonNoKey]
	}
	return n
}

// inWords has the reasons of reports.
var inWords = map[string]string{
	lb.ReasonNoKey:       "no key signs there yet",
	lb.ReasonEarlier:     "the program or the agent there is of a version that preserves no addresses",
	lb.ReasonNotAcked:    "the agent there has not taken the key that signs yet",
	lb.ReasonNoHeartbeat: "the program there sees no packets, see the NodeDataplane",
	lb.ReasonAway:        "the agent there does not report, see the NodeDataplane",
	lb.ReasonNotProbed:   "the nodes there were not asked yet whether messages reach them",
	lb.ReasonNoAnswer:    "something between the nodes drops their messages: segments with data in the SYN or unknown TCP options, or datagrams with a surplus",
	lb.ReasonNoPeer:      "Blixt does not run there, see spec.dataplane.nodes of the BlixtConfig",
	lb.ReasonNoAddress:   "no address of the node can be believed, see the NodeDataplane",
}
