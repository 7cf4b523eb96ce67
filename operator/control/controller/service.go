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
	"k8s.io/apimachinery/pkg/api/equality"
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
	// annotationMetalLB asks MetalLB for addresses. Other load balancers read
	// spec.loadBalancerIP, which holds one address.
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
		if len(p.WantAddresses) > 0 {
			s.Spec.LoadBalancerIP = p.WantAddresses[0].String()
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

// applyServices makes the Services of all Gateways what their specs say, and
// removes those that no Gateway has. What it writes is entered into the snapshot.
// Returns the statuses of the Services whose addresses Blixt gives.
func (p *publisher) applyServices(ctx context.Context, t *translated) ([]wantedStatus, error) {
	var statuses []wantedStatus
	var failed errorList
	for i := range t.Gateways {
		g := &t.Gateways[i]
		gw := t.gateways[g.NamespacedName]
		if g.Service == nil { // it was never valid, or is not allowed any more: its Service stays as it is
			continue
		}
		want := service(gw, g.Service, t.LastGood.Gateways[g.NamespacedName])
		key := client.ObjectKeyFromObject(want)
		stored := t.services[key]
		switch {
		case len(want.Spec.Ports) == 0: // it keeps the address that a load balancer has given
			if g.Service.Source != v1alpha1.SourceLoadBalancer && stored != nil && metav1.IsControlledBy(stored, gw) {
				statuses = append(statuses, wantedStatus{object: stored, change: serviceStatus(g)}) // or kube-proxy would go on with ports of before
			}
			continue
		case stored != nil && !metav1.IsControlledBy(stored, gw):
			failed.add(notOurs(stored))
			continue
		case stored != nil && !equality.Semantic.DeepEqual(stored.Spec.LoadBalancerClass, want.Spec.LoadBalancerClass):
			failed.add(p.remove(ctx, stored)) // the field cannot be changed
			continue
		}
		stored, err := p.applyService(ctx, want, stored)
		if err != nil {
			failed.add(client.IgnoreNotFound(err))
			continue
		}
		t.services[key] = stored
		if g.Service.Source != v1alpha1.SourceLoadBalancer {
			statuses = append(statuses, wantedStatus{object: stored, change: serviceStatus(g)})
		}
	}
	for _, stored := range t.services {
		if t.isLeft(stored) {
			failed.add(p.removeLeft(ctx, stored))
		}
	}
	return statuses, failed.err()
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
// than the cache, says that the operator did not make it, or that the Gateway exists
// and is as it was. Everybody who may write a Service can give it labels and owners,
// and must not have the operator delete what he may not delete.
func (p *publisher) removeLeft(ctx context.Context, cached *corev1.Service) error {
	key := client.ObjectKeyFromObject(cached)
	stored, gw := &corev1.Service{}, &gwv1.Gateway{}
	if err := p.direct.Get(ctx, key, stored); err != nil {
		return client.IgnoreNotFound(err)
	}
	if stored.UID != cached.UID || !madeByUs(stored) {
		return nil
	}
	owner := metav1.GetControllerOf(cached)
	err := p.direct.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: owner.Name}, gw)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("get Gateway of %s: %w", kube.NameOf(stored), err)
	}
	if err == nil && gw.UID == owner.UID {
		class := &gwv1.GatewayClass{}
		if err := p.direct.Get(ctx, types.NamespacedName{Name: string(gw.Spec.GatewayClassName)}, class); err != nil {
			return client.IgnoreNotFound(err)
		}
		if class.Spec.ControllerName == gateway.ControllerName {
			return nil
		}
	}
	return p.remove(ctx, stored)
}

// madeByUs reports whether the operator has applied an object, read past the cache.
func madeByUs(object client.Object) bool {
	return slices.ContainsFunc(object.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == fieldManager && m.Operation == metav1.ManagedFieldsOperationApply
	})
}

// applyService returns the Service as it is then, which the cache may not have yet.
func (p *publisher) applyService(ctx context.Context, want, stored *corev1.Service) (*corev1.Service, error) {
	var cached client.Object // nil, unlike a nil *Service in it
	if stored != nil {
		cached = stored
	}
	wrote, err := p.apply(ctx, want, cached)
	if err != nil || !wrote {
		return stored, err
	}
	stored = &corev1.Service{}
	return stored, p.direct.Get(ctx, client.ObjectKeyFromObject(want), stored)
}

// notOurs is the error for a Gateway whose Service's name is taken.
func notOurs(s *corev1.Service) error {
	return fmt.Errorf("Service %s/%s exists already and is not this Gateway's: rename one of them", s.Namespace, s.Name) //nolint:staticcheck // the name of a kind
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
