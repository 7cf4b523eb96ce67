// SPDX-License-Identifier: Apache-2.0

// Package services reads Services of type LoadBalancer, with what MetalLB, Cilium, kube-vip,
// loxilb and clouds are told by annotations, and plans Gateways that serve the same. It is
// pure.
//
// The Services stay: they are the backends. In the cluster a Gateway has a Service of its own,
// by which it gets an address from whoever has given the old one: what concerns the address
// is carried over to that, as annotations of spec.infrastructure.
package services

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/objects"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// command gets all Services of a cluster.
const command = "kubectl get services --all-namespaces --output=yaml | blixt migrate services -"

// Read returns what serves the Services of files that load balancers serve.
func Read(files []migrate.File) *migrate.Plan {
	plan := &migrate.Plan{}
	r := reader{plan: plan, passed: map[string]int{}}
	all := objects.Read(files, plan)
	if plan.Broken {
		return plan
	}
	for _, o := range all {
		r.readPool(o)
	}
	for _, o := range all {
		r.read(o)
	}
	for _, g := range r.groups() {
		r.write(g)
	}
	r.summarize()
	return plan
}

type reader struct {
	plan     *migrate.Plan
	services []*service
	// passed counts what is none of this package's business, by what it is.
	passed map[string]int
	// selecting are the keys of labels by which pools and advertisements choose Services.
	selecting []string
	known     int
}

func (r *reader) read(o *objects.Object) {
	if o.Kind != "Service" || o.APIVersion != "v1" {
		if !isPool(o) {
			r.passed[cmp.Or(o.Kind, "no object of Kubernetes")]++
		}
		return
	}
	s := &service{Object: o, annotations: map[string]string{}, labels: map[string]string{}}
	if !o.Decode(&s.obj, r.plan) {
		return
	}
	o.Namespace = s.obj.Namespace
	r.known++
	kind := cmp.Or(string(s.obj.Spec.Type), "ClusterIP")
	switch {
	case v1alpha1.Managed(&s.obj) && s.obj.Labels[gwv1.GatewayNameLabelKey] != "":
		r.passed["Service of a Gateway of Blixt"]++
		return
	case kind != "LoadBalancer" && len(s.obj.Spec.ExternalIPs) == 0:
		r.passed["Service of type "+kind]++
		return
	case s.obj.DeletionTimestamp != nil:
		r.plan.Note(o.At("metadata", "deletionTimestamp"), migrate.Unneeded, "%s is being deleted: nothing is written for it", o)
		return
	}
	r.plan.Known = append(r.plan.Known, s.obj)
	s.read(r.selecting)
	r.services = append(r.services, s)
}

// summarize says what was passed over, and what holds for all.
func (r *reader) summarize() {
	if r.known == 0 {
		r.plan.Note(migrate.Place{}, migrate.Lost, "there is no Service in what was read: %s", command)
	}
	var passed []string
	for _, what := range slices.Sorted(maps.Keys(r.passed)) {
		passed = append(passed, fmt.Sprintf("%s %d", what, r.passed[what]))
	}
	if passed != nil {
		r.plan.Note(migrate.Place{}, migrate.Unneeded, "passed over: %s", strings.Join(passed, ", "))
	}
	cluster := 0
	for _, s := range r.services {
		if len(s.served()) > 0 && s.obj.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
			cluster++
		}
	}
	if cluster > 0 {
		r.plan.Note(migrate.Place{}, migrate.Changed, "backends of %s see their clients' addresses, where they saw a node's (externalTrafficPolicy Cluster): "+
			"what admits nodes only, such as a NetworkPolicy or pg_hba.conf, must admit the clients before. blixt doctor names such NetworkPolicies; "+
			"clientAddress: Node in a BlixtGatewayConfig keeps it as it was. See docs/client-address.md", phrase.Count(cluster, "Service"))
	}
}

// group is a set of Services that one Gateway serves.
type group []*service

// groups returns the Services by Gateway: those that share an address share one. If a port is
// wanted twice, there must be several addresses, and there are as many Gateways.
func (r *reader) groups() []group {
	var all []group
	at, wanted := map[string]int{}, map[string]int{}
	for _, s := range r.services {
		key, turn := s.groupKey(), 0
		for _, p := range s.served() {
			turn = max(turn, wanted[key+p.String()])
		}
		for _, p := range s.served() {
			wanted[key+p.String()] = turn + 1
		}
		key = fmt.Sprint(key, turn)
		i, is := at[key]
		if !is {
			i = len(all)
			at[key] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], s)
	}
	return all
}

// groupKey is equal for Services that share an address.
func (s *service) groupKey() string {
	switch {
	case s.sharing != "":
		return "key " + s.sharing + " " + joined(s.held())
	case len(s.addresses) > 0:
		return "addresses " + joined(s.addresses)
	}
	return "alone " + s.String()
}

