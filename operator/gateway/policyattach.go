// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// blixtPolicy is a BlixtPolicy with what became of it.
type blixtPolicy struct {
	obj *v1alpha1.BlixtPolicy
	// readPolicy is what holds: the last good one if this one is invalid.
	*readPolicy
	// fault is why the policy as a whole is not accepted, or nil.
	fault *fault
	// refused is why its targets get no new flows: it was never in force, and who it admits
	// cannot be told. "": that is known.
	refused  string
	warnings []string
	targets  []*policyTarget
	// ancestors are by Gateway.
	ancestors map[*gateway]*policyAncestor
}

func (p *blixtPolicy) name() string { return p.obj.Namespace + "/" + p.obj.Name }

func (p *blixtPolicy) object() string { return named("BlixtPolicy", p.obj.Namespace, p.obj.Name) }

// policyTarget is one of the targetRefs of a policy.
type policyTarget struct {
	policy *blixtPolicy
	ref    *gwv1.LocalPolicyTargetReferenceWithSectionName
	// fault is why the policy, or a part of it, does not hold for the target; unresolved is
	// which names of failover lead nowhere.
	fault, unresolved *fault
	restriction       lb.Restriction
	frontends         int
	gateways          []*gateway
	route             *route
}

// restricts reports whether the policy says who may connect, or how often.
func (t *policyTarget) restricts() bool {
	return t.restriction.Sources || t.restriction.Limits != nil || t.policy.refused != ""
}

// name returns the words for the target.
func (t *policyTarget) name() string {
	name := named(string(t.ref.Kind), t.policy.obj.Namespace, string(t.ref.Name))
	if section := deref(t.ref.SectionName, ""); section != "" {
		return fmt.Sprintf("listener %s of %s", section, name)
	}
	return name
}

// policies are all BlixtPolicies, attached. Nil: there are none, which costs nothing.
type policies struct {
	all []*blixtPolicy // in order of precedence
	*environment
	// the parts of Settings that frontends share.
	affinities map[string]*lb.Affinity
	healths    map[[3]*readPolicy]*lb.Health
	// sources are those that a restriction names.
	sources map[string]*lb.SourceSet
	levels  []*policyLevel
}

// policyObjects are what policies may name.
type policyObjects struct {
	*policies
	gateways gatewayIndex
	sets     map[types.NamespacedName]*listenerSet
	// foreign are the ListenerSets of other controllers.
	foreign map[types.NamespacedName]bool
	routes  map[routeKey]*route
}

type routeKey struct {
	kind gwv1.Kind
	types.NamespacedName
}

// attachPolicies reads the policies and attaches them to their targets.
func attachPolicies(objs *Objects, gateways gatewayIndex, sets map[types.NamespacedName]*listenerSet, routes []*route, s *environment) *policies {
	if len(objs.Policies) == 0 {
		return nil
	}
	p := &policies{environment: s, all: make([]*blixtPolicy, len(objs.Policies)),
		affinities: map[string]*lb.Affinity{}, healths: map[[3]*readPolicy]*lb.Health{}, sources: map[string]*lb.SourceSet{}}
	for i := range objs.Policies {
		p.all[i] = newBlixtPolicy(&objs.Policies[i], s)
	}
	slices.SortStableFunc(p.all, func(a, b *blixtPolicy) int { return byAge(&a.obj.ObjectMeta, &b.obj.ObjectMeta) })
	o := policyObjects{p, gateways, sets, map[types.NamespacedName]bool{}, map[routeKey]*route{}}
	for i := range objs.ListenerSets {
		o.foreign[types.NamespacedName{Namespace: objs.ListenerSets[i].Namespace, Name: objs.ListenerSets[i].Name}] = true
	}
	for _, r := range routes {
		o.routes[routeKey{r.Kind, types.NamespacedName{Namespace: r.Meta.Namespace, Name: r.Meta.Name}}] = r
	}
	for _, policy := range p.all {
		for _, t := range policy.targets {
			o.attach(t)
		}
	}
	for _, l := range p.levels {
		l.summarize()
	}
	return p
}

