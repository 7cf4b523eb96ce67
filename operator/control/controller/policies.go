// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// maxAncestors is how many ancestors the API server accepts.
const maxAncestors = 16

// policyStatus sets the ancestors that are ours, among those of other controllers, and the
// targets.
func policyStatus(wanted v1alpha1.BlixtPolicyStatus) statusChange {
	return func(object client.Object, now metav1.Time) {
		status := &object.(*v1alpha1.BlixtPolicy).Status
		ancestors := slices.DeleteFunc(slices.Clone(status.Ancestors), func(a gwv1.PolicyAncestorStatus) bool { return a.ControllerName == gateway.ControllerName })
		for _, a := range wanted.Ancestors {
			var stored []metav1.Condition
			if i := slices.IndexFunc(status.Ancestors, func(s gwv1.PolicyAncestorStatus) bool {
				return s.ControllerName == a.ControllerName && equality.Semantic.DeepEqual(s.AncestorRef, a.AncestorRef)
			}); i >= 0 {
				stored = status.Ancestors[i].Conditions
			}
			a.Conditions = replace(now, stored, a.Conditions)
			ancestors = append(ancestors, a)
		}
		status.Ancestors = ancestors[:min(len(ancestors), maxAncestors)]
		targets := slices.Clone(wanted.Targets)
		for i := range targets {
			t := &targets[i]
			var stored []metav1.Condition
			if j := slices.IndexFunc(status.Targets, func(s v1alpha1.PolicyTargetStatus) bool {
				return s.Kind == t.Kind && s.Name == t.Name && equality.Semantic.DeepEqual(s.SectionName, t.SectionName)
			}); j >= 0 {
				stored = status.Targets[j].Conditions
			}
			t.Conditions = replace(now, stored, t.Conditions)
		}
		status.Targets = targets
	}
}

// replace is merge for conditions that nobody else has: those that are not ours any more go.
func replace(now metav1.Time, stored, ours []metav1.Condition) []metav1.Condition {
	return merge(now, slices.DeleteFunc(slices.Clone(stored), func(s metav1.Condition) bool {
		return !slices.ContainsFunc(ours, func(c metav1.Condition) bool { return c.Type == s.Type })
	}), ours)
}

// reportPolicies hands over the statuses of BlixtPolicies, which follow the progress of the
// nodes as those of Gateways do.
func (r *rolloutLoop) reportPolicies(ctx context.Context, t *translated, f rollout.Fleet, progress map[types.NamespacedName]gateway.Progress) error {
	var list v1alpha1.BlixtPolicyList
	if err := r.list(ctx, t.kinds, &list); err != nil {
		return err
	}
	stored := make(map[types.NamespacedName][]gwv1.PolicyAncestorStatus, len(list.Items))
	for i := range list.Items {
		stored[client.ObjectKeyFromObject(&list.Items[i])] = list.Items[i].Status.Ancestors
	}
	r.statuses.set([]string{"BlixtPolicy"}, t.policyStatuses(rollout.PolicyProgress(f, progress), rollout.LackingPolicies(f), r.Fleet.Health(), stored))
	return nil
}

// policyStatuses returns those of all BlixtPolicies. lacking is for SetPolicyProgress, judged says
// where health is not obeyed, and stored are their ancestors as they are now.
func (t *translated) policyStatuses(progress map[types.NamespacedName]gateway.Progress, lacking map[string]string, judged health.Decision, stored map[types.NamespacedName][]gwv1.PolicyAncestorStatus) []wantedStatus {
	completed := gateway.Translation{Unresolved: t.Unresolved, Policies: slices.Clone(t.Policies)}
	for i := range completed.Policies {
		completed.Policies[i].Status = *completed.Policies[i].Status.DeepCopy()
	}
	completed.SetPolicyProgress(progress, lacking, stored)
	completed.SetPolicyHealth(slices.Concat(judged.Suspects, judged.Panics))
	objects := make(map[types.NamespacedName]*v1alpha1.BlixtPolicy, len(t.objects.Policies))
	for i := range t.objects.Policies {
		objects[client.ObjectKeyFromObject(&t.objects.Policies[i])] = &t.objects.Policies[i]
	}
	all := make([]wantedStatus, 0, len(completed.Policies))
	for _, p := range completed.Policies {
		all = append(all, wantedStatus{object: objects[p.NamespacedName], change: policyStatus(p.Status)})
	}
	return all
}

