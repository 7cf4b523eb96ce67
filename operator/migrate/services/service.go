// SPDX-License-Identifier: Apache-2.0

package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/objects"
)

// service is a Service with what it becomes.
type service struct {
	*objects.Object
	obj   corev1.Service
	notes []migrate.Note

	// addresses are those that it asks for.
	addresses []netip.Addr
	// sharing is the key by which Services share an address, and sharedBy the annotation that
	// has it; "": it has an address of its own.
	sharing, sharedBy string
	// annotations and labels are for the Gateway's Service.
	annotations, labels map[string]string
	// policy holds for all ports, health for those of TCP or UDP that it can check.
	policy v1alpha1.BlixtPolicySpec
	health *v1alpha1.ActiveHealth
	// denies is true if loadBalancerSourceRanges are those who may not connect.
	denies bool
	// unserved is true if those who may not connect are not all known.
	unserved bool
	// stays is true if the Service goes on to serve: its address is its own.
	stays bool
	// balances is how connections were distributed, if an annotation says so.
	balances string
}

// port is a port that can be served.
type port struct {
	index    int // in spec.ports
	protocol corev1.Protocol
	number   uint16
	name     string
}

// String returns protocol and number.
func (p port) String() string { return fmt.Sprintf("%s/%d", p.protocol, p.number) }

// note adds a note about the Service.
func (s *service) note(at migrate.Place, effect migrate.Effect, format string, args ...any) {
	s.notes = append(s.notes, migrate.Note{Place: at, Effect: effect, Text: s.String() + ": " + fmt.Sprintf(format, args...)})
}

// at returns the place of an annotation.
func (s *service) at(annotation string) migrate.Place {
	return s.At("metadata", "annotations", annotation)
}

// read finds out what the Service asks for.
func (s *service) read(selecting []string) {
	for _, key := range selecting {
		if value, is := s.obj.Labels[key]; is {
			s.labels[key] = value
		}
	}
	s.readAnnotations()
	s.readAddresses()
	s.readPorts()
	s.readSources()
	s.readAffinity()
	s.readOther()
}

// served returns the ports that Blixt can serve.
func (s *service) served() []port {
	var all []port
	for i, p := range s.obj.Spec.Ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		found := port{i, protocol, uint16(p.Port), p.Name}
		again := slices.ContainsFunc(all, func(o port) bool { return o.String() == found.String() })
		if (protocol == corev1.ProtocolTCP || protocol == corev1.ProtocolUDP) && p.Port >= 1 && p.Port <= 65535 && !again {
			all = append(all, found)
		}
	}
	return all
}

// frontendName returns the name of a port's objects.
func (s *service) frontendName(p port) string {
	switch {
	case len(s.obj.Spec.Ports) == 1:
		return s.Name
	case p.name != "":
		return s.Name + "-" + p.name
	}
	return fmt.Sprintf("%s-%s-%d", s.Name, strings.ToLower(string(p.protocol)), p.number)
}

// policyOf returns what holds for a port.
func (s *service) policyOf(p port) *v1alpha1.BlixtPolicySpec {
	policy := s.policy.DeepCopy()
	if s.health != nil && (s.health.Type == v1alpha1.CheckUDP) == (p.protocol == corev1.ProtocolUDP) {
		policy.Health = &v1alpha1.PolicyHealth{Active: s.health.DeepCopy()}
	}
	if policy.IdleTimeout != nil {
		if p.protocol == corev1.ProtocolTCP {
			policy.IdleTimeout.UDP = nil
		} else {
			policy.IdleTimeout.TCP = nil
		}
	}
	return policy
}

// was says how connections were distributed.
func (s *service) was() string {
	words := []string{"equal shares"}
	if s.balances != "" {
		words[0] = s.balances
	}
	if s.obj.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		words = append(words, "sessionAffinity ClientIP")
	}
	if s.obj.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		words = append(words, "externalTrafficPolicy Local")
	}
	return strings.Join(words, ", ")
}

// want adds addresses that a field asks for, as a list with commas. It returns false if some
// of them are none.
func (s *service) want(at migrate.Place, field, value string) {
	if s.stays {
		return
	}
	for _, text := range strings.Split(value, ",") {
		addr, why := usable(text)
		switch {
		case why != "":
			s.note(at, migrate.Lost, "%s %q: %s. Name an address in spec.addresses of the Gateway, or none, to get one assigned", field, value, why)
		case !slices.Contains(s.addresses, addr):
			s.addresses = append(s.addresses, addr)
		}
	}
}

// usable returns an address, and why it is none at which something can be served.
func usable(text string) (netip.Addr, string) {
	addr, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil {
		return addr, fmt.Sprintf("%q is no IP address", text)
	}
	addr = addr.Unmap()
	return addr, gateway.InvalidAddress(addr)
}

// held returns the addresses that the Service has.
func (s *service) held() []netip.Addr {
	var all []netip.Addr
	for _, ingress := range s.obj.Status.LoadBalancer.Ingress {
		if addr, why := usable(ingress.IP); why == "" {
			all = append(all, addr)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// externalIPs returns spec.externalIPs that can be served.
func (s *service) externalIPs() []netip.Addr {
	var all []netip.Addr
	for _, text := range s.obj.Spec.ExternalIPs {
		if addr, why := usable(text); why == "" && !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all
}