// write adds the frontends of a group to the plan.
func (r *reader) write(g group) {
	first := g[0]
	if first.sharing != "" && len(g) == 1 {
		first.note(first.at(first.sharedBy), migrate.Changed, "%s %q: no other Service with this key was read. If there are some, read all of them at once: they become one Gateway", first.sharedBy, first.obj.Annotations[first.sharedBy])
	}
	annotations, labels := g.infrastructure()
	config := g.config()
	var frontends []migrate.Frontend
	for _, s := range g {
		frontend := func(gateway string, addresses []netip.Addr, config v1alpha1.BlixtGatewayConfigSpec) {
			for _, p := range s.served() {
				f := migrate.Frontend{
					Place: s.At("spec", "ports", fmt.Sprint(p.index)), Name: s.frontendName(p), Gateway: gateway, Namespace: first.Namespace,
					Protocol: p.protocol, Addresses: addresses, Port: p.number,
					Services:    []migrate.Service{{Namespace: s.Namespace, Name: s.Name, Port: p.number}},
					Policy:      *s.policyOf(p),
					Was:         s.was(),
					Annotations: annotations, Labels: labels, Config: config, Notes: s.notes,
					Unserved: s.unserved,
				}
				frontends = append(frontends, f)
				s.notes = nil // they are said once
			}
		}
		if s.obj.Spec.Type == corev1.ServiceTypeLoadBalancer {
			frontend(first.Name, first.addresses, config)
		}
		if external := s.externalIPs(); len(external) > 0 {
			// A load balancer does not give these: the administrator has routed them.
			config.AddressSource = v1alpha1.SourcePool
			config.ExternalTrafficPolicy = ""
			frontend(r.externalName(s), external, config)
		}
		r.plan.Notes = append(r.plan.Notes, s.notes...) // of a Service without a port that is served
	}
	r.plan.Frontends = append(r.plan.Frontends, frontends...)
}

// externalName returns a name for the Gateway of a Service's externalIPs. No Service has it.
func (r *reader) externalName(s *service) string {
	name := s.Name + "-external"
	for slices.ContainsFunc(r.services, func(o *service) bool { return o.Namespace == s.Namespace && o.Name == name }) {
		name += "-external"
	}
	return name
}

// config is that of the Gateway.
func (g group) config() v1alpha1.BlixtGatewayConfigSpec {
	local := func(s *service) bool {
		return s.obj.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	}
	if !slices.ContainsFunc(g, local) {
		return v1alpha1.BlixtGatewayConfigSpec{}
	}
	for _, s := range g {
		if !local(s) {
			s.note(s.At("spec"), migrate.Changed, "externalTrafficPolicy %q: another Service of the same address has Local, and so has the Gateway, which has one for all of them",
				cmp.Or(s.obj.Spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster))
		}
	}
	return v1alpha1.BlixtGatewayConfigSpec{ExternalTrafficPolicy: v1alpha1.TrafficPolicyLocal}
}

// Limits of spec.infrastructure.
const (
	maxAnnotations = 16
	maxLabels      = 8
	maxValue       = 4096
)

// infrastructure returns what the Gateway's Service gets from the Services.
func (g group) infrastructure() (annotations, labels map[string]string) {
	merge := func(of func(*service) map[string]string, limit int, what string) map[string]string {
		var all map[string]string
		for _, s := range g {
			from := of(s)
			for _, key := range slices.Sorted(maps.Keys(from)) {
				value, is := all[key]
				remedy := fmt.Sprintf("%s it to the Gateway's Service yourself once that exists: kubectl %s service --namespace=%s blixt-%s %s=…", strings.ToUpper(what[:1])+what[1:], what, g[0].Namespace, g[0].Name, key)
				switch {
				case len(content.IsLabelKey(key)) > 0 || what == "label" && len(content.IsLabelValue(from[key])) > 0:
					s.note(s.At("metadata", what+"s", key), migrate.Lost, "%s %q is no %s that an object can have", key, from[key], what)
				case is && value != from[key]:
					s.note(s.At("metadata", what+"s", key), migrate.Lost, "%s %q: another Service of the same address has %q, and a Gateway has one", key, from[key], value)
				case len(from[key]) > maxValue:
					s.note(s.at(key), migrate.Lost, "%s is longer than the %d bytes that a Gateway has room for. %s", key, maxValue, remedy)
				case !is && len(all) == limit:
					s.note(s.at(key), migrate.Lost, "%s %q: spec.infrastructure of a Gateway has room for %d. %s", key, from[key], limit, remedy)
				default:
					if all == nil {
						all = map[string]string{}
					}
					all[key] = from[key]
				}
			}
		}
		return all
	}
	annotations = merge(func(s *service) map[string]string { return s.annotations }, maxAnnotations, "annotation")
	labels = merge(func(s *service) map[string]string { return s.labels }, maxLabels, "label")
	return annotations, labels
}

func joined(all []netip.Addr) string {
	words := make([]string, len(all))
	for i, a := range all {
		words[i] = a.String()
	}
	return phrase.Join(words)
}
