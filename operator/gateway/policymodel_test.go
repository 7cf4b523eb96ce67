// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// policy returns one that is valid, mostly.
func (c *choices) policy() v1alpha1.BlixtPolicy {
	p := v1alpha1.BlixtPolicy{ObjectMeta: c.meta("p", "q", "r", "s", "t", "u")}
	for range 1 + c.n(3) {
		var ref gwv1.LocalPolicyTargetReferenceWithSectionName
		ref.Group = gwv1.GroupName
		ref.Kind = pick[gwv1.Kind](c, "Gateway", "Gateway", "ListenerSet", "TCPRoute", "TCPRoute", "UDPRoute")
		ref.Name = pick[gwv1.ObjectName](c, "a", "a", "b", "c")
		if section := maybe[gwv1.SectionName](c, "l0", "l1", "x"); section != nil && (ref.Kind == "Gateway" || ref.Kind == "ListenerSet") {
			ref.SectionName = section
		}
		p.Spec.TargetRefs = append(p.Spec.TargetRefs, ref)
	}
	p.Spec.Strategy = pick(c, v1alpha1.StrategyDefaults, v1alpha1.StrategyDefaults, v1alpha1.StrategyOverrides)
	p.Spec.Mode = pick(c, v1alpha1.ModeEnforce, v1alpha1.ModeEnforce, v1alpha1.ModeEnforce, v1alpha1.ModeDryRun)
	if c.n(2) > 0 {
		p.Spec.Sources = &v1alpha1.PolicySources{
			Allow: pick(c, nil, []string{"10.0.0.0/8"}, []string{"172.16.0.0/12", "10.0.0.0/8"}, []string{"2001:db8::/32"}),
			Deny:  pick(c, nil, []string{"10.1.0.0/16"}, []string{"10.0.0.0/8"}, []string{"10.0.0.1/8"}),
		}
	}
	if c.n(3) == 0 {
		p.Spec.Limits = &v1alpha1.PolicyLimits{Total: &v1alpha1.TotalLimit{Limit: v1alpha1.Limit{NewPerSecond: new(int32(1 + c.n(9)))}}}
	}
	if c.n(2) == 0 {
		p.Spec.MaxAge = &metav1.Duration{Duration: time.Duration(1+c.n(200)) * time.Hour}
	}
	if c.n(2) == 0 {
		p.Spec.IdleTimeout = &v1alpha1.PolicyIdleTimeout{TCP: maybe(c, metav1.Duration{Duration: time.Hour}, metav1.Duration{Duration: time.Minute}, metav1.Duration{Duration: time.Second})}
	}
	if c.n(3) == 0 {
		p.Spec.Affinity = &v1alpha1.PolicyAffinity{Type: pick(c, v1alpha1.AffinityNone, v1alpha1.AffinityClientAddress, "x")}
	}
	if c.n(4) == 0 {
		p.Spec.Ports = &v1alpha1.PolicyPorts{EndPort: maybe[gwv1.PortNumber](c, 82, 90, 70000), All: rarely(c, true)}
	}
	if c.n(4) == 0 {
		p.Spec.Failover = &v1alpha1.PolicyFailover{Backends: []v1alpha1.FailoverBackend{{Name: pick[gwv1.ObjectName](c, "x", "y"), Priority: int32(c.n(5))}}}
	}
	return p
}

// modelPath returns the targets on the way to a frontend, the least specific first, as strings.
func modelPath(f *gateway.Frontend) []string {
	path := []string{"Gateway/" + f.Gateway}
	if owner, name, ofSet := strings.Cut(f.Listener, "/"); ofSet {
		set, listener, _ := strings.Cut(name, "/")
		path = append(path, "ListenerSet/"+owner+"/"+set, "ListenerSet/"+owner+"/"+set+"/"+listener)
	} else {
		path = append(path, "Gateway/"+f.Gateway+"/"+f.Listener)
	}
	return append(path, f.Route)
}

