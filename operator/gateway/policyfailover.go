// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// applyFailover gives the route's references the priorities that the policy of the route has.
func (r *route) applyFailover() {
	if r.policies == nil || r.policies.failover == nil {
		return
	}
	t := r.policies.failover
	var unknown []string
	matched := map[[2]int]int32{} // priorities, by rule and reference
	for i := range t.policy.backends {
		b := &t.policy.backends[i]
		found := false
		for j, rule := range r.Rules {
			for k := range rule {
				if r.isBackend(b, &rule[k]) {
					found, matched[[2]int{j, k}] = true, b.Priority
				}
			}
		}
		if !found {
			unknown = append(unknown, backendName(b))
		}
	}
	if unknown != nil {
		t.unresolved = faultf(v1alpha1.PolicyReasonBackendNotFound, "spec.failover names %s, which %s does not have among its backendRefs: correct the name, or remove it.",
			strings.Join(unknown, ", "), r.name()).because(r.name())
	}
	total := 0
	for _, rule := range r.Rules {
		total += len(rule)
	}
	switch {
	case len(matched) == 0:
		return
	case len(matched) == total:
		t.fault = faultf(gwv1.PolicyReasonInvalid, "spec.failover has every backendRef of %s stand by: leave one out, which then serves first.", r.name())
		return
	}
	r.failover = t.policy.readPolicy.failover
	for _, g := range t.gateways {
		t.ancestor(g).holds = true
	}
	for i := range r.backends.refs {
		ref := &r.backends.refs[i]
		for at, priority := range matched {
			name := r.Rules[at[0]][at[1]]
			if string(name.Name) == ref.Service.Name && namespaceOf(r, name.Namespace) == ref.Service.Namespace && uint16(deref(name.Port, 0)) == ref.Port {
				ref.Priority = int(priority)
			}
		}
	}
}

func namespaceOf(r *route, given *gwv1.Namespace) string {
	if namespace := string(deref(given, "")); namespace != "" {
		return namespace
	}
	return r.Meta.Namespace
}

// isBackend reports whether the policy means the reference.
func (r *route) isBackend(b *v1alpha1.FailoverBackend, ref *gwv1.BackendRef) bool {
	return b.Name == ref.Name && namespaceOf(r, b.Namespace) == namespaceOf(r, ref.Namespace) && deref(ref.Kind, "Service") == "Service" &&
		(b.Port == nil || *b.Port == deref(ref.Port, 0))
}

func backendName(b *v1alpha1.FailoverBackend) string {
	name := string(b.Name)
	if b.Namespace != nil && *b.Namespace != "" {
		name = string(*b.Namespace) + "/" + name
	}
	if b.Port != nil {
		name += fmt.Sprintf(":%d", *b.Port)
	}
	return name
}

// weighted is a Service with its share of a route's new flows.
type weighted struct {
	name   string
	weight uint64
}

// services returns the Services of the route in order, each once. Weights of the same ratio are equal.
func (r *route) services() []weighted {
	var all []weighted
	for _, ref := range r.backends.refs {
		name := ref.Service.String()
		i := slices.IndexFunc(all, func(w weighted) bool { return w.name == name })
		if i < 0 {
			all, i = append(all, weighted{name: name}), len(all)
		}
		all[i].weight += uint64(ref.Weight)
	}
	var of uint64
	for _, w := range all {
		of = gcd(of, w.weight)
	}
	for i := range all {
		all[i].weight /= max(of, 1)
	}
	slices.SortFunc(all, func(a, b weighted) int { return strings.Compare(a.name, b.name) })
	return all
}

func gcd(a, b uint64) uint64 {
	for b > 0 {
		a, b = b, a%b
	}
	return a
}
