// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// clientAddress returns what is known of the announcing of a node, given what is
// stored.
func (j *judge) clientAddress(stored *v1alpha1.ClientAddressStatus) *v1alpha1.ClientAddressStatus {
	if len(j.instances) == 0 {
		return nil
	}
	r := j.reports[j.instances[0].at]
	if r == nil {
		return stored
	}
	a := r.Announcing
	if a == nil {
		return nil
	}
	c := &v1alpha1.ClientAddressStatus{
		Announced: r.UndoesNot == "", Reason: r.UndoesNot,
		Backends: int32(a.Backends), Peers: int32(a.Peers), Failing: int32(a.Failing),
	}
	for _, u := range a.Unannounced {
		if !slices.ContainsFunc(c.Unannounced, func(o v1alpha1.UnannouncedStatus) bool { return o.Reason == u.Reason }) {
			c.Unannounced = append(c.Unannounced, v1alpha1.UnannouncedStatus{Reason: u.Reason, Backends: int32(u.Backends)})
		}
	}
	for _, p := range a.Pairs {
		if !slices.ContainsFunc(c.Pairs, func(o v1alpha1.PairStatus) bool { return o.Node == p.Node }) {
			c.Pairs = append(c.Pairs, v1alpha1.PairStatus{
				Node: p.Node, Unanswered: p.Unanswered.String(), Backends: int32(p.Unannounced),
				Undone: signed(p.Undone), Plain: signed(p.Plain), Refused: signed(p.Refused), Asked: signed(p.Asked),
			})
		}
	}
	for _, addr := range r.IgnoredAddresses[:min(len(r.IgnoredAddresses), lb.MaxNodeAddresses)] {
		c.IgnoredAddresses = append(c.IgnoredAddresses, addr.String())
	}
	c.Message = clientAddressMessage(c)
	return c
}

func clientAddressMessage(c *v1alpha1.ClientAddressStatus) string {
	var text []string
	if !c.Announced {
		text = append(text, fmt.Sprintf("Backends on this node see the addresses of other nodes: %s.", cmp.Or(inWords[c.Reason], c.Reason)))
	}
	unannounced := 0
	for _, u := range c.Unannounced {
		unannounced += int(u.Backends)
		text = append(text, fmt.Sprintf("%d of %d backends on other nodes see this node's address: %s.", u.Backends, c.Backends, cmp.Or(inWords[u.Reason], u.Reason)))
	}
	for _, p := range c.Pairs {
		if p.Unanswered != "" {
			text = append(text, fmt.Sprintf("Node %s, for one, does not answer %s.", p.Node, p.Unanswered))
			break
		}
	}
	if len(c.IgnoredAddresses) > 0 {
		text = append(text, fmt.Sprintf("Other nodes do not believe that this node has %s: neither the Node object nor its podCIDRs say so, or another node or a pod has it. What comes from there keeps it.", strings.Join(c.IgnoredAddresses, ", ")))
	}
	if unannounced == 0 && c.Backends > 0 {
		text = append(text, fmt.Sprintf("All %d backends on other nodes that are to see their clients do.", c.Backends))
	}
	return strings.Join(text, " ")
}

// steady returns what of it is worth writing at once: whether it is in force, and the
// reasons why not.
func steady(c *v1alpha1.ClientAddressStatus) *v1alpha1.ClientAddressStatus {
	if c == nil {
		return nil
	}
	same := &v1alpha1.ClientAddressStatus{Announced: c.Announced, Reason: c.Reason, IgnoredAddresses: c.IgnoredAddresses}
	for _, u := range c.Unannounced {
		same.Unannounced = append(same.Unannounced, v1alpha1.UnannouncedStatus{Reason: u.Reason})
	}
	return same
}

// bootStatus returns the boot of a node's kernel, as a report names it.
func bootStatus(b lb.Boot) *v1alpha1.BootStatus {
	return &v1alpha1.BootStatus{ID: b.ID, Number: int32(b.Number)}
}

// signed returns a count as a status can have it.
func signed(n uint64) int64 { return int64(min(n, math.MaxInt64)) }
