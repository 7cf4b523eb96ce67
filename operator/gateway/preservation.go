// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Preservation is where nodes preserve the addresses of clients.
type Preservation struct {
	// Nodes are those that serve, by name.
	Nodes map[string]NodePreservation `json:"nodes,omitempty"`
	// Why no node preserves addresses; empty: some do.
	Why string `json:"why,omitempty"`
}

// NodePreservation is what a node takes part in.
type NodePreservation struct {
	// NotUndoing is why others announce no clients to it, NotAnnouncing why it announces
	// none to others; empty: they do, and it does.
	NotUndoing    string `json:"notUndoing,omitempty"`
	NotAnnouncing string `json:"notAnnouncing,omitempty"`
	// Unreached are the nodes whose announcements do not get to it, with the forms of
	// them that do not.
	Unreached map[string]lb.Forms `json:"unreached,omitempty"`
}

// NotPreserved is how many backends of a Gateway see the addresses of nodes.
type NotPreserved struct {
	Backends, Of int
	// Why is in words. It counts and names nothing that is in order.
	Why string
	// Recent is true if it is so since a moment ago only, and Hold as in Progress.
	Recent, Hold bool
}

// FindNotPreserved returns it for each Gateway that is to preserve addresses.
func (t *Translation) FindNotPreserved(p Preservation, e Endpoints) map[types.NamespacedName]NotPreserved {
	gateways := map[string]map[backend]string{} // to the backend's node
	seen := map[string]map[reference]bool{}
	for i := range t.Frontends {
		f := &t.Frontends[i]
		if !f.PreserveClient {
			continue
		}
		if gateways[f.Gateway] == nil {
			gateways[f.Gateway], seen[f.Gateway] = map[backend]string{}, map[reference]bool{}
		}
		for _, ref := range f.Refs {
			r := reference{ref.Service, ref.PortName, f.Protocol, f.Addr.Is6()}
			if seen[f.Gateway][r] {
				continue
			}
			seen[f.Gateway][r] = true
			for _, endpoint := range e[ref.Service].of(ref.PortName, f.Key) {
				if endpoint.State > Draining {
					gateways[f.Gateway][backend{endpoint.Addr, f.Protocol}] = endpoint.Node
				}
			}
		}
	}
	known, all := map[place]string{}, map[types.NamespacedName]NotPreserved{}
	for _, g := range t.Gateways {
		if c := meta.FindStatusCondition(g.Status.Conditions, GatewayConditionClientAddressPreserved); c == nil || !awaitsNodes(c) {
			continue
		}
		n, reasons := NotPreserved{Of: len(gateways[g.String()])}, map[string]*reason{}
		for b, node := range gateways[g.String()] {
			at := place{node, b.protocol, b.addr.Addr().Is6()}
			why, is := known[at]
			if !is {
				why = p.whyNot(at)
				known[at] = why
			}
			if why == "" {
				continue
			}
			n.Backends++
			if reasons[why] == nil {
				reasons[why] = &reason{why: why, nodes: map[string]bool{}}
			}
			reasons[why].add(node)
		}
		n.Why = joinReasons(reasons)
		all[g.NamespacedName] = n
	}
	return all
}

// reference is what leads a Gateway's frontends to the same endpoints.
type reference struct {
	service  types.NamespacedName
	port     string
	protocol lb.Protocol
	v6       bool
}

// backend is an endpoint, by one protocol.
type backend struct {
	addr     netip.AddrPort
	protocol lb.Protocol
}

// place is where a backend is, and how packets get to it.
type place struct {
	node     string
	protocol lb.Protocol
	v6       bool
}

