// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
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
)

const (
	// loadBalancerClass has the cluster's load balancer leave a Service alone,
	// whose address comes from elsewhere.
	loadBalancerClass = string(gateway.ControllerName)
	// servicePrefix begins the names of Services of Gateways.
	servicePrefix = "blixt-"
	// annotationMetalLB asks MetalLB for addresses; others read
	// spec.loadBalancerIP, which has place for one.
	annotationMetalLB = "metallb.io/loadBalancerIPs"
)

// service is the Service of a Gateway: it gets an address from the cluster's
// load balancer, or shows the one that we gave.
func service(gw *gwv1.Gateway, p *gateway.ServiceSpec) *corev1.Service {
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
		s.Labels[v1alpha1.ServiceProxyLabel] = "blixt" // or kube-proxy's success would hide our failure
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[v1alpha1.PodTrafficAnnotation] = string(p.PodTraffic)
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
			TargetPort: intstr.FromInt32(int32(port.Port.Port)), // means nothing: there is no selector
		})
	}
	return s
}

// serviceName makes a name that a Service may have, which is a DNS label of at
// most 63 characters, of a Gateway's, which is a domain name.
func serviceName(gatewayName string) string {
	name := servicePrefix + strings.ReplaceAll(gatewayName, ".", "-")
	if len(name) <= 63 && !strings.Contains(gatewayName, ".") {
		return name
	}
	return name[:min(len(name), 54)] + "-" + shortHash(gatewayName)
}

// labelValue makes of a name what a label may have as its value.
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

// applyServices makes the Services of all Gateways what their plans say, and
// removes those that no plan asks for.
func (c *Controller) applyServices(ctx context.Context) error {
	wanted := map[types.NamespacedName]bool{}
	var failed errorList
	for i := range c.translation.Gateways {
		g := &c.translation.Gateways[i]
		if g.Service == nil {
			continue
		}
		gw := c.world.gateways[g.NamespacedName]
		want := service(gw, g.Service)
		key := client.ObjectKeyFromObject(want)
		wanted[key] = true
		stored := c.world.services[key]
		switch {
		case len(want.Spec.Ports) == 0: // it keeps the address that it has
			continue
		case stored != nil && !metav1.IsControlledBy(stored, gw):
			failed.add(notOurs(stored))
			continue
		case stored != nil && text(stored.Spec.LoadBalancerClass) != text(want.Spec.LoadBalancerClass):
			failed.add(c.remove(ctx, stored)) // the field cannot be changed
			continue
		}
		var before client.Object
		if stored != nil {
			before = stored
		}
		wrote, err := c.apply(ctx, want, before)
		if wrote { // its event is no news: this pass goes on with what it is now
			stored = &corev1.Service{}
			if err = c.reader.Get(ctx, key, stored); err == nil {
				c.world.services[key] = stored
			}
		}
		if err != nil {
			failed.add(client.IgnoreNotFound(err))
			continue
		}
		if g.Service.Source != v1alpha1.SourceLoadBalancer {
			failed.add(c.writeServiceStatus(ctx, stored, g))
		}
	}
	for key, stored := range c.world.services {
		if v1alpha1.Managed(stored) && stored.Labels[gwv1.GatewayNameLabelKey] != "" && !wanted[key] {
			failed.add(c.remove(ctx, stored))
		}
	}
	return failed.err()
}

// notOurs is what keeps a Gateway from having a Service.
func notOurs(s *corev1.Service) error {
	return fmt.Errorf("Service %s/%s exists already and is not this Gateway's: rename one of them", s.Namespace, s.Name) //nolint:staticcheck // the name of a kind
}

// writeServiceStatus shows the addresses that we gave, where people and
// kube-proxy look for them. Those of nodes stay the nodes' even for one that
// reads the Service though its label tells it not to: in mode ipvs, each node
// would take all of them for its own.
func (c *Controller) writeServiceStatus(ctx context.Context, stored *corev1.Service, g *gateway.GatewayStatus) error {
	return c.patchStatus(ctx, stored, func(o client.Object) {
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
		o.(*corev1.Service).Status.LoadBalancer.Ingress = ingress
	})
}

// assigned is what the cluster gave the Service of a Gateway.
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

// complaint is what the newest warning about a Service says, or "": why the
// cluster's load balancer gives it no address, for one.
func complaint(s *corev1.Service, warnings []corev1.Event) string {
	var newest *corev1.Event
	for i := range warnings {
		if e := &warnings[i]; e.InvolvedObject.UID == s.UID && (newest == nil || said(newest).Before(said(e))) {
			newest = e
		}
	}
	if newest == nil {
		return ""
	}
	return newest.Reason + ": " + newest.Message
}

// said is when an event was told last, of which there are two kinds.
func said(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}

// text is that of an optional field.
func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
