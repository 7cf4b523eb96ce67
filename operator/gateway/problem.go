// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// Problem says in plain words what is wrong with an object, and how to fix it.
type Problem struct {
	// Object is kind and namespace/name, followed by the listener if the
	// problem is a listener's.
	Object  string `json:"object"`
	Message string `json:"message"`
}

func (p Problem) compare(o Problem) int {
	return cmp.Or(cmp.Compare(p.Object, o.Object), cmp.Compare(p.Message, o.Message))
}

// Problems returns the notes and the message of every condition that reports a
// failure, for callers that have no status to show.
func (t *Translation) Problems() []Problem {
	var all problems
	all = append(all, t.Notes...)
	for _, c := range t.Classes {
		all.add(named("GatewayClass", "", c.Name), c.Status.Conditions)
	}
	for _, g := range t.Gateways {
		name := named("Gateway", g.Namespace, g.Name)
		all.add(name, g.Status.Conditions)
		for _, l := range g.Status.Listeners {
			all.add(fmt.Sprintf("%s listener %s", name, l.Name), l.Conditions)
		}
	}
	for _, set := range t.ListenerSets {
		name := named("ListenerSet", set.Namespace, set.Name)
		all.add(name, set.Status.Conditions)
		for _, l := range set.Status.Listeners {
			all.add(fmt.Sprintf("%s listener %s", name, l.Name), l.Conditions)
		}
	}
	for _, r := range t.Routes {
		for _, p := range r.Status.Parents {
			all.add(named(string(r.Kind), r.Namespace, r.Name), p.Conditions)
		}
	}
	for _, p := range t.Policies {
		for _, a := range p.Status.Ancestors {
			all.add(named("BlixtPolicy", p.Namespace, p.Name), slices.DeleteFunc(slices.Clone(a.Conditions), awaitsPolicy))
		}
	}
	return all
}

type problems []Problem

// add appends the failures among the conditions, each cause once: Programmed
// repeats what Accepted says.
func (p *problems) add(object string, conditions []metav1.Condition) {
	var causes []string
	for _, c := range conditions {
		bad := c.Status == metav1.ConditionFalse
		if c.Type == string(gwv1.ListenerConditionConflicted) || c.Type == v1alpha1.PolicyWarning {
			bad = c.Status == metav1.ConditionTrue
		}
		if !bad {
			continue
		}
		repeated := false
		for _, cause := range causes {
			repeated = repeated || strings.Contains(c.Message, cause)
		}
		if !repeated {
			causes = append(causes, c.Message)
			*p = append(*p, Problem{Object: object, Message: c.Reason + ": " + c.Message})
		}
	}
}