// newBlixtPolicy reads a policy. If it is invalid, what was good last goes on. Without that, its
// sources hold as far as they can be read; if they cannot, nobody is admitted, as nobody knows who
// is meant to be. Of the rest nothing holds.
func newBlixtPolicy(obj *v1alpha1.BlixtPolicy, s *environment) *blixtPolicy {
	name := types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}
	known := readPolicyOf(obj, s.LastGood.Policies[name])
	s.known[name] = known
	p := &blixtPolicy{obj: obj, readPolicy: known.read, warnings: known.read.warnings, ancestors: map[*gateway]*policyAncestor{}}
	if len(known.read.invalid) > 0 {
		p.fault = faultf(gwv1.PolicyReasonInvalid, "%s", strings.Join(known.read.invalid, " "))
		switch {
		case known.good != nil:
			p.readPolicy = known.good
			p.fault.message += goesOn
		case known.read.unreadable && !known.read.dryRun:
			p.refused = fmt.Sprintf("%s has never been valid, so nobody knows who may connect: %s", p.object(), p.fault.message)
			p.fault.message += " Its targets get no new connections until it is corrected or deleted."
			p.readPolicy = &readPolicy{}
		default:
			p.readPolicy = &readPolicy{dryRun: known.read.dryRun, sources: known.read.sources, reset: known.read.reset}
			if p.sources != nil {
				p.fault.message += " Only its sources hold."
			}
		}
	}
	refs := obj.Spec.TargetRefs
	for i := range refs[:min(len(refs), maxTargets)] {
		p.targets = append(p.targets, newTarget(p, &refs[i]))
	}
	return p
}

// maxTargets is how many targets a policy may have.
const maxTargets = 16

func newTarget(p *blixtPolicy, ref *gwv1.LocalPolicyTargetReferenceWithSectionName) *policyTarget {
	target := fmt.Sprintf("%s/%s/%s", ref.Kind, p.obj.Namespace, ref.Name)
	if section := deref(ref.SectionName, ""); section != "" {
		target += "/" + string(section)
	}
	return &policyTarget{policy: p, ref: ref, restriction: lb.Restriction{
		Policy: p.name(), Target: target, DryRun: p.dryRun,
		Sources: p.sources != nil, ResetSources: p.sources != nil && p.reset, Limits: p.limits,
	}}
}

// attach finds the target, and adds the policy to it.
func (o *policyObjects) attach(t *policyTarget) {
	key := types.NamespacedName{Namespace: t.policy.obj.Namespace, Name: string(t.ref.Name)}
	section := deref(t.ref.SectionName, "")
	switch kind := t.ref.Kind; {
	case t.ref.Group != gwv1.GroupName:
		t.fault = faultf(gwv1.PolicyReasonInvalid, "The target %s is of group %q: the group of targets is %s.", t.name(), t.ref.Group, gwv1.GroupName)
	case kind == "Gateway":
		g, exists := o.gateways[key]
		switch {
		case !exists:
			t.missing()
		case g == nil:
			t.foreign("its GatewayClass is of another controller, or does not exist")
		case section == "":
			o.enter(&g.policies, t)
			t.gateways = append(t.gateways, g)
		default:
			o.attachListener(t, section, g.listeners, g, g.obj.Spec.Listeners)
		}
	case kind == "ListenerSet":
		set := o.sets[key]
		switch {
		case set == nil && !o.foreign[key]:
			t.missing()
		case set == nil:
			t.foreign("its Gateway is of another controller, or does not exist")
		case section == "":
			o.enter(&set.policies, t)
			t.gateways = append(t.gateways, set.gateway)
		default:
			o.attachListener(t, section, set.listeners, set.gateway, entries(set.obj.Spec.Listeners))
		}
	case kind == "TCPRoute" || kind == "UDPRoute":
		r := o.routes[routeKey{kind, key}]
		switch {
		case r == nil:
			t.missing()
		case section != "":
			t.fault = faultf(gwv1.PolicyReasonInvalid, "%s has no sections: remove sectionName.", named(string(kind), key.Namespace, key.Name))
		case len(r.attached) == 0:
			t.foreign("none of its parents is Blixt's")
		default:
			o.attachRoute(t, r)
		}
	default:
		t.fault = faultf(gwv1.PolicyReasonInvalid, "%s cannot be a target: name a Gateway, ListenerSet, TCPRoute or UDPRoute.", t.name())
	}
}

func entries(all []gwv1.ListenerEntry) []gwv1.Listener {
	listeners := make([]gwv1.Listener, len(all))
	for i := range all {
		listeners[i] = gwv1.Listener(all[i])
	}
	return listeners
}

