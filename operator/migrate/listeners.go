// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// maxListeners is how many Gateway API allows in a Gateway, and in a ListenerSet.
const maxListeners = 64

// sharedGateway is a Gateway, to which listeners are added.
type sharedGateway struct {
	*gwv1.Gateway
	// last is the ListenerSet that has room; nil: there is none.
	last *gwv1.ListenerSet
	sets int
}

// listener adds a listener for the frontend, with its Gateway or its ListenerSet if need be,
// and returns it as a route names it.
func (b *builder) listener(f *Frontend, name string) gwv1.ParentReference {
	g := b.gateway(f, name)
	b.gatewayOf[f.index] = g.Namespace + "/" + g.Name
	l := gwv1.Listener{
		Name:     gwv1.SectionName(fmt.Sprintf("%s-%d", strings.ToLower(string(f.Protocol)), f.Port)),
		Protocol: gwv1.ProtocolType(f.Protocol),
		Port:     gwv1.PortNumber(f.Port),
	}
	parent := gwv1.ParentReference{Name: gwv1.ObjectName(g.Name), SectionName: &l.Name}
	if namespace := f.routeNamespace(); namespace != f.Namespace {
		l.AllowedRoutes = routesOf(namespace)
		own := gwv1.Namespace(f.Namespace)
		parent.Namespace = &own
	}
	if len(g.Spec.Listeners) < maxListeners {
		g.Spec.Listeners = append(g.Spec.Listeners, l)
		return parent
	}
	if g.last == nil || len(g.last.Spec.Listeners) == maxListeners {
		b.listenerSet(f, g)
	}
	g.last.Spec.Listeners = append(g.last.Spec.Listeners, gwv1.ListenerEntry{Name: l.Name, Protocol: l.Protocol, Port: l.Port, AllowedRoutes: l.AllowedRoutes})
	group, kind := gwv1.Group(gwv1.GroupName), gwv1.Kind("ListenerSet")
	parent.Group, parent.Kind, parent.Name = &group, &kind, gwv1.ObjectName(g.last.Name)
	return parent
}

// routeNamespace is that of the frontend's route and policy.
func (f *Frontend) routeNamespace() string {
	if len(f.Services) > 0 && f.Services[0].Namespace != "" {
		return f.Services[0].Namespace
	}
	return f.Namespace
}

// routesOf allows routes of one namespace.
func routesOf(namespace string) *gwv1.AllowedRoutes {
	from := gwv1.NamespacesFromSelector
	return &gwv1.AllowedRoutes{Namespaces: &gwv1.RouteNamespaces{
		From: &from, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
	}}
}

// gateway returns that of the frontend.
func (b *builder) gateway(f *Frontend, name string) *sharedGateway {
	key := ""
	if f.Gateway != "" {
		key = fmt.Sprint(f.Namespace, "/", f.Gateway, f.Addresses)
		if g := b.gateways[key]; g != nil {
			return g
		}
		name = valid(f.Gateway)
	}
	g := &sharedGateway{Gateway: &gwv1.Gateway{
		TypeMeta:   gatewayKind("Gateway"),
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: b.names.take("Gateway/"+f.Namespace, name)},
		Spec:       gwv1.GatewaySpec{GatewayClassName: gwv1.ObjectName(b.options.Class), Addresses: gatewayAddresses(f.Addresses)},
	}}
	if key != "" {
		b.gateways[key] = g
	}
	b.add(f, g.Gateway)
	b.infrastructure(f, g.Gateway)
	return g
}

// infrastructure adds what is for the Service of the Gateway, and its configuration.
func (b *builder) infrastructure(f *Frontend, g *gwv1.Gateway) {
	i := &gwv1.GatewayInfrastructure{}
	for key, value := range f.Annotations {
		if i.Annotations == nil {
			i.Annotations = map[gwv1.AnnotationKey]gwv1.AnnotationValue{}
		}
		i.Annotations[gwv1.AnnotationKey(key)] = gwv1.AnnotationValue(value)
	}
	for key, value := range f.Labels {
		if i.Labels == nil {
			i.Labels = map[gwv1.LabelKey]gwv1.LabelValue{}
		}
		i.Labels[gwv1.LabelKey(key)] = gwv1.LabelValue(value)
	}
	if f.Config != (v1alpha1.BlixtGatewayConfigSpec{}) {
		group, kind := v1alpha1.GroupVersion.Group, "BlixtGatewayConfig"
		i.ParametersRef = &gwv1.LocalParametersReference{Group: gwv1.Group(group), Kind: gwv1.Kind(kind), Name: g.Name}
		b.add(f, &v1alpha1.BlixtGatewayConfig{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: kind},
			ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: g.Name}, Spec: f.Config,
		})
	}
	if i.Annotations != nil || i.Labels != nil || i.ParametersRef != nil {
		g.Spec.Infrastructure = i
	}
}