// policyEvents returns the conditions of a BlixtPolicy that events are emitted for. Their
// types name the Gateway, or the target.
func policyEvents(p *v1alpha1.BlixtPolicy) (all []metav1.Condition) {
	said := map[string]bool{}
	for _, a := range p.Status.Ancestors {
		if a.ControllerName != gateway.ControllerName {
			continue
		}
		for _, c := range a.Conditions {
			said[c.Type+c.Message] = true
			c.Type = fmt.Sprintf("%s on %s", c.Type, ancestorName(a.AncestorRef))
			all = append(all, c)
		}
	}
	for _, t := range p.Status.Targets {
		for _, c := range t.Conditions {
			if !said[c.Type+c.Message] && c.Reason != v1alpha1.PolicyReasonForeign {
				c.Type = fmt.Sprintf("%s on %s %s", c.Type, t.Kind, strings.TrimSuffix(fmt.Sprintf("%s/%s", t.Name, sectionOf(t.SectionName)), "/"))
				all = append(all, c)
			}
		}
	}
	return all
}

func sectionOf(name *gwv1.SectionName) gwv1.SectionName {
	if name == nil {
		return ""
	}
	return *name
}

func ancestorName(ref gwv1.ParentReference) string {
	kind := "Gateway"
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	name := string(ref.Name)
	if ref.Namespace != nil {
		name = string(*ref.Namespace) + "/" + name
	}
	return kind + " " + name
}

// sourcesDelay is how long after the sources of a policy alone its status follows, as the
// status takes a pass.
const sourcesDelay = time.Second

// sameButSources reports whether an update has changed nothing of a policy but whom its
// sources admit.
func sameButSources(previous, object *v1alpha1.BlixtPolicy) bool {
	a, b := previous.Spec, object.Spec
	if a.Sources == nil || b.Sources == nil || a.Sources.Action != b.Sources.Action || previous.UID != object.UID ||
		!equality.Semantic.DeepEqual(previous.DeletionTimestamp, object.DeletionTimestamp) {
		return false
	}
	a.Sources, b.Sources = nil, nil
	return equality.Semantic.DeepEqual(a, b)
}

// publishSources publishes the sources of a policy, if nothing else of it has changed.
func (p *publisher) publishSources(ctx context.Context, name types.NamespacedName) error {
	watch := p.measures.Start()
	cause, restore := p.causes.take(request{sourcesOf: name})
	policy := &v1alpha1.BlixtPolicy{}
	if err := p.client.Get(ctx, name, policy); err != nil {
		restore()
		return client.IgnoreNotFound(err)
	}
	set, err := gateway.SourcesOf(policy)
	i, inForce := slices.BinarySearchFunc(p.current.Sources, name.String(), func(s lb.SourceSet, name string) int { return strings.Compare(s.Policy, name) })
	known := slices.IndexFunc(p.current.objects.Policies, func(o v1alpha1.BlixtPolicy) bool { return client.ObjectKeyFromObject(&o) == name })
	if err != nil || !inForce || known < 0 || !sameButSources(&p.current.objects.Policies[known], policy) {
		restore()
		return nil // the pass that follows decides
	}
	p.Fleet.CausedBy(cause)
	t := *p.current
	t.Sources = slices.Clone(t.Sources)
	t.Sources[i] = set
	t.published = p.record(t.published, p.Fleet.PublishSources(set))
	watch.Lap("sources")
	p.current = &t
	p.rollout.latest.Store(&t) // the reports of the agents wake it
	return nil
}
