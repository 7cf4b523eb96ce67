// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// SetPolicyProgress sets the Programmed conditions of policies, as far as they depend on nothing
// but the data plane. progress is that of Gateways, by which nodes serve everything of one.
// lacking says for which policies, by namespace/name, nodes have no room, and in which table, as a
// sentence. stored are the policies' stored ancestors. It may be called again.
func (t *Translation) SetPolicyProgress(progress map[types.NamespacedName]Progress, lacking map[string]string, stored map[types.NamespacedName][]gwv1.PolicyAncestorStatus) {
	for i := range t.Policies {
		p := &t.Policies[i]
		for j, gw := range p.Gateways {
			done := p.programmed[j]
			if pr, known := progress[gw]; known && done.Type != "" {
				a := &p.Status.Ancestors[j]
				*meta.FindStatusCondition(a.Conditions, done.Type) = pr.ofPolicy(done, lacking[p.String()], storedProgrammed(stored[p.NamespacedName], gw))
			}
		}
	}
}

// awaitsPolicy reports whether a condition of a policy says no more than that nodes are not ready.
func awaitsPolicy(c metav1.Condition) bool {
	return c.Type == v1alpha1.PolicyProgrammed && c.Reason == v1alpha1.PolicyReasonReconciling
}

// storedProgrammed returns the condition Programmed that is stored for a Gateway, or nil.
func storedProgrammed(stored []gwv1.PolicyAncestorStatus, gw types.NamespacedName) *metav1.Condition {
	for i := range stored {
		a := &stored[i]
		if a.ControllerName == ControllerName && deref(a.AncestorRef.Kind, "Gateway") == "Gateway" &&
			string(a.AncestorRef.Name) == gw.Name && string(deref(a.AncestorRef.Namespace, "")) == gw.Namespace {
			return meta.FindStatusCondition(a.Conditions, v1alpha1.PolicyProgrammed)
		}
	}
	return nil
}

// ofPolicy returns the condition Programmed of a policy on the Gateway. done is what it is once all
// nodes serve it. What was programmed stays so while any node serves it, as in condition.
func (p Progress) ofPolicy(done metav1.Condition, lacking string, before *metav1.Condition) metav1.Condition {
	c := done
	c.Message = strings.TrimSpace(p.message() + " " + done.Message)
	if lacking != "" {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.PolicyReasonNoCapacity, lacking
		return c
	}
	was := before != nil && before.Status == metav1.ConditionTrue && before.ObservedGeneration == done.ObservedGeneration
	switch serving := p.serving(); {
	case p.Nodes > 0 && serving == p.Nodes:
		return c
	case was && p.Nodes > 0 && len(p.Missing) == 0:
		return *before
	case was && serving+len(p.Unheard)+len(p.Recent) > 0:
		return c
	}
	c.Status, c.Reason = metav1.ConditionFalse, v1alpha1.PolicyReasonReconciling
	return c
}

// SetPolicyHealth adds the condition Warning to policies whose health checks are not obeyed, or for
// whose backends health is not asked, on the Gateways where that is so.
func (t *Translation) SetPolicyHealth(notices []lb.HealthNotice) {
	if len(notices) == 0 {
		return
	}
	type place struct{ policy, gateway string }
	whys := map[place][]string{}
	for _, n := range notices {
		// Several policies may have a part of it: see policies.health.
		for policy := range strings.SplitSeq(n.Policy, "+") {
			at := place{policy, n.Gateway}
			whys[at] = append(whys[at], "health: "+n.Why+".")
		}
	}
	for i := range t.Policies {
		p := &t.Policies[i]
		for j, gw := range p.Gateways {
			if why := whys[place{p.String(), gw.String()}]; why != nil {
				warnOfHealth(&p.Status.Ancestors[j], sampled(why))
			}
		}
	}
}

func warnOfHealth(a *gwv1.PolicyAncestorStatus, whys []string) {
	c := meta.FindStatusCondition(a.Conditions, v1alpha1.PolicyWarning)
	if c == nil {
		a.Conditions = append(a.Conditions, condition(v1alpha1.PolicyWarning, metav1.ConditionTrue, "", a.Conditions[0].ObservedGeneration, ""))
		c = &a.Conditions[len(a.Conditions)-1]
	}
	c.Reason = v1alpha1.PolicyReasonHealthNotObeyed
	c.Message = strings.TrimSpace(strings.Join(whys, " ") + " " + c.Message)
}