func gatewayAddresses(of []netip.Addr) (all []gwv1.GatewaySpecAddress) {
	for _, a := range of {
		kind := gwv1.IPAddressType
		all = append(all, gwv1.GatewaySpecAddress{Type: &kind, Value: a.String()})
	}
	return all
}

// listenerSet adds one to a Gateway that is full.
func (b *builder) listenerSet(f *Frontend, g *sharedGateway) {
	same := gwv1.NamespacesFromSame
	g.Spec.AllowedListeners = &gwv1.AllowedListeners{Namespaces: &gwv1.ListenerNamespaces{From: &same}}
	g.sets++
	g.last = &gwv1.ListenerSet{
		TypeMeta:   gatewayKind("ListenerSet"),
		ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: b.names.take("ListenerSet/"+f.Namespace, fmt.Sprintf("%s-%d", g.Name, g.sets+1))},
		Spec:       gwv1.ListenerSetSpec{ParentRef: gwv1.ParentGatewayReference{Name: gwv1.ObjectName(g.Name)}},
	}
	b.add(f, g.last)
}

// route adds the route from the listener to the Services.
func (b *builder) route(f *Frontend, name string, parent gwv1.ParentReference, refs []ref) gwv1.LocalPolicyTargetReference {
	kind := string(f.Protocol) + "Route"
	own := f.routeNamespace()
	meta := metav1.ObjectMeta{Namespace: own, Name: name}
	common := gwv1.CommonRouteSpec{ParentRefs: []gwv1.ParentReference{parent}}
	var backendRefs []gwv1.BackendRef
	for _, r := range refs {
		port := gwv1.PortNumber(r.port)
		to := gwv1.BackendRef{BackendObjectReference: gwv1.BackendObjectReference{Name: gwv1.ObjectName(r.name), Port: &port}}
		if r.namespace != own {
			namespace := gwv1.Namespace(r.namespace)
			to.Namespace = &namespace
		}
		if weight := int32(r.weight); len(refs) > 1 || r.weight != 1 {
			to.Weight = &weight
		}
		backendRefs = append(backendRefs, to)
	}
	if f.Protocol == corev1.ProtocolUDP {
		b.add(f, &gwv1.UDPRoute{TypeMeta: gatewayKind(kind), ObjectMeta: meta,
			Spec: gwv1.UDPRouteSpec{CommonRouteSpec: common, Rules: []gwv1.UDPRouteRule{{BackendRefs: backendRefs}}}})
	} else {
		b.add(f, &gwv1.TCPRoute{TypeMeta: gatewayKind(kind), ObjectMeta: meta,
			Spec: gwv1.TCPRouteSpec{CommonRouteSpec: common, Rules: []gwv1.TCPRouteRule{{BackendRefs: backendRefs}}}})
	}
	b.grants(f, kind, refs)
	return gwv1.LocalPolicyTargetReference{Group: gwv1.GroupName, Kind: gwv1.Kind(kind), Name: gwv1.ObjectName(name)}
}

// grants adds what lets the route name Services of other namespaces.
func (b *builder) grants(f *Frontend, kind string, refs []ref) {
	own := f.routeNamespace()
	for _, r := range refs {
		if r.namespace == own {
			continue
		}
		key := fmt.Sprintf("grant/%s/%s/%s/%s", kind, own, r.namespace, r.name)
		if b.names[key] != 0 {
			continue
		}
		b.names[key] = 1
		name := gwv1.ObjectName(r.name)
		wanted := fmt.Sprintf("%s-from-%s", strings.ToLower(kind), own)
		b.add(f, &gwv1.ReferenceGrant{
			TypeMeta:   gatewayKind("ReferenceGrant"),
			ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: b.names.take("ReferenceGrant/"+r.namespace, wanted, wanted+"-"+r.name)},
			Spec: gwv1.ReferenceGrantSpec{
				From: []gwv1.ReferenceGrantFrom{{Group: gwv1.GroupName, Kind: gwv1.Kind(kind), Namespace: gwv1.Namespace(own)}},
				To:   []gwv1.ReferenceGrantTo{{Kind: "Service", Name: &name}},
			},
		})
	}
}

// sectionOf returns the listener as a policy names it.
func sectionOf(parent gwv1.ParentReference) gwv1.LocalPolicyTargetReferenceWithSectionName {
	kind := gwv1.Kind("Gateway")
	if parent.Kind != nil {
		kind = *parent.Kind
	}
	return gwv1.LocalPolicyTargetReferenceWithSectionName{
		LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Group: gwv1.GroupName, Kind: kind, Name: parent.Name},
		SectionName:                parent.SectionName,
	}
}