// modelOf returns the valid policies of a target by precedence, read from the objects alone.
func modelOf(objs *gateway.Objects, valid map[string]bool, target string) (all []*v1alpha1.BlixtPolicy) {
	for i := range objs.Policies {
		p := &objs.Policies[i]
		for _, ref := range p.Spec.TargetRefs {
			name := string(ref.Kind) + "/" + p.Namespace + "/" + string(ref.Name)
			if ref.SectionName != nil {
				name += "/" + string(*ref.SectionName)
			}
			if name == target && valid[p.Namespace+"/"+p.Name] && !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, func(a, b *v1alpha1.BlixtPolicy) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// modelWinner returns what the policy with the last word says, or the zero value.
func modelWinner[T comparable](levels [][]*v1alpha1.BlixtPolicy, says func(*v1alpha1.BlixtPolicy) T) T {
	var none T
	find := func(level []*v1alpha1.BlixtPolicy, strategy v1alpha1.PolicyStrategy) T {
		for _, p := range level {
			if cmp.Or(p.Spec.Strategy, v1alpha1.StrategyDefaults) == strategy && p.Spec.Mode != v1alpha1.ModeDryRun && says(p) != none {
				return says(p)
			}
		}
		return none
	}
	for _, level := range levels {
		if v := find(level, v1alpha1.StrategyOverrides); v != none {
			return v
		}
	}
	for _, level := range slices.Backward(levels) {
		if v := find(level, v1alpha1.StrategyDefaults); v != none {
			return v
		}
	}
	return none
}

var validReason = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`)

// checkPolicies compares what frontends have with a model that looks at each frontend by itself.
func checkPolicies(t *testing.T, c *testCase, translation *gateway.Translation) {
	t.Helper()
	valid, unreadable := map[string]bool{}, map[string]bool{}
	for i := range c.Objects.Policies {
		p := &c.Objects.Policies[i]
		valid[p.Namespace+"/"+p.Name] = true
	}
	for _, m := range translation.Policies {
		for _, target := range m.Status.Targets {
			for _, cond := range target.Conditions {
				if cond.Reason == "Invalid" && strings.HasPrefix(cond.Message, "spec.") && !strings.Contains(cond.Message, "is not above port") && !strings.Contains(cond.Message, "backendRef of") || strings.Contains(cond.Message, "70000") {
					valid[m.String()] = false
					unreadable[m.String()] = strings.Contains(cond.Message, "no new connections")
				}
			}
		}
	}
	sources := map[string]bool{}
	for _, s := range translation.Sources {
		sources[s.Policy] = true
	}
	for i := range translation.Frontends {
		f := &translation.Frontends[i]
		path := modelPath(f)
		var levels [][]*v1alpha1.BlixtPolicy
		for _, target := range path {
			levels = append(levels, modelOf(&c.Objects, valid, target))
		}
		if want := modelWinner(levels, func(p *v1alpha1.BlixtPolicy) metav1.Duration {
			if p.Spec.MaxAge == nil {
				return metav1.Duration{}
			}
			return *p.Spec.MaxAge
		}); f.MaxAge != want.Duration {
			t.Errorf("%s: maxAge %s, want %s", f.Key, f.MaxAge, want.Duration)
		}
		if idle := modelWinner(levels, func(p *v1alpha1.BlixtPolicy) metav1.Duration {
			if p.Spec.IdleTimeout == nil || p.Spec.IdleTimeout.TCP == nil {
				return metav1.Duration{}
			}
			return *p.Spec.IdleTimeout.TCP
		}); f.Protocol == lb.TCP && idle.Duration > 0 && f.IdleTimeout != idle.Duration {
			t.Errorf("%s: idle timeout %s, want %s", f.Key, f.IdleTimeout, idle.Duration)
		}
		affinity := modelWinner(levels, func(p *v1alpha1.BlixtPolicy) v1alpha1.AffinityType {
			if p.Spec.Affinity == nil {
				return ""
			}
			return p.Spec.Affinity.Type
		})
		if (f.Affinity != nil) != (affinity == v1alpha1.AffinityClientAddress && f.Route != "") {
			t.Errorf("%s: affinity %+v, want %s", f.Key, f.Affinity, affinity)
		}
		checkRestrictions(t, f, path, levels, sources)
		for j := range c.Objects.Policies { // who cannot be read closes
			p := &c.Objects.Policies[j]
			if name := p.Namespace + "/" + p.Name; unreadable[name] && f.Refused == "" && slices.ContainsFunc(path, func(target string) bool {
				return slices.Contains(modelOf(&c.Objects, map[string]bool{name: true}, target), p)
			}) {
				t.Errorf("%s is open, although nobody can read whom %s admits", f.Key, name)
			}
		}
	}
	for _, p := range translation.Policies {
		for _, a := range p.Status.Ancestors {
			checkPolicyConditions(t, p.String(), a.Conditions)
		}
		for _, target := range p.Status.Targets {
			checkPolicyConditions(t, p.String(), target.Conditions)
		}
		if len(p.Status.Ancestors) > 16 || len(p.Status.Ancestors) != len(p.Gateways) {
			t.Errorf("BlixtPolicy %s has %d ancestors for %d Gateways", p, len(p.Status.Ancestors), len(p.Gateways))
		}
	}
}

// checkRestrictions checks that no list on the way is lost, and that none comes from elsewhere.
func checkRestrictions(t *testing.T, f *gateway.Frontend, path []string, levels [][]*v1alpha1.BlixtPolicy, sources map[string]bool) {
	t.Helper()
	has := map[string]lb.Restriction{}
	level := 0
	for _, r := range f.Restrictions {
		at := slices.Index(path, r.Target)
		if at < level {
			t.Errorf("%s: restriction of %s by %s is out of order, or not on its way", f.Key, r.Target, r.Policy)
		}
		level = max(level, at)
		if before, twice := has[r.Policy]; twice && r.Sources {
			t.Errorf("%s: asks the sources of %s for %s and %s", f.Key, r.Policy, before.Target, r.Target)
		} else if !twice {
			has[r.Policy] = r
		}
		if r.Sources && !sources[r.Policy] {
			t.Errorf("%s: the sources of %s are missing", f.Key, r.Policy)
		}
	}
	if len(f.Restrictions) > lb.MaxRestrictions {
		t.Errorf("%s has %d restrictions", f.Key, len(f.Restrictions))
	}
	for _, level := range levels {
		for _, p := range level {
			r, there := has[p.Namespace+"/"+p.Name]
			switch {
			case p.Spec.Sources == nil && p.Spec.Limits == nil:
			case !there && len(f.Restrictions) < lb.MaxRestrictions:
				t.Errorf("%s: the restriction by %s/%s is lost", f.Key, p.Namespace, p.Name)
			case there && r.DryRun != (p.Spec.Mode == v1alpha1.ModeDryRun):
				t.Errorf("%s: %+v, want mode %s", f.Key, r, p.Spec.Mode)
			case p.Spec.Sources != nil && p.Spec.Mode != v1alpha1.ModeDryRun && !r.Sources && f.Refused == "":
				t.Errorf("%s: the list of %s/%s is lost, and the frontend is open", f.Key, p.Namespace, p.Name)
			}
		}
	}
}

func checkPolicyConditions(t *testing.T, policy string, conditions []metav1.Condition) {
	t.Helper()
	types := map[string]bool{}
	for _, c := range conditions {
		if c.Message == "" && c.Status == metav1.ConditionFalse || types[c.Type] || !validReason.MatchString(c.Reason) {
			t.Errorf("BlixtPolicy %s has a bad condition: %+v", policy, c)
		}
		types[c.Type] = true
	}
	if len(conditions) == 0 || len(conditions) > 8 {
		t.Errorf("BlixtPolicy %s has %d conditions", policy, len(conditions))
	}
}