// whyNot returns why clients of some nodes are not announced to a backend, or "".
func (p Preservation) whyNot(at place) string {
	if p.Why != "" {
		return p.Why
	}
	node, serves := p.Nodes[at.node]
	switch {
	case at.node == "":
		return "they are on no node of the cluster"
	case !serves:
		return "Blixt does not serve there"
	case len(p.Nodes) == 1: // it receives all connections itself
		return ""
	case node.NotUndoing != "":
		return node.NotUndoing
	}
	within, alone := lb.FormOf(false, at.protocol == lb.UDP, at.v6), lb.FormOf(true, at.protocol == lb.UDP, at.v6)
	silent, unreached, why := []string{}, []string{}, ""
	for _, name := range slices.Sorted(maps.Keys(p.Nodes)) {
		forms := node.Unreached[name]
		switch other := p.Nodes[name]; {
		case name == at.node:
		case other.NotAnnouncing != "":
			silent, why = append(silent, name), cmp.Or(why, other.NotAnnouncing)
		case forms&within != 0 && forms&alone != 0:
			unreached = append(unreached, name)
		}
	}
	switch {
	case len(silent) > 0:
		return fmt.Sprintf("from %s: %s", phrase.Sample(silent), why)
	case len(unreached) > 0:
		return fmt.Sprintf("from %s: something between the nodes drops their messages by %s, see blixt doctor", phrase.Sample(unreached), within)
	}
	return ""
}

// reason is why some backends see the addresses of nodes.
type reason struct {
	why      string
	backends int
	nodes    map[string]bool
}

func (r *reason) add(node string) {
	r.backends++
	if node != "" {
		r.nodes[node] = true
	}
}

// joinReasons names the reasons, those of most backends first.
func joinReasons(reasons map[string]*reason) string {
	all := slices.SortedFunc(maps.Values(reasons), func(a, b *reason) int {
		return cmp.Or(cmp.Compare(b.backends, a.backends), cmp.Compare(a.why, b.why))
	})
	const most = 3
	var words []string
	for _, r := range all[:min(len(all), most)] {
		on := ""
		if len(r.nodes) > 0 {
			on = " on " + phrase.Sample(slices.Collect(maps.Keys(r.nodes)))
		}
		words = append(words, fmt.Sprintf("%d%s (%s)", r.backends, on, r.why))
	}
	if more := len(all) - most; more > 0 {
		words = append(words, fmt.Sprintf("others for %d more reasons", more))
	}
	return strings.Join(words, ", ")
}

// condition changes what is waiting for nodes to what is known of them. before is what is
// stored, or nil.
func (n NotPreserved) condition(waiting metav1.Condition, before *metav1.Condition) metav1.Condition {
	c := waiting
	switch {
	case n.Backends == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, reasonPreserved, "The client's address is preserved for all backends."
	case n.Recent && before == nil:
	case n.Recent && before.Status == metav1.ConditionTrue, n.Hold && before != nil && before.Status == metav1.ConditionFalse:
		c.Status, c.Reason, c.Message = before.Status, before.Reason, before.Message
	default:
		c.Status, c.Reason = metav1.ConditionFalse, reasonPartlyPreserved
		c.Message = fmt.Sprintf("%d of %d backends see the address of a node: %s.", n.Backends, n.Of, n.Why)
	}
	return c
}

// SetNotPreserved sets GatewayConditionClientAddressPreserved of Gateways, as far as it
// depends on nodes. What is not known stays as it is stored.
func (t *Translation) SetNotPreserved(all map[types.NamespacedName]NotPreserved, stored map[types.NamespacedName][]metav1.Condition) {
	for i := range t.Gateways {
		g := &t.Gateways[i]
		c := meta.FindStatusCondition(g.Status.Conditions, GatewayConditionClientAddressPreserved)
		if c == nil || !awaitsNodes(c) {
			continue
		}
		before := meta.FindStatusCondition(stored[g.NamespacedName], c.Type)
		if before != nil && before.Reason != reasonPreserved && before.Reason != reasonPartlyPreserved {
			before = nil
		}
		if n, known := all[g.NamespacedName]; known {
			*c = n.condition(*c, before)
		} else if before != nil {
			c.Status, c.Reason, c.Message = before.Status, before.Reason, before.Message
		}
	}
}

// awaitsNodes reports whether the condition depends on nodes.
func awaitsNodes(c *metav1.Condition) bool { return c.Message == waitingForNodes }
