// SPDX-License-Identifier: Apache-2.0

package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// switching is where people read how to go over.
const switching = "docs/migrate/services.md#switching-over"

// maxGatewayAddresses is Gateway API's limit.
const maxGatewayAddresses = 16

// readAddresses says where the Gateway's addresses come from.
func (s *service) readAddresses() {
	spec := &s.obj.Spec
	if spec.LoadBalancerIP != "" {
		s.want(s.At("spec", "loadBalancerIP"), "loadBalancerIP", spec.LoadBalancerIP)
	}
	if more := len(s.addresses) - maxGatewayAddresses; more > 0 {
		s.addresses = s.addresses[:maxGatewayAddresses]
		s.note(s.At("metadata"), migrate.Lost, "it asks for %d addresses more than the %d that a Gateway can name: make a second Gateway for them", more, maxGatewayAddresses)
	}
	at := s.At("status", "loadBalancer", "ingress")
	held := s.held()
	switch {
	case len(held) == 0:
	case len(s.addresses) == 0:
		s.note(at, migrate.Changed, "%s was assigned to it, and a load balancer does not give one address twice: the Gateway gets another one. "+
			"Lead clients there by DNS, or keep the address by naming it in spec.addresses of the Gateway: %s", phrase.Join(words(held)), switching)
	case slices.ContainsFunc(s.addresses, func(a netip.Addr) bool { return slices.Contains(held, a) }):
		s.note(at, migrate.Changed, "it holds %s, which the Gateway gets once the Service lets it go: %s", phrase.Join(words(held)), switching)
	}
	for _, ingress := range s.obj.Status.LoadBalancer.Ingress {
		if ingress.Hostname != "" {
			s.note(at, migrate.Changed, "clients reach it by the name %q: the load balancer of the Gateway has another name, to which DNS must lead: %s", ingress.Hostname, switching)
		}
	}
	for i, text := range spec.ExternalIPs {
		at := s.At("spec", "externalIPs", fmt.Sprint(i))
		if _, why := usable(text); why != "" {
			s.note(at, migrate.Lost, "externalIPs %q: %s", text, why)
			continue
		}
		s.note(at, migrate.Changed, "externalIPs %q: a Gateway of its own names it, with addressSource Pool. For that the administrator lists it in spec.addresses.pool of the BlixtConfig "+
			"and Pool in alsoSources; if it is a node's own address, use source Node instead. Remove it from the Service in the end", text)
	}
}

func words(all []netip.Addr) []string {
	texts := make([]string, len(all))
	for i, a := range all {
		texts[i] = a.String()
	}
	return texts
}

// readPorts notes ports that cannot be served.
func (s *service) readPorts() {
	if len(s.obj.Spec.Ports) == 0 {
		s.note(s.At("spec"), migrate.Lost, "it has no ports: nothing is written for it")
	}
	served := s.served()
	for i, p := range s.obj.Spec.Ports {
		at := func(field string) migrate.Place { return s.At("spec", "ports", fmt.Sprint(i), field) }
		switch is := slices.ContainsFunc(served, func(o port) bool { return o.index == i }); {
		case is && p.AppProtocol != nil:
			s.note(at("appProtocol"), migrate.Unneeded, "appProtocol %q of port %d: Blixt balances connections, whatever they carry", *p.AppProtocol, p.Port)
		case is:
		case p.Port < 1 || p.Port > 65535:
			s.note(at("port"), migrate.Lost, "port %d: it is no port from 1 to 65535", p.Port)
		case p.Protocol == corev1.ProtocolSCTP:
			s.note(at("protocol"), migrate.Lost, "port %d is SCTP, for which Gateway API has no route: keep a Service of type LoadBalancer for it, with the other ports removed", p.Port)
		case p.Protocol != corev1.ProtocolTCP && p.Protocol != corev1.ProtocolUDP && p.Protocol != "":
			s.note(at("protocol"), migrate.Lost, "protocol %q of port %d is not TCP or UDP", p.Protocol, p.Port)
		default:
			s.note(at("port"), migrate.Lost, "port %d is there twice: the first one counts", p.Port)
		}
	}
}

