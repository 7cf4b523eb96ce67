// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// policyAncestor is what became of a policy on a Gateway.
type policyAncestor struct {
	gateway   *gateway
	frontends int
	won       [units]bool
	// lost are the policies that have the last word instead, by unit; own is the same for failover
	// and ports.
	lost [units]map[*policyTarget]bool
	own  map[string]*policyTarget
	// holds is true if failover or ports do, and restricts if sources or limits do.
	holds, restricts bool
	// others are the policies that restrict the same frontends, as far as they are on the same
	// target or a less specific one.
	others map[*blixtPolicy]bool
	// remarks are parts that cannot hold for everybody, warnings what nobody can mean.
	remarks, warnings []string
}

// ancestor returns what became of the target's policy on a Gateway.
func (t *policyTarget) ancestor(g *gateway) *policyAncestor {
	a := t.policy.ancestors[g]
	if a == nil {
		a = &policyAncestor{gateway: g}
		t.policy.ancestors[g] = a
	}
	return a
}

func (a *policyAncestor) lose(u unit, to *policyTarget) {
	if a.lost[u] == nil {
		a.lost[u] = map[*policyTarget]bool{}
	}
	a.lost[u][to] = true
}

// loseOwn notes that another policy of the same target has the last word about failover or ports.
func (a *policyAncestor) loseOwn(field string, has bool, winner, t *policyTarget) {
	if !has || winner == t {
		return
	}
	if a.own == nil {
		a.own = map[string]*policyTarget{}
	}
	a.own[field] = winner
}

func (a *policyAncestor) remark(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(a.remarks, text) {
		a.remarks = append(a.remarks, text)
	}
}

func (a *policyAncestor) warn(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(a.warnings, text) {
		a.warnings = append(a.warnings, text)
	}
}

// noteOthers notes which other policies restrict a listener as well, and whether nobody is left
// whom all of them admit.
func (a *policyAncestor) noteOthers(t *policyTarget, others []*policyTarget, l *listener) {
	for _, o := range others {
		if o.policy == t.policy {
			continue
		}
		if a.others == nil {
			a.others = map[*blixtPolicy]bool{}
		}
		a.others[o.policy] = true
		x, y := t.policy.sources, o.policy.sources
		if x != nil && y != nil && x.OnlyAllowed && y.OnlyAllowed && !t.policy.dryRun && !o.policy.dryRun && !overlap(x.Allow, y.Allow) {
			a.warn("It admits no source at %s: no network that it allows is allowed by %s, too.", l.name(), o.policy.name())
		}
	}
}

// compareBackends warns where affinity is asked for, and cannot lead to the same backends: if the
// targets of one policy lead to other Services, or to the same with other weights.
func (p *policies) compareBackends(gateways []*gateway) {
	type group struct {
		policy  *blixtPolicy
		gateway *gateway
	}
	type way struct {
		target   *policyTarget
		name     string
		services []weighted
	}
	first := map[group]*way{}
	for _, g := range gateways {
		for _, l := range g.all() {
			if l.effective == nil || l.effective.Affinity == nil {
				continue
			}
			t, r := l.effective.by[unitAffinity], l.attached[0]
			w := &way{t, r.name(), r.services()}
			of := group{t.policy, g}
			before := first[of]
			if before == nil {
				first[of] = w
				continue
			}
			sameServices := slices.EqualFunc(before.services, w.services, func(a, b weighted) bool { return a.name == b.name })
			if sameServices && !slices.Equal(before.services, w.services) {
				t.ancestor(g).warn("affinity: not the same backends: %s and %s give the same Services other weights.", before.name, w.name)
			} else if !sameServices && before.target != t {
				t.ancestor(g).warn("affinity: not the same backends: %s and %s lead to other Services.", before.name, w.name)
			}
		}
	}
}

// statuses returns those of all policies.
func (p *policies) statuses() []PolicyStatus {
	if p == nil {
		return nil
	}
	all := make([]PolicyStatus, 0, len(p.all))
	for _, policy := range p.all {
		all = append(all, policy.status(p.environment))
	}
	return all
}

