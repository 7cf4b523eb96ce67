// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// maxMirrored and maxMirroredPorts are how many endpoints and ports the API server
// accepts in an EndpointSlice.
const (
	maxMirrored      = 1000
	maxMirroredPorts = 100
)

// mirrorKey identifies the ports of a Service that lead to the same endpoints. They
// share slices: with slices of their own, a Gateway of many listeners would have
// hundreds.
type mirrorKey struct {
	service  types.NamespacedName
	portName string
	protocol lb.Protocol
	family   discoveryv1.AddressType
	// block is the port divided by maxMirroredPorts, so that no port moves to another
	// slice when a port comes or goes.
	block int32
}

// mirroredAnnotation names the Service whose endpoints a slice shows.
const mirroredAnnotation = "blixt.x-k8s.io/mirrored-service"

// mirror returns the slices by which the Service of a Gateway shows the backends of
// its frontends: those of some Services or, with nil, of all. Load balancers announce
// addresses only for Services with ready endpoints, under policy Local only from the
// nodes of the endpoints. kube-proxy balances to them where the administrator lets it
// serve pods.
func mirror(s *corev1.Service, frontends []*gateway.Frontend, e *endpointStore, some map[types.NamespacedName]bool) []*discoveryv1.EndpointSlice {
	ports := map[mirrorKey][]*corev1.ServicePort{}
	for _, f := range frontends {
		j := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
			return protocol(p.Protocol) == f.Protocol && uint16(p.Port) == f.Port
		})
		if j < 0 { // a node port
			continue
		}
		port, family := &s.Spec.Ports[j], discoveryv1.AddressTypeIPv4
		if f.Addr.Is6() {
			family = discoveryv1.AddressTypeIPv6
		}
		for _, ref := range f.Refs {
			if some != nil && !some[ref.Service] {
				continue
			}
			key := mirrorKey{ref.Service, ref.PortName, f.Protocol, family, port.Port / maxMirroredPorts}
			if !slices.Contains(ports[key], port) { // as of another address
				ports[key] = append(ports[key], port)
			}
		}
	}
	var all []*discoveryv1.EndpointSlice
	for key, ports := range ports {
		slices.SortFunc(ports, func(a, b *corev1.ServicePort) int { return cmp.Compare(a.Port, b.Port) })
		endpoints, _ := e.get(key.service)
		all = append(all, mirrorPorts(s, key, ports, endpoints)...)
	}
	return all
}

// mirrorPorts returns the slices of ports that lead to the same endpoints.
func mirrorPorts(s *corev1.Service, key mirrorKey, ports []*corev1.ServicePort, e gateway.ServiceEndpoints) []*discoveryv1.EndpointSlice {
	byNumber := map[uint16][]discoveryv1.Endpoint{}
	for _, p := range e.Ports {
		if p.Name != key.portName || p.Protocol != key.protocol {
			continue
		}
		for _, ep := range p.Endpoints {
			if ep.Addr.Addr().Is6() == (key.family == discoveryv1.AddressTypeIPv6) {
				byNumber[ep.Addr.Port()] = append(byNumber[ep.Addr.Port()], mirrored(ep))
			}
		}
	}
	var made []*discoveryv1.EndpointSlice
	for number, found := range byNumber {
		n := 0
		for chunk := range slices.Chunk(found, maxMirrored) {
			slice := &discoveryv1.EndpointSlice{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: s.Namespace,
					Name:      fmt.Sprintf("%s-%s", s.Name[:min(len(s.Name), 200)], shortHash(fmt.Sprint(key, number, n))),
					Labels: map[string]string{
						discoveryv1.LabelServiceName: s.Name, discoveryv1.LabelManagedBy: v1alpha1.Manager, v1alpha1.ManagedByLabel: v1alpha1.Manager,
					},
					Annotations:     map[string]string{mirroredAnnotation: key.service.String()},
					OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s, corev1.SchemeGroupVersion.WithKind("Service"))},
				},
				AddressType: key.family,
				Endpoints:   chunk,
			}
			for _, port := range ports {
				slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &port.Name, Protocol: &port.Protocol, Port: new(int32(number))})
			}
			made = append(made, slice)
			n++
		}
	}
	return made
}

func mirrored(ep gateway.Endpoint) discoveryv1.Endpoint {
	out := discoveryv1.Endpoint{
		Addresses: []string{ep.Addr.Addr().String()},
		Conditions: discoveryv1.EndpointConditions{
			Ready: new(ep.State == gateway.Ready), Serving: new(ep.State >= gateway.Leaving), Terminating: new(ep.State == gateway.Leaving),
		},
	}
	if ep.Node != "" {
		out.NodeName = &ep.Node
	}
	return out
}

func protocol(p corev1.Protocol) lb.Protocol {
	if p == corev1.ProtocolUDP {
		return lb.UDP
	}
	return lb.TCP
}