// annotationSourceRanges is what spec.loadBalancerSourceRanges was once.
const annotationSourceRanges = corev1.AnnotationLoadBalancerSourceRangesKey

// readSources makes a policy of who may connect. The field comes before the annotation, as in
// kube-proxy.
func (s *service) readSources() {
	field, ranges := "loadBalancerSourceRanges", s.obj.Spec.LoadBalancerSourceRanges
	at := func(int) migrate.Place { return s.at(annotationSourceRanges) }
	if value := s.obj.Annotations[annotationSourceRanges]; len(ranges) == 0 && strings.TrimSpace(value) != "" {
		field, ranges = annotationSourceRanges, strings.Split(value, ",")
	} else if len(ranges) > 0 {
		at = func(i int) migrate.Place { return s.At("spec", "loadBalancerSourceRanges", fmt.Sprint(i)) }
		if strings.TrimSpace(value) != "" {
			s.note(s.at(annotationSourceRanges), migrate.Unneeded, "%s %q: the field loadBalancerSourceRanges counts", annotationSourceRanges, value)
		}
	}
	if len(ranges) == 0 {
		return
	}
	networks := s.networks(field, ranges, at)
	if s.denies && (len(networks) > maxNetworks || slices.ContainsFunc(ranges, func(r string) bool { _, err := netip.ParsePrefix(strings.TrimSpace(r)); return err != nil })) {
		s.unserved = true
		s.note(at(0), migrate.Lost, "%s keep clients out, and not all of them can be carried over: nothing is written for the Service until they are mended", field)
		return
	}
	everybody := !s.denies && slices.Contains(networks, "0.0.0.0/0") && (!s.has(corev1.IPv6Protocol) || slices.Contains(networks, "::/0"))
	switch {
	case everybody:
		return
	case len(networks) > maxNetworks:
		s.note(at(maxNetworks), migrate.Lost, "%s has %d networks, and a BlixtPolicy has room for %d: merge networks that are side by side. Nobody else may connect", field, len(networks), maxNetworks)
		networks = networks[:maxNetworks]
	}
	if len(networks) == 0 && s.denies {
		return
	}
	sources := &v1alpha1.PolicySources{Allow: networks}
	if s.denies {
		sources = &v1alpha1.PolicySources{Deny: networks}
	}
	if len(networks) == 0 {
		// Who may connect is not known. Nobody, then: an address that no client can have.
		sources = &v1alpha1.PolicySources{Allow: []v1alpha1.Network{"192.0.2.0/32"}}
		s.note(at(0), migrate.Lost, "%s names no network that can be read, so nobody may connect: correct spec.sources of the BlixtPolicy", field)
	}
	s.policy.Sources = sources
	if s.has(corev1.IPv6Protocol) && !s.denies && !slices.ContainsFunc(networks, func(n string) bool { return strings.Contains(n, ":") }) {
		s.note(at(0), migrate.Changed, "%s has no IPv6 network: the BlixtPolicy refuses every IPv6 client", field)
	}
}

// maxNetworks is the limit of a BlixtPolicy.
const maxNetworks = 10000

// networks returns the networks that can be read, without bits behind their prefixes.
func (s *service) networks(field string, ranges []string, at func(int) migrate.Place) []v1alpha1.Network {
	var all []v1alpha1.Network
	seen := map[string]bool{}
	for i, text := range ranges {
		text = strings.TrimSpace(text)
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			s.note(at(i), migrate.Lost, "%s %q is no network such as 192.0.2.0/24: it is left out of the BlixtPolicy", field, text)
			continue
		}
		if prefix.Addr().Is4In6() {
			if prefix.Bits() < 96 {
				s.note(at(i), migrate.Lost, "%s %q is an IPv4 network written as IPv6: write it as IPv4", field, text)
				continue
			}
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
		}
		if network := prefix.Masked().String(); !seen[network] {
			seen[network] = true
			all = append(all, network)
		}
	}
	return all
}