// ancestorStatus is an element of status.ancestors in the making.
type ancestorStatus struct {
	gwv1.PolicyAncestorStatus
	gateway    types.NamespacedName
	programmed metav1.Condition
	// rank is how bad it is.
	rank int
}

func (p *blixtPolicy) status(s *environment) PolicyStatus {
	status := PolicyStatus{NamespacedName: types.NamespacedName{Namespace: p.obj.Namespace, Name: p.obj.Name}}
	var all []ancestorStatus
	gateways := map[*gateway]bool{}
	for _, t := range p.targets {
		status.Status.Targets = append(status.Status.Targets, t.status())
		for _, g := range t.gateways {
			if !gateways[g] {
				gateways[g] = true
				all = append(all, p.ancestorStatus(t.ancestor(g), s))
			}
		}
		if f := t.fault; f != nil && len(t.gateways) == 0 && f.reason != v1alpha1.PolicyReasonForeign {
			all = append(all, t.missingStatus())
		}
	}
	slices.SortStableFunc(all, func(a, b ancestorStatus) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), compareNames(a.gateway, b.gateway))
	})
	aggregated := len(all) - maxAncestors
	for i := range all[:min(len(all), maxAncestors)] {
		a := &all[i]
		if aggregated > 0 {
			a.Conditions = append(a.Conditions, condition(v1alpha1.PolicyAggregated, metav1.ConditionTrue, v1alpha1.PolicyAggregated, p.obj.Generation,
				fmt.Sprintf("The policy concerns %d Gateways and holds on all of them. A status has room for %d: those that are worst off are shown.", len(all), maxAncestors)))
		}
		status.Status.Ancestors = append(status.Status.Ancestors, a.PolicyAncestorStatus)
		status.Gateways = append(status.Gateways, a.gateway)
		status.programmed = append(status.programmed, a.programmed)
	}
	return status
}

// maxAncestors is how many the API server accepts.
const maxAncestors = 16

// worst returns the fault of the policy, or of one of its targets on a Gateway; nil: there is none.
func (p *blixtPolicy) worst(g *gateway) *fault {
	if p.fault != nil {
		return p.fault
	}
	for _, t := range p.targets {
		if t.fault != nil && slices.Contains(t.gateways, g) {
			return t.fault
		}
	}
	return nil
}

func (p *blixtPolicy) ancestorStatus(a *policyAncestor, s *environment) ancestorStatus {
	kind, namespace := gwv1.Kind("Gateway"), gwv1.Namespace(a.gateway.obj.Namespace)
	out := ancestorStatus{gateway: a.gateway.key(), PolicyAncestorStatus: gwv1.PolicyAncestorStatus{
		AncestorRef:    gwv1.ParentReference{Group: new(gwv1.Group(gwv1.GroupName)), Kind: &kind, Namespace: &namespace, Name: gwv1.ObjectName(a.gateway.obj.Name)},
		ControllerName: ControllerName,
	}}
	generation := p.obj.Generation
	bad := p.worst(a.gateway)
	out.Conditions = append(out.Conditions, conditionOf(gwv1.PolicyConditionAccepted, bad, gwv1.PolicyReasonAccepted, generation, p.attachedTo(a)))
	if p.failover != nil {
		out.Conditions = append(out.Conditions, p.resolved(a.gateway))
	}
	switch programmed := p.programmed(a, s); {
	case bad != nil:
	case programmed.Reason == v1alpha1.PolicyReasonOverridden, programmed.Reason == v1alpha1.PolicyReasonReconciling:
		out.rank = 1
		out.Conditions = append(out.Conditions, programmed)
	default:
		out.rank = 3
		if programmed.Reason == v1alpha1.PolicyReasonPartiallyProgrammed {
			out.rank = 2
		}
		out.programmed = programmed
		out.Conditions = append(out.Conditions, condition(v1alpha1.PolicyProgrammed, metav1.ConditionFalse, v1alpha1.PolicyReasonReconciling, generation, waiting))
	}
	if warnings := slices.Concat(p.warnings, p.idleUnits(), sampled(a.warnings)); len(warnings) > 0 {
		out.Conditions = append(out.Conditions, condition(v1alpha1.PolicyWarning, metav1.ConditionTrue, v1alpha1.PolicyWarning, generation, strings.Join(warnings, " ")))
	}
	return out
}

