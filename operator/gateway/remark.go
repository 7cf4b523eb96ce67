// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Remarks returns what is valid and has no effect, or not the one that people expect.
// Without Kubernetes nobody else would tell. t is the translation of the objects.
func (t *Translation) Remarks(objs *Objects, endpointSlices []discoveryv1.EndpointSlice) []Problem {
	var all []Problem
	remark := func(object, format string, args ...any) {
		all = append(all, Problem{Object: object, Message: fmt.Sprintf(format, args...)})
	}
	users := map[types.NamespacedName]bool{}
	for _, r := range sortedRoutes(objs) {
		var weight int64
		refs := 0
		for _, rule := range r.Rules {
			for _, ref := range rule {
				refs++
				weight += int64(deref(ref.Weight, 1))
				namespace := string(deref(ref.Namespace, ""))
				if namespace == "" {
					namespace = r.Meta.Namespace
				}
				users[types.NamespacedName{Namespace: namespace, Name: string(ref.Name)}] = true
			}
		}
		if refs > 0 && weight == 0 {
			remark(r.name(), "Every backendRef has weight 0: all its connections are refused.")
		}
	}
	of := map[types.NamespacedName][]*discoveryv1.EndpointSlice{}
	for i := range endpointSlices {
		s := &endpointSlices[i]
		service := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
		of[service] = append(of[service], s)
		if further := furtherAddresses(s); further != nil {
			remark(named("EndpointSlice", s.Namespace, s.Name),
				"Not used: %s. All addresses of an endpoint mean the same server, and the first is used: give each server an endpoint of its own.", phrase.Sample(further))
		}
	}
	for i := range objs.Services {
		s := &objs.Services[i]
		key, name := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, named("Service", s.Namespace, s.Name)
		if !users[key] {
			remark(name, "It is not used: no TCPRoute or UDPRoute names it in backendRefs.")
		}
		if ignored := ignoredFields(&s.Spec); ignored != nil {
			remark(name, "Ignored: %s.", strings.Join(ignored, "; "))
		}
		for _, p := range s.Spec.Ports {
			if numbers := portNumbers(of[key], p); p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal != 0 && len(numbers) > 0 && !slices.Contains(numbers, fmt.Sprint(p.TargetPort.IntVal)) {
				remark(name, "Port %d has targetPort %d, which none of its EndpointSlices has: connections go to %s, as these say.",
					p.Port, p.TargetPort.IntVal, phrase.Join(numbers))
			}
		}
	}
	return all
}

// furtherAddresses returns those that are not the first of their endpoint.
func furtherAddresses(s *discoveryv1.EndpointSlice) []string {
	var all []string
	for _, e := range s.Endpoints {
		if len(e.Addresses) > 1 {
			all = append(all, e.Addresses[1:]...)
		}
	}
	return all
}

// portNumbers returns those that EndpointSlices have for a Service's port.
func portNumbers(endpointSlices []*discoveryv1.EndpointSlice, of corev1.ServicePort) []string {
	var numbers []string
	protocol := of.Protocol
	if protocol == "" {
		protocol = corev1.ProtocolTCP
	}
	for _, s := range endpointSlices {
		for _, p := range s.Ports {
			number := fmt.Sprint(deref(p.Port, 0))
			if deref(p.Name, "") == of.Name && deref(p.Protocol, corev1.ProtocolTCP) == protocol && p.Port != nil && !slices.Contains(numbers, number) {
				numbers = append(numbers, number)
			}
		}
	}
	return numbers
}

// ignoredFields names the fields of a Service that others act upon, and what to do
// instead.
func ignoredFields(s *corev1.ServiceSpec) []string {
	var all []string
	if s.SessionAffinity == corev1.ServiceAffinityClientIP {
		all = append(all, "sessionAffinity ClientIP: connections of one client go to several endpoints")
	}
	if s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		all = append(all, "externalTrafficPolicy Local: set it in a BlixtGatewayConfig of the Gateway")
	}
	if s.TrafficDistribution != nil {
		all = append(all, "trafficDistribution "+*s.TrafficDistribution+": give the endpoints hints")
	}
	if len(s.LoadBalancerSourceRanges) > 0 {
		all = append(all, "loadBalancerSourceRanges: everybody may connect; limit that by a firewall in front of this host")
	}
	if s.LoadBalancerIP != "" {
		all = append(all, "loadBalancerIP: name the address in spec.addresses of a Gateway")
	}
	if len(s.ExternalIPs) > 0 {
		all = append(all, "externalIPs: name the addresses in spec.addresses of a Gateway")
	}
	if s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer {
		all = append(all, fmt.Sprintf("type %s: only listeners of Gateways open ports", s.Type))
	}
	return all
}

// NetworkRemarks returns which addresses of Gateways mean a whole network, of the
// networks that the host is in.
func (t *Translation) NetworkRemarks(networks []netip.Prefix) []Problem {
	var all []Problem
	for _, g := range t.Gateways {
		for _, a := range g.Status.Addresses {
			addr, err := netip.ParseAddr(a.Value)
			if err != nil {
				continue
			}
			for _, network := range networks {
				what := ""
				switch {
				case !network.Contains(addr) || network.Bits() > addr.BitLen()-2: // RFC 3021, RFC 6164
				case addr == network.Masked().Addr() && addr.Is6():
					what = "the subnet-router anycast address"
				case addr == network.Masked().Addr():
					what = "the network address"
				case addr.Is4() && !network.Contains(addr.Next()):
					what = "the broadcast address"
				}
				if what != "" {
					all = append(all, Problem{Object: named("Gateway", g.Namespace, g.Name), Message: fmt.Sprintf(
						"Address %s is %s of %s: hosts in that network cannot connect to it. Use another one.", addr, what, network.Masked())})
					break
				}
			}
		}
	}
	return all
}