// has reports whether the Service has addresses of a family.
func (s *service) has(f corev1.IPFamily) bool { return slices.Contains(s.obj.Spec.IPFamilies, f) }

// readAffinity makes a policy of sessionAffinity.
func (s *service) readAffinity() {
	switch kind := s.obj.Spec.SessionAffinity; kind {
	case "", corev1.ServiceAffinityNone:
		return
	case corev1.ServiceAffinityClientIP:
	default:
		s.note(s.At("spec", "sessionAffinity"), migrate.Lost, "sessionAffinity %q is not ClientIP or None", kind)
		return
	}
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := s.obj.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	if seconds < 10 || seconds > 86400 {
		s.note(s.At("spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"), migrate.Changed, "timeoutSeconds %d: a BlixtPolicy has 10s to 24h", seconds)
		seconds = min(max(seconds, 10), 86400)
	}
	s.policy.Affinity = s.affinity(time.Duration(seconds) * time.Second)
}

// affinity leads a client, by its whole address, to the same backend.
func (s *service) affinity(timeout time.Duration) *v1alpha1.PolicyAffinity {
	affinity := &v1alpha1.PolicyAffinity{Type: v1alpha1.AffinityClientAddress}
	if timeout > 0 {
		affinity.Timeout = &metav1.Duration{Duration: timeout}
	}
	if s.has(corev1.IPv6Protocol) {
		bits := int32(128)
		affinity.PrefixLength = &v1alpha1.PrefixLength{IPv6: &bits}
	}
	return affinity
}

// readOther notes all other fields that mean something to clients or load balancers.
func (s *service) readOther() {
	spec := &s.obj.Spec
	if spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && spec.Type == corev1.ServiceTypeLoadBalancer {
		s.note(s.At("spec", "externalTrafficPolicy"), migrate.Unneeded, "externalTrafficPolicy \"Local\" is kept, in a BlixtGatewayConfig. If it is there for the client's address alone, "+
			"leave it out: backends see their clients with Cluster, too, and get equal shares")
		if spec.HealthCheckNodePort != 0 {
			s.note(s.At("spec", "healthCheckNodePort"), migrate.Changed, "healthCheckNodePort %d: the Gateway's Service gets one of its own. A load balancer that is configured by hand must ask that",
				spec.HealthCheckNodePort)
		}
	}
	if p := spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		s.note(s.At("spec", "internalTrafficPolicy"), migrate.Unneeded, "internalTrafficPolicy \"Local\" is about the ClusterIP, which stays with the Service")
	}
	if a := spec.AllocateLoadBalancerNodePorts; a != nil && !*a {
		s.note(s.At("spec", "allocateLoadBalancerNodePorts"), migrate.Changed, "allocateLoadBalancerNodePorts \"false\": the Gateway's Service has node ports, unless its addresses come from source Pool or Node")
	}
	if c := spec.LoadBalancerClass; c != nil {
		s.readClass(*c)
	}
}

// readClass says who gives the Gateway's address.
func (s *service) readClass(class string) {
	at := s.At("spec", "loadBalancerClass")
	switch {
	case class == "io.cilium/node":
		s.note(at, migrate.Changed, "loadBalancerClass %q gives addresses of nodes: have the administrator set spec.addresses.source of the BlixtConfig to Node", class)
	case strings.HasPrefix(class, "loxilb.io/"):
		s.note(at, migrate.Changed, "loadBalancerClass %q: loxilb balances itself. So that only Blixt does, have the administrator give Gateways its addresses by source Pool: spec.addresses of the BlixtConfig", class)
	default:
		s.note(at, migrate.Changed, "loadBalancerClass %q belongs to the administrator: spec.addresses.loadBalancerClass of the BlixtConfig", class)
	}
}
