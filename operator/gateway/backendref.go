// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// maxWeight is Gateway API's limit.
const maxWeight = 1_000_000

// backends are what the backendRefs of a route refer to.
type backends struct {
	refs   []Ref
	reject uint64 // weight of the invalid references, as lb.Frontend.Reject
	fault  *fault // with the first reason and all messages
	faults []*fault
}

// serviceIndex finds Services by name.
type serviceIndex struct {
	byName map[types.NamespacedName]*corev1.Service
	// mayTell is true if everybody may know of all.
	mayTell bool
}

func newServiceIndex(services []corev1.Service) serviceIndex {
	index := serviceIndex{byName: make(map[types.NamespacedName]*corev1.Service, len(services))}
	for i := range services {
		index.byName[types.NamespacedName{Namespace: services[i].Namespace, Name: services[i].Name}] = &services[i]
	}
	return index
}

// elsewhere returns the words for Services of that name in other namespaces, unless
// that is none of the reader's business.
func (s serviceIndex) elsewhere(key types.NamespacedName) string {
	var names []string
	for other := range s.byName {
		if other.Name == key.Name {
			names = append(names, other.String())
		}
	}
	if names == nil || !s.mayTell {
		return ""
	}
	return ". There is " + phrase.Sample(names) + ": give the namespace, and let a ReferenceGrant there allow it"
}

func findBackends(r *route, services serviceIndex, grants []gwv1.ReferenceGrant) backends {
	var b backends
	for _, rule := range r.Rules {
		for i := range rule {
			weight := uint32(min(max(deref(rule[i].Weight, 1), 0), maxWeight))
			ref, fault := findBackend(r, &rule[i], services, grants)
			if fault == nil {
				ref.Weight = weight
				b.refs = append(b.refs, ref)
				continue
			}
			b.reject += uint64(weight) * lb.WeightUnit
			b.faults = append(b.faults, fault)
			if b.fault == nil {
				b.fault = faultf(fault.reason, "%s", fault.message)
			} else {
				b.fault.message += " " + fault.message
			}
		}
	}
	return b
}

// findBackend checks kind, permission, existence and protocol, in this order: a
// route that may not refer to a Service must not learn whether it exists.
func findBackend(r *route, ref *gwv1.BackendRef, services serviceIndex, grants []gwv1.ReferenceGrant) (Ref, *fault) {
	namespace := string(deref(ref.Namespace, gwv1.Namespace(r.Meta.Namespace)))
	if namespace == "" {
		namespace = r.Meta.Namespace
	}
	if group, kind := deref(ref.Group, ""), deref(ref.Kind, "Service"); group != "" || kind != "Service" {
		return Ref{}, faultf(gwv1.RouteReasonInvalidKind, "%s cannot be a backend: refer to a Service.",
			named(groupKind(group, kind), namespace, string(ref.Name)))
	}
	key := types.NamespacedName{Namespace: namespace, Name: string(ref.Name)}
	if namespace != r.Meta.Namespace && !granted(grants, r.Kind, r.Meta.Namespace, namespace, key.Name) {
		return Ref{}, faultf(gwv1.RouteReasonRefNotPermitted,
			"No ReferenceGrant in namespace %s lets a %s of namespace %s refer to Service %s: create one.",
			namespace, r.Kind, r.Meta.Namespace, key.Name)
	}
	service, cause := services.byName[key], named("Service", namespace, key.Name)
	switch {
	case service == nil:
		return Ref{}, faultf(gwv1.RouteReasonBackendNotFound, "Service %s does not exist: create it, or correct the name%s.", key, services.elsewhere(key)).because(cause)
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		return Ref{}, faultf(gwv1.RouteReasonBackendNotFound,
			"Service %s is of type ExternalName, which has no endpoints: use another type.", key).because(cause)
	case ref.Port == nil:
		return Ref{}, faultf(gwv1.RouteReasonBackendNotFound, "The reference to Service %s names no port: add one of the Service's%s.", key, ports(service))
	}
	port, fault := findPort(r, service, *ref.Port)
	if fault != nil {
		return Ref{}, fault.because(cause)
	}
	return Ref{Service: key, PortName: port.Name, Port: uint16(port.Port)}, nil
}

func findPort(r *route, service *corev1.Service, number int32) (*corev1.ServicePort, *fault) {
	var other corev1.Protocol
	for i := range service.Spec.Ports {
		port := &service.Spec.Ports[i]
		if port.Port != number {
			continue
		}
		protocol := port.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		if string(protocol) == r.Protocol.String() {
			return port, nil
		}
		other = protocol
	}
	name := service.Namespace + "/" + service.Name
	if other != "" {
		return nil, faultf(gwv1.RouteReasonUnsupportedProtocol, "Port %d of Service %s is %s, but a %s needs %s.",
			number, name, other, r.Kind, r.Protocol)
	}
	return nil, faultf(gwv1.RouteReasonBackendNotFound, "Service %s has no port %d%s.", name, number, ports(service))
}

// ports lists a Service's ports as a hint: a backendRef names the port of the
// Service, and it is easy to write the pod's port instead.
func ports(service *corev1.Service) string {
	var words []string
	for _, port := range service.Spec.Ports {
		words = append(words, fmt.Sprint(port.Port))
	}
	if len(words) == 0 {
		return ""
	}
	return " (it has " + phrase.Join(words) + ")"
}

func groupKind(group gwv1.Group, kind gwv1.Kind) string {
	if group == "" {
		return string(kind)
	}
	return string(kind) + "." + string(group)
}