// sampled returns the first warnings, and how many more there are.
func sampled(all []string) []string {
	const most = 3
	if len(all) <= most {
		return all
	}
	return append(slices.Clone(all[:most]), fmt.Sprintf("And %d more like these.", len(all)-most))
}

// missingStatus is that of a target that leads to no Gateway.
func (t *policyTarget) missingStatus() ancestorStatus {
	namespace := gwv1.Namespace(t.policy.obj.Namespace)
	f := cmp.Or(t.policy.fault, t.fault)
	return ancestorStatus{PolicyAncestorStatus: gwv1.PolicyAncestorStatus{
		AncestorRef: gwv1.ParentReference{
			Group: &t.ref.Group, Kind: &t.ref.Kind, Namespace: &namespace, Name: t.ref.Name, SectionName: t.ref.SectionName},
		ControllerName: ControllerName,
		Conditions:     []metav1.Condition{condition(gwv1.PolicyConditionAccepted, metav1.ConditionFalse, f.reason, t.policy.obj.Generation, f.message)},
	}}
}

func (t *policyTarget) status() v1alpha1.PolicyTargetStatus {
	generation := t.policy.obj.Generation
	status := v1alpha1.PolicyTargetStatus{
		Kind: t.ref.Kind, Name: t.ref.Name, SectionName: t.ref.SectionName, Frontends: int32(t.frontends),
		Conditions: []metav1.Condition{conditionOf(gwv1.PolicyConditionAccepted, cmp.Or(t.policy.fault, t.fault), gwv1.PolicyReasonAccepted, generation, "Attached to "+t.name()+".")},
	}
	if t.policy.failover != nil && t.route != nil {
		status.Conditions = append(status.Conditions, conditionOf(resolvedRefs, t.unresolved, resolvedRefs, generation, everyBackend))
	}
	return status
}

const (
	resolvedRefs = "ResolvedRefs"
	everyBackend = "Every backend of spec.failover is a backendRef of the route."
)

func (p *blixtPolicy) resolved(g *gateway) metav1.Condition {
	var f *fault
	for _, t := range p.targets {
		if slices.Contains(t.gateways, g) {
			f = cmp.Or(f, t.unresolved)
		}
	}
	return conditionOf(resolvedRefs, f, resolvedRefs, p.obj.Generation, everyBackend)
}

// attachedTo is the message of Accepted.
func (p *blixtPolicy) attachedTo(a *policyAncestor) string {
	var names []string
	for _, t := range p.targets {
		if slices.Contains(t.gateways, a.gateway) {
			names = append(names, t.name())
		}
	}
	text := "Attached to " + phrase.Sample(names) + "."
	if len(a.others) > 0 {
		text += " Also restricted by " + phrase.Sample(policyNames(a.others)) + "."
	}
	return text
}

func policyNames(all map[*blixtPolicy]bool) []string {
	names := make([]string, 0, len(all))
	for p := range all {
		names = append(names, p.name())
	}
	return names
}

// programmed returns the condition once all nodes serve the Gateway, or now if that does not
// depend on nodes.
func (p *blixtPolicy) programmed(a *policyAncestor, s *environment) metav1.Condition {
	generation := p.obj.Generation
	no := func(reason, message string) metav1.Condition {
		return condition(v1alpha1.PolicyProgrammed, metav1.ConditionFalse, reason, generation, message)
	}
	if p.dryRun {
		c := condition(v1alpha1.PolicyProgrammed, metav1.ConditionTrue, v1alpha1.PolicyReasonProgrammed, generation, "DryRun: what sources and limits would refuse is counted, and nothing is refused.")
		if p.sources == nil && p.limits == nil {
			return no(v1alpha1.PolicyReasonOverridden, "DryRun: there are neither sources nor limits, and everything else is ignored.")
		}
		return p.orUnserved(a, c)
	}
	var parts []string
	for u := range units {
		if a.lost[u] != nil {
			parts = append(parts, fmt.Sprintf("%s: overridden by %s.", u, phrase.Sample(p.winners(a.lost[u]))))
		}
	}
	for _, field := range []string{"failover", "ports"} {
		if winner := a.own[field]; winner != nil {
			parts = append(parts, fmt.Sprintf("%s: overridden by %s.", field, p.winner(winner)))
		}
	}
	if len(parts) > 0 && !a.holds && !a.restricts && !slices.Contains(a.won[:], true) {
		return no(v1alpha1.PolicyReasonOverridden, strings.Join(parts, " "))
	}
	if a.restricts && s.Cluster != nil && a.gateway.class.config.podTraffic(a.gateway.source, a.gateway.policy.traffic, s.Cluster.ProxyMode) == v1alpha1.PodTrafficKubeProxy {
		parts = append(parts, "sources and limits do not hold for pods and nodes of the cluster: kube-proxy balances their connections (spec.addresses.podTraffic of the BlixtConfig).")
	}
	parts = append(parts, a.remarks...)
	c := condition(v1alpha1.PolicyProgrammed, metav1.ConditionTrue, v1alpha1.PolicyReasonProgrammed, generation, strings.Join(parts, " "))
	if len(parts) > 0 {
		c.Reason = v1alpha1.PolicyReasonPartiallyProgrammed
	}
	return p.orUnserved(a, c)
}

