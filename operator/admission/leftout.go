// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// LeftOut is a policy of a file that does not count, and never did.
type LeftOut struct {
	Namespace, Name string
	// At is its file and line.
	At      string
	Targets []gwv1.LocalPolicyTargetReferenceWithSectionName
}

// standsForLeftOut is the annotation of policies that stand for one that is left out.
const standsForLeftOut = "blixt.x-k8s.io/stands-for-left-out"

// standIn is a policy that refuses everybody, in place of one that is left out: nobody
// knows whom that one would refuse.
type standIn struct {
	*v1alpha1.BlixtPolicy
	at      string
	targets []string
}

// closeDoors adds stand-ins for policies that are left out. A target that was served before
// goes on without the policy, as it did; one that never was would begin without protection.
func (r *review) closeDoors(all []LeftOut) {
	for _, p := range all {
		policy := &v1alpha1.BlixtPolicy{ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, Annotations: map[string]string{standsForLeftOut: "true"},
		}}
		for _, taken := r.files[policyName(policy)]; taken || policy.Name == ""; _, taken = r.files[policyName(policy)] {
			policy.Name += "-left-out"
		}
		before := r.standInFor(policy)
		var targets []string
		for _, t := range p.Targets {
			name := string(t.Kind) + " " + p.Namespace + "/" + string(t.Name)
			_, is := r.files[name]
			_, was := r.good[name]
			if is && (!was || before != nil && slices.ContainsFunc(before.Spec.TargetRefs, sameTarget(t))) && !slices.ContainsFunc(policy.Spec.TargetRefs, sameTarget(t)) {
				policy.Spec.TargetRefs = append(policy.Spec.TargetRefs, t)
				targets = append(targets, name)
			}
		}
		if targets == nil {
			continue
		}
		policy.Spec.Strategy, policy.Spec.Mode = v1alpha1.StrategyDefaults, v1alpha1.ModeEnforce
		policy.Spec.Sources = &v1alpha1.PolicySources{Deny: []string{"0.0.0.0/0", "::/0"}, Action: v1alpha1.ActionDrop}
		r.files[policyName(policy)] = named{"BlixtPolicy", policy}
		r.standIns = append(r.standIns, standIn{policy, p.At, targets})
	}
}

func policyName(p *v1alpha1.BlixtPolicy) string { return named{"BlixtPolicy", p}.name() }

// standInFor returns that of the last time; nil: there was none.
func (r *review) standInFor(p *v1alpha1.BlixtPolicy) *v1alpha1.BlixtPolicy {
	if before, is := r.good[policyName(p)].Object.(*v1alpha1.BlixtPolicy); is && before.Annotations[standsForLeftOut] != "" {
		return before
	}
	return nil
}

func sameTarget(a gwv1.LocalPolicyTargetReferenceWithSectionName) func(gwv1.LocalPolicyTargetReferenceWithSectionName) bool {
	section := func(t gwv1.LocalPolicyTargetReferenceWithSectionName) gwv1.SectionName {
		if t.SectionName == nil {
			return ""
		}
		return *t.SectionName
	}
	return func(b gwv1.LocalPolicyTargetReferenceWithSectionName) bool {
		return a.Kind == b.Kind && a.Name == b.Name && section(a) == section(b)
	}
}

// mistake says what the stand-in does.
func (s *standIn) mistake() gateway.Mistake {
	name := policyName(s.BlixtPolicy)
	return gateway.Mistake{Subject: name, Reason: "LeftOut", Problem: gateway.Problem{Object: name, Message: fmt.Sprintf(
		"LeftOut: its file is left out, and it has never been in force, so that nobody knows whom it refuses: no new connections to %s until the file is mended or removed.", phrase.Sample(s.targets))}}
}

// locateStandIns returns a function that finds stand-ins, too.
func (r *review) locateStandIns(at func(name, value string) string) func(name, value string) string {
	if len(r.standIns) == 0 {
		return at
	}
	places := map[string]string{}
	for _, s := range r.standIns {
		places[policyName(s.BlixtPolicy)] = s.at
	}
	return func(name, value string) string {
		if place, is := places[name]; is {
			return place
		}
		return at(name, value)
	}
}
