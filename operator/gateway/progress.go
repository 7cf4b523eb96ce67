// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Progress is how many of the nodes serve a Gateway.
type Progress struct {
	// Nodes is the number of nodes that should serve it.
	Nodes int `json:"nodes"`
	// Missing are the names of the nodes that do not.
	Missing []string `json:"missing,omitempty"`
	// Recent are the names of those that do not since a moment ago, and may soon.
	Recent []string `json:"recent,omitempty"`
	// Unheard are the names of the nodes that have not reported to a new leader
	// yet. What was known of them still holds, so they are not among Missing.
	Unheard []string `json:"unheard,omitempty"`
	// Why is why there are no nodes, or why nodes are missing.
	Why string `json:"why,omitempty"`
	// Also is a sentence to append, or "".
	Also string `json:"also,omitempty"`
	// Hold is true at most times: a message that would only name other nodes is then
	// not written. Otherwise nodes that come and go would cost a write each for each
	// Gateway.
	Hold bool `json:"hold,omitempty"`
}

// SetProgress sets the Programmed conditions of Gateways, their listeners and their
// ListenerSets, as far as they depend on nothing but the data plane. It may be called
// again with other progress. stored are the conditions of the Gateways' stored
// statuses.
func (t *Translation) SetProgress(progress map[types.NamespacedName]Progress, stored map[types.NamespacedName][]metav1.Condition) {
	served := map[string]map[string]bool{} // listeners that have a frontend, by Gateway
	for i := range t.Frontends {
		f := &t.Frontends[i]
		if served[f.Gateway] == nil {
			served[f.Gateway] = map[string]bool{}
		}
		served[f.Gateway][f.Listener] = true
	}
	verdicts := map[types.NamespacedName]metav1.Condition{}
	for i := range t.Gateways {
		g := &t.Gateways[i]
		p, known := progress[g.NamespacedName]
		if !known {
			continue
		}
		programmed := meta.FindStatusCondition(g.Status.Conditions, string(gwv1.GatewayConditionProgrammed))
		verdict := p.condition(programmed.ObservedGeneration, stored[g.NamespacedName])
		verdicts[g.NamespacedName] = verdict
		if awaits(programmed) {
			*programmed = verdict
		}
		for j := range g.Status.Listeners {
			if l := &g.Status.Listeners[j]; served[g.String()][string(l.Name)] {
				complete(l.Conditions, verdict, gwv1.ListenerReasonPending)
			}
		}
	}
	for i := range t.ListenerSets {
		set := &t.ListenerSets[i]
		verdict, known := verdicts[set.Gateway]
		if !known {
			continue
		}
		for j := range set.Status.Listeners {
			if l := &set.Status.Listeners[j]; served[set.Gateway.String()][set.String()+"/"+string(l.Name)] {
				complete(l.Conditions, verdict, gwv1.ListenerEntryReasonPending)
				complete(set.Status.Conditions, verdict, listenerSetReasonParentNotProgrammed)
			}
		}
	}
}

// noNode begins the messages of the reason NoResources that tell of nodes. Others
// tell of tables and quotas.
const noNode = "No node serves it: "

// awaits reports whether a Programmed condition depends on the data plane. A
// stored one whose status and reason do not belong together is not of ours.
func awaits(c *metav1.Condition) bool {
	if c.Status == metav1.ConditionTrue {
		return c.Reason == string(gwv1.GatewayReasonProgrammed)
	}
	return c.Reason == string(gwv1.GatewayReasonPending) || c.Reason == string(gwv1.GatewayReasonNoResources) && strings.HasPrefix(c.Message, noNode)
}

// complete copies the Gateway's condition into those of a listener or
// ListenerSet of it. Each kind of object has its own reason for False.
func complete[R ~string](conditions []metav1.Condition, verdict metav1.Condition, no R) {
	c := meta.FindStatusCondition(conditions, verdict.Type)
	if !awaits(c) && c.Reason != string(no) {
		return
	}
	c.Status, c.Reason, c.Message = verdict.Status, verdict.Reason, verdict.Message
	if c.Status != metav1.ConditionTrue {
		c.Reason = string(no)
	}
}

// condition returns the Gateway's Programmed condition. A generation that was
// programmed stays so while any node serves it: a node that fails must not look
// like an outage of all. While nodes have not been heard of, or are missing since a
// moment ago, nothing changes.
func (p Progress) condition(generation int64, stored []metav1.Condition) metav1.Condition {
	const kind = gwv1.GatewayConditionProgrammed
	before := meta.FindStatusCondition(stored, string(kind))
	if before != nil && (before.ObservedGeneration != generation || !awaits(before)) {
		before = nil
	}
	was := before != nil && before.Status == metav1.ConditionTrue
	serving := p.serving()
	switch {
	case p.Nodes == 0:
		return condition(kind, metav1.ConditionFalse, gwv1.GatewayReasonNoResources, generation, p.message())
	case serving == p.Nodes:
		return condition(kind, metav1.ConditionTrue, gwv1.GatewayReasonProgrammed, generation, p.message())
	case len(p.Missing) == 0 && before != nil && before.Status != metav1.ConditionUnknown:
		return condition(kind, before.Status, gwv1.GatewayConditionReason(before.Reason), generation, before.Message)
	}
	c := condition(kind, metav1.ConditionFalse, gwv1.GatewayReasonPending, generation, p.message())
	if was && serving+len(p.Unheard)+len(p.Recent) > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, string(gwv1.GatewayReasonProgrammed)
	}
	if p.Hold && before != nil && before.Status == c.Status && strings.HasPrefix(before.Message, partly) {
		c.Message = before.Message
	}
	return c
}

func (p Progress) serving() int { return p.Nodes - len(p.Missing) - len(p.Recent) - len(p.Unheard) }

// partly begins a message that names nodes.
const partly = "Served by "

func (p Progress) message() string {
	return strings.TrimSpace(p.count() + " " + p.Also)
}

func (p Progress) count() string {
	if p.Nodes == 0 {
		return noNode + strings.TrimSuffix(p.Why, ".") + "."
	}
	switch {
	case p.serving() == p.Nodes:
		return "All nodes serve it."
	case len(p.Missing)+len(p.Unheard) == 0:
		return "Waiting for all nodes to serve it."
	}
	text := fmt.Sprintf(partly+"%d/%d nodes", p.serving(), p.Nodes)
	if len(p.Missing) > 0 {
		text += ", missing: " + phrase.Sample(p.Missing)
		if p.Why != "" {
			text += " (" + strings.TrimSuffix(p.Why, ".") + ")"
		}
	}
	if len(p.Unheard) > 0 {
		text += ", not heard from yet: " + phrase.Sample(p.Unheard)
	}
	return text + "."
}