// orUnserved returns the condition, unless no frontend is there.
func (p *blixtPolicy) orUnserved(a *policyAncestor, c metav1.Condition) metav1.Condition {
	if a.frontends > 0 {
		return c
	}
	return condition(v1alpha1.PolicyProgrammed, metav1.ConditionFalse, v1alpha1.PolicyReasonReconciling, p.obj.Generation,
		strings.TrimSpace(a.gateway.name()+" serves no target of the policy yet: see the conditions of the Gateway and of the targets. "+c.Message))
}

// winners names the policies that have the last word about a unit, with their targets and why.
func (p *blixtPolicy) winners(all map[*policyTarget]bool) []string {
	names := make([]string, 0, len(all))
	for t := range all {
		names = append(names, p.winner(t))
	}
	return names
}

// winner names a policy with its target, and by which strategy it wins.
func (p *blixtPolicy) winner(t *policyTarget) string {
	why := "Patch defaults"
	switch {
	case t.policy.overrides:
		why = "Patch overrides"
	case slices.ContainsFunc(p.targets, func(own *policyTarget) bool { return own.restriction.Target == t.restriction.Target }):
		why = strings.TrimPrefix(precedence(&t.policy.obj.ObjectMeta, &p.obj.ObjectMeta), "which is ")
	}
	return fmt.Sprintf("%s (%s, %s)", t.policy.name(), t.name(), why)
}

// idleUnits warns of what means nothing to the routes that a policy is for.
func (p *blixtPolicy) idleUnits() []string {
	var all []string
	for _, t := range p.targets {
		if t.route == nil || p.dryRun {
			continue
		}
		var none []string
		for u, has := range p.has {
			if has && !unit(u).concerns(t.route.Protocol) {
				none = append(none, unit(u).String())
			}
		}
		if none != nil {
			all = append(all, fmt.Sprintf("%s: no effect on %s.", phrase.Join(none), t.name()))
		}
	}
	return sampled(all)
}

// affected returns PolicyAffected as a list: empty if no policy concerns the object.
func affected(generation int64, levels ...*policyLevel) []metav1.Condition {
	var names []string
	more := 0
	for _, l := range levels {
		if l == nil {
			continue
		}
		const most = 6 // one more than a message names
		shown := l.names[:min(len(l.names), most)]
		more += len(l.names) - len(shown)
		for _, name := range shown {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []metav1.Condition{condition(v1alpha1.PolicyAffected, metav1.ConditionTrue, v1alpha1.ReasonAffected, generation, phrase.SampleOf(names, more))}
}

// affected returns PolicyAffected of a parent of a route: the policies of all listeners that take it.
func (a *attachment) affected(r *route) []metav1.Condition {
	levels := []*policyLevel{a.gateway.policies}
	add := func(l *policyLevel) {
		if l != nil && !slices.Contains(levels, l) {
			levels = append(levels, l)
		}
	}
	for _, l := range a.taken {
		if l.set != nil {
			add(l.set.policies)
		}
		add(l.policies)
	}
	add(r.policies)
	return affected(r.Meta.Generation, levels...)
}
