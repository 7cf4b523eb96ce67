// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

const (
	// loadBalancerClass keeps the cluster's load balancer from Services whose address
	// comes from elsewhere.
	loadBalancerClass = string(gateway.ControllerName)
	// servicePrefix begins the names of Services of Gateways.
	servicePrefix = "blixt-"
	// annotationMetalLB asks MetalLB for several addresses. It also reads what other load
	// balancers read: spec.loadBalancerIP, which holds one.
	annotationMetalLB = "metallb.io/loadBalancerIPs"
)

// service returns the Service of a Gateway. It gets an address from the cluster's
// load balancer, or shows the one that Blixt gave.
func service(gw *gwv1.Gateway, p *gateway.ServiceSpec, good gateway.Parameters) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: gw.Namespace, Name: serviceName(gw.Name),
		Labels: maps.Clone(p.Labels), Annotations: maps.Clone(p.Annotations),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(gw, schema.GroupVersionKind{Group: gwv1.GroupName, Version: "v1", Kind: "Gateway"})},
	}}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	s.Labels[v1alpha1.ManagedByLabel] = v1alpha1.Manager
	s.Labels[gwv1.GatewayNameLabelKey] = labelValue(gw.Name)
	s.Labels[gwv1.GatewayClassNameLabelKey] = labelValue(string(gw.Spec.GatewayClassName))
	if p.PodTraffic != v1alpha1.PodTrafficKubeProxy {
		s.Labels[v1alpha1.ServiceProxyLabel] = "blixt" // or else kube-proxy would serve it, and hide that Blixt does not
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[v1alpha1.PodTrafficAnnotation] = string(p.PodTraffic)
	text, err := json.Marshal(good)
	if err != nil { // plain data
		panic(err)
	}
	s.Annotations[v1alpha1.LastGoodAnnotation] = string(text)
	dual, no := corev1.IPFamilyPolicyPreferDualStack, false
	s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilyPolicy: &dual}
	if p.Source == v1alpha1.SourceLoadBalancer {
		s.Spec.LoadBalancerClass = p.LoadBalancerClass
		switch len(p.WantAddresses) { // MetalLB refuses a Service that asks in both ways
		case 0:
		case 1:
			s.Spec.LoadBalancerIP = p.WantAddresses[0].String()
		default:
			s.Annotations[annotationMetalLB] = joinAddresses(p.WantAddresses)
		}
		if p.TrafficPolicy == v1alpha1.TrafficPolicyLocal { // so that only nodes with backends get traffic
			s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}
	} else {
		class := loadBalancerClass
		s.Spec.LoadBalancerClass = &class
		s.Spec.AllocateLoadBalancerNodePorts = &no
	}
	for _, port := range p.Ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
			Name: port.Name, Protocol: corev1.Protocol(port.Protocol.String()), Port: int32(port.Port.Port),
			TargetPort: intstr.FromInt32(int32(port.Port.Port)), // unused: there is no selector
		})
	}
	return s
}

// serviceName returns the name of a Gateway's Service. It is a DNS label of at most
// 63 characters; the name of a Gateway is a domain name.
func serviceName(gatewayName string) string {
	name := servicePrefix + strings.ReplaceAll(gatewayName, ".", "-")
	if len(name) <= 63 && !strings.Contains(gatewayName, ".") {
		return name
	}
	return name[:min(len(name), 54)] + "-" + shortHash(gatewayName)
}

// labelValue shortens a name to what a label may have as its value.
func labelValue(name string) string {
	if len(name) <= 63 {
		return name
	}
	return name[:54] + "-" + shortHash(name)
}

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

func joinAddresses(addresses []netip.Addr) string {
	words := make([]string, len(addresses))
	for i, a := range addresses {
		words[i] = a.String()
	}
	return strings.Join(words, ",")
}

// serviceKey returns the name of a Gateway's Service.
func serviceKey(gateway types.NamespacedName) types.NamespacedName {
	return types.NamespacedName{Namespace: gateway.Namespace, Name: serviceName(gateway.Name)}
}

// serviceStatuses returns the statuses of the Services whose addresses Blixt gives.
func (t *translated) serviceStatuses() []wantedStatus {
	var all []wantedStatus
	for i := range t.Gateways {
		g := &t.Gateways[i]
		stored := t.serviceOf(g.NamespacedName)
		if g.Service == nil || g.Service.Source == v1alpha1.SourceLoadBalancer || stored == nil ||
			!metav1.IsControlledBy(stored, t.gateways[g.NamespacedName]) || stored.Spec.LoadBalancerClass == nil || *stored.Spec.LoadBalancerClass != loadBalancerClass {
			continue
		}
		if len(g.Service.Ports) > 0 {
			all = append(all, wantedStatus{object: stored, change: serviceStatus(g)})
		} else if g.Service.Source == v1alpha1.SourceNode { // or kube-proxy would go on to take the ports of before from the nodes
			all = append(all, wantedStatus{object: stored, change: serviceStatus(&gateway.GatewayStatus{Service: g.Service})})
		}
	}
	return all
}