// missing says that the target does not exist.
func (t *policyTarget) missing() {
	t.fault = faultf(gwv1.PolicyReasonTargetNotFound, "%s does not exist: create it, or correct targetRefs.", t.name()).
		because(named(string(t.ref.Kind), t.policy.obj.Namespace, string(t.ref.Name)))
	t.fault.value = "targetRefs/" + string(t.ref.Name)
}

func (t *policyTarget) foreign(why string) {
	t.fault = faultf(v1alpha1.PolicyReasonForeign, "%s is not Blixt's: %s.", t.name(), why)
	t.fault.value = "targetRefs/" + string(t.ref.Name)
}

func (o *policyObjects) attachRoute(t *policyTarget, r *route) {
	o.enter(&r.policies, t)
	t.route = r
	for i := range r.attached {
		if g := r.attached[i].gateway; !slices.Contains(t.gateways, g) {
			t.gateways = append(t.gateways, g)
		}
	}
}

// attachListener attaches the policy to a listener. A ListenerSet that is not allowed has listeners
// in its spec alone.
func (o *policyObjects) attachListener(t *policyTarget, section gwv1.SectionName, listeners []*listener, g *gateway, spec []gwv1.Listener) {
	var names []string
	for i := range spec {
		names = append(names, string(spec[i].Name))
	}
	if !slices.Contains(names, string(section)) {
		owner := named(string(t.ref.Kind), t.policy.obj.Namespace, string(t.ref.Name))
		t.fault = faultf(gwv1.PolicyReasonTargetNotFound, "%s has no listener %s: it has %s.", owner, section, phrase.Join(names)).because(owner)
		t.fault.value = "targetRefs/" + string(section)
		return
	}
	t.gateways = append(t.gateways, g)
	for _, l := range listeners {
		if l.spec.Name == section {
			o.enter(&l.policies, t)
		}
	}
}

// policyLevel is all policies of one target, such as a Gateway or a listener.
type policyLevel struct {
	targets []*policyTarget // in order of precedence
	// best are the policies that have the last word here, by unit.
	best [units]*policyTarget
	// restricting are those that say who may connect: those that hold come first.
	restricting []*policyTarget
	// names are those of the policies, each once and sorted.
	names []string
	// failover and ports are the policies that say so.
	failover, ports *policyTarget
}

// enter adds a policy to a level.
func (p *policies) enter(l **policyLevel, t *policyTarget) {
	if *l == nil {
		*l = &policyLevel{}
		p.levels = append(p.levels, *l)
	}
	(*l).targets = append((*l).targets, t)
}

// summarize finds out which policies of the level have the last word in it: those with strategy
// Overrides before others, and older ones before younger ones.
func (l *policyLevel) summarize() {
	for _, t := range l.targets {
		l.names = append(l.names, t.policy.name())
		if t.restricts() {
			l.restricting = append(l.restricting, t)
		}
		if t.policy.dryRun {
			continue
		}
		for u, has := range t.policy.has {
			if best := l.best[u]; has && (best == nil || t.policy.overrides && !best.policy.overrides) {
				l.best[u] = t
			}
		}
		if t.policy.failover != nil && l.failover == nil {
			l.failover = t
		}
		if t.policy.ports != nil && l.ports == nil {
			l.ports = t
		}
	}
	slices.Sort(l.names)
	l.names = slices.Compact(l.names)
	// One that refuses nothing gives way.
	slices.SortStableFunc(l.restricting, func(a, b *policyTarget) int { return boolCompare(a.policy.dryRun, b.policy.dryRun) })
}

// levels returns the policies on the way to what the listener serves, the least specific first.
func (l *listener) levels() (all []*policyLevel) {
	add := func(l *policyLevel) {
		if l != nil {
			all = append(all, l)
		}
	}
	add(l.gateway.policies)
	if l.set != nil {
		add(l.set.policies)
	}
	add(l.policies)
	if len(l.attached) > 0 {
		add(l.attached[0].policies)
	}
	return all
}

// knownPolicies returns what the next translation may have to remember.
func (s *environment) knownPolicies() map[types.NamespacedName]KnownPolicy {
	if len(s.known) == 0 {
		return nil
	}
	return maps.Clone(s.known)
}