// isLeft reports whether a Service is of a Gateway that is gone, or has gone to
// another controller. Nothing else takes the address that the Service holds: no
// Gateway or class that is invalid, and none that cannot be read.
func (t *translated) isLeft(s *corev1.Service) bool {
	owner := metav1.GetControllerOf(s)
	if !v1alpha1.Managed(s) || owner == nil || !isGateway(owner) || s.Name != serviceName(owner.Name) || !t.kinds.has(&gwv1.Gateway{}) {
		return false
	}
	gw := t.gateways[types.NamespacedName{Namespace: s.Namespace, Name: owner.Name}]
	if gw == nil || gw.UID != owner.UID {
		return true
	}
	class := kube.Named(t.objects.GatewayClasses, string(gw.Spec.GatewayClassName))
	return class != nil && class.Spec.ControllerName != gateway.ControllerName
}

func isGateway(owner *metav1.OwnerReference) bool {
	group, err := schema.ParseGroupVersion(owner.APIVersion)
	return err == nil && group.Group == gwv1.GroupName && owner.Kind == "Gateway"
}

// removeLeft deletes a Service that is left, unless the API server, which knows more
// than the cache, says that the Gateway exists and is as it was.
func (a *api) removeLeft(ctx context.Context, s *corev1.Service) error {
	owner, gw := metav1.GetControllerOf(s), &gwv1.Gateway{}
	err := a.direct.Get(ctx, types.NamespacedName{Namespace: s.Namespace, Name: owner.Name}, gw)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("get Gateway of %s: %w", kube.NameOf(s), err)
	}
	if err == nil && gw.UID == owner.UID {
		class := &gwv1.GatewayClass{}
		if err := a.direct.Get(ctx, types.NamespacedName{Name: string(gw.Spec.GatewayClassName)}, class); err != nil || class.Spec.ControllerName == gateway.ControllerName {
			return client.IgnoreNotFound(err)
		}
	}
	return a.removeOurs(ctx, s)
}

// removeOurs deletes a Service, unless the API server says that the operator did not
// make it. Everybody who may write a Service can give it labels and owners, and must
// not have the operator delete what he may not delete.
func (a *api) removeOurs(ctx context.Context, cached *corev1.Service) error {
	stored := &corev1.Service{}
	if err := a.direct.Get(ctx, client.ObjectKeyFromObject(cached), stored); err != nil {
		return client.IgnoreNotFound(err)
	}
	made := slices.ContainsFunc(stored.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == fieldManager && m.Operation == metav1.ManagedFieldsOperationApply
	})
	if stored.UID != cached.UID || !made {
		return nil
	}
	return a.remove(ctx, stored)
}

// notOurs is the problem of a Gateway whose Service's name is taken.
func notOurs(s *corev1.Service) string {
	return fmt.Sprintf("Service %s/%s exists already and is not this Gateway's: rename one of them", s.Namespace, s.Name)
}

// serviceStatus shows the addresses that we gave, where people and kube-proxy look
// for them. The mode of addresses of nodes is Proxy, even though the Service's label
// tells kube-proxy to ignore it: one in mode ipvs that reads it nevertheless would
// have each node take the addresses of all nodes.
func serviceStatus(g *gateway.GatewayStatus) statusChange {
	mode := corev1.LoadBalancerIPModeVIP
	if g.Service.Source == v1alpha1.SourceNode && g.Service.PodTraffic != v1alpha1.PodTrafficKubeProxy {
		mode = corev1.LoadBalancerIPModeProxy
	}
	var ingress []corev1.LoadBalancerIngress
	for _, a := range g.Status.Addresses {
		if _, err := netip.ParseAddr(a.Value); err == nil {
			ingress = append(ingress, corev1.LoadBalancerIngress{IP: a.Value, IPMode: &mode})
		}
	}
	return func(object client.Object, _ metav1.Time) {
		object.(*corev1.Service).Status.LoadBalancer.Ingress = ingress
	}
}

// assigned returns what the cluster gave the Service of a Gateway.
func assigned(s *corev1.Service) gateway.Assigned {
	a := gateway.Assigned{NodePorts: map[gateway.Port]uint16{}}
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		if addr, err := netip.ParseAddr(ingress.IP); err == nil {
			a.Addresses = append(a.Addresses, addr.Unmap())
		}
		if ingress.Hostname != "" {
			a.Hostnames = append(a.Hostnames, ingress.Hostname)
		}
	}
	for _, port := range s.Spec.Ports {
		if port.NodePort != 0 {
			a.NodePorts[gateway.Port{Protocol: protocol(port.Protocol), Port: uint16(port.Port)}] = uint16(port.NodePort)
		}
	}
	return a
}

// complaint returns the newest warning about a Service, such as why the cluster's
// load balancer gives it no address; "": there is none.
func complaint(s *corev1.Service, warnings []corev1.Event) string {
	var newest *corev1.Event
	for i := range warnings {
		if e := &warnings[i]; e.InvolvedObject.UID == s.UID && (newest == nil || lastSeen(newest).Before(lastSeen(e))) {
			newest = e
		}
	}
	if newest == nil {
		return ""
	}
	return newest.Reason + ": " + newest.Message
}

// lastSeen returns when an event was last emitted, which two kinds of events have in
// different fields.
func lastSeen(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}
