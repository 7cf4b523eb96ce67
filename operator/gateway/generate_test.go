// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// choices are bytes that determine what is generated. Names and ports are few,
// so that objects affect each other. After the last byte, all are zero.
type choices []byte

func (c *choices) n(n int) int {
	if len(*c) == 0 {
		return 0
	}
	b := int((*c)[0])
	*c = (*c)[1:]
	return b % n
}

func pick[T any](c *choices, of ...T) T { return of[c.n(len(of))] }

// rarely is nil most of the time: it is for what makes everything else invalid.
func rarely[T any](c *choices, of ...T) *T {
	if c.n(8) > 0 {
		return nil
	}
	return maybe(c, of...)
}

// maybe is nil half of the time.
func maybe[T any](c *choices, of ...T) *T {
	if c.n(2) == 0 {
		return nil
	}
	v := pick(c, of...)
	return &v
}

func randomBytes(seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	text := make([]byte, 4000)
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	return text
}

func (c *choices) meta(names ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: pick(c, names...), Namespace: pick(c, "default", "default", "default", "prod"), Generation: int64(c.n(5)), UID: types.UID(strconv.Itoa(c.n(2)))}
	if c.n(2) == 0 {
		m.CreationTimestamp = metav1.NewTime(time.Unix(int64(c.n(3)), 0))
	}
	return m
}

func (c *testCase) generate(text []byte) {
	if len(text) == 0 {
		return
	}
	from := choices(text)
	class := gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "blixt"}}
	class.Spec.ControllerName = gateway.ControllerName
	c.Objects.GatewayClasses = append(c.Objects.GatewayClasses, class)
	if from.n(2) == 0 {
		c.Options.HostAddresses = append(c.Options.HostAddresses, netip.MustParseAddr("192.0.2.1"))
		c.Options.ReservedPorts = []gateway.ReservedRange{{Protocol: pick(&from, 0, lb.TCP, lb.UDP), First: 80, Last: uint16(80 + from.n(2))}}
	}
	if from.n(4) > 0 {
		c.Options.DefaultAddresses = []netip.Addr{pick(&from, netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("2001:db8::3"), netip.Addr{}, netip.MustParseAddr("::1"))}
	}
	if from.n(3) > 0 {
		c.generateCluster(&from)
	}
	for range 1 + from.n(5) {
		c.Objects.Gateways = append(c.Objects.Gateways, from.gateway())
	}
	for range from.n(4) {
		c.Objects.ListenerSets = append(c.Objects.ListenerSets, from.listenerSet())
	}
	for range 3 {
		c.Objects.GatewayConfigs = append(c.Objects.GatewayConfigs, from.gatewayConfig())
	}
	for range 2 + from.n(6) {
		c.Objects.TCPRoutes = append(c.Objects.TCPRoutes, gwv1.TCPRoute{ObjectMeta: from.meta("a", "b", "c"),
			Spec: gwv1.TCPRouteSpec{CommonRouteSpec: from.parents(), Rules: []gwv1.TCPRouteRule{{BackendRefs: from.refs()}}}})
	}
	for range from.n(4) {
		c.Objects.UDPRoutes = append(c.Objects.UDPRoutes, gwv1.UDPRoute{ObjectMeta: from.meta("a", "b", "c"),
			Spec: gwv1.UDPRouteSpec{CommonRouteSpec: from.parents(), Rules: []gwv1.UDPRouteRule{{BackendRefs: from.refs()}}}})
	}
	for range 2 + from.n(4) {
		service := corev1.Service{ObjectMeta: from.meta("x", "y")}
		service.Spec.Ports = []corev1.ServicePort{
			{Name: "p", Port: 80, Protocol: pick(&from, corev1.ProtocolTCP, corev1.ProtocolUDP, "")},
			{Name: "q", Port: int32(80 + from.n(2)), Protocol: corev1.ProtocolUDP},
		}
		c.Objects.Services = append(c.Objects.Services, service)
	}
	for range from.n(3) {
		grant := gwv1.ReferenceGrant{ObjectMeta: from.meta("g")}
		grant.Spec.From = []gwv1.ReferenceGrantFrom{{Group: gwv1.GroupName, Kind: pick[gwv1.Kind](&from, "TCPRoute", "UDPRoute"), Namespace: pick[gwv1.Namespace](&from, "default", "prod")}}
		grant.Spec.To = []gwv1.ReferenceGrantTo{{Kind: "Service", Name: maybe[gwv1.ObjectName](&from, "x", "y")}}
		c.Objects.ReferenceGrants = append(c.Objects.ReferenceGrants, grant)
	}
	for range 3 + from.n(8) {
		c.Slices = append(c.Slices, from.slice())
	}
	for range from.n(2) * from.n(12) {
		c.Objects.Policies = append(c.Objects.Policies, from.policy())
	}
}

func (c *choices) gateway() gwv1.Gateway {
	gw := gwv1.Gateway{ObjectMeta: c.meta("a", "b")}
	gw.Spec.GatewayClassName = "blixt"
	if other := rarely[gwv1.ObjectName](c, "other"); other != nil {
		gw.Spec.GatewayClassName = *other
	}
	for range c.n(2) * c.n(3) {
		gw.Spec.Addresses = append(gw.Spec.Addresses, gwv1.GatewaySpecAddress{
			Type:  rarely(c, gwv1.IPAddressType, gwv1.HostnameAddressType),
			Value: pick(c, "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.8", "2001:db8::1", "::ffff:192.0.2.1", "", "127.0.0.1", "x"),
		})
	}
	for i := range 1 + c.n(3) {
		gw.Spec.Listeners = append(gw.Spec.Listeners, c.listener(i))
	}
	if from := maybe(c, gwv1.NamespacesFromAll, gwv1.NamespacesFromAll, gwv1.NamespacesFromSame, gwv1.NamespacesFromSelector, gwv1.NamespacesFromNone); from != nil {
		gw.Spec.AllowedListeners = &gwv1.AllowedListeners{Namespaces: &gwv1.ListenerNamespaces{From: from, Selector: c.selector()}}
	}
	if name := maybe(c, "x", "x", "y", "absent"); name != nil && c.n(2) == 0 {
		gw.Spec.Infrastructure = &gwv1.GatewayInfrastructure{ParametersRef: &gwv1.LocalParametersReference{
			Group: "blixt.x-k8s.io", Kind: pick[gwv1.Kind](c, "BlixtGatewayConfig", "BlixtGatewayConfig", "BlixtGatewayConfig", "BlixtGatewayConfig", "Secret"), Name: *name}}
	}
	for range c.n(3) {
		gw.Status.Addresses = append(gw.Status.Addresses, gwv1.GatewayStatusAddress{
			Type: maybe(c, gwv1.IPAddressType), Value: pick(c, "192.0.2.8", "192.0.2.9", "2001:db8::8", "203.0.113.1", "x")})
	}
	gw.Status.Conditions = c.stored()
	return gw
}

func (c *choices) listener(i int) gwv1.Listener {
	l := gwv1.Listener{Name: gwv1.SectionName("l" + strconv.Itoa(i)), Port: gwv1.PortNumber(80 + c.n(5)),
		Protocol: pick(c, gwv1.TCPProtocolType, gwv1.TCPProtocolType, gwv1.TCPProtocolType, gwv1.UDPProtocolType, gwv1.UDPProtocolType, gwv1.HTTPProtocolType)}
	if from := maybe(c, gwv1.NamespacesFromAll, gwv1.NamespacesFromSame, gwv1.NamespacesFromSelector); from != nil {
		l.AllowedRoutes = &gwv1.AllowedRoutes{Namespaces: &gwv1.RouteNamespaces{From: from, Selector: c.selector()}}
	}
	return l
}

func (c *choices) selector() *metav1.LabelSelector {
	return maybe(c, metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "prod"}})
}

func (c *choices) parents() (spec gwv1.CommonRouteSpec) {
	for range 1 + c.n(2) {
		spec.ParentRefs = append(spec.ParentRefs, gwv1.ParentReference{
			Kind: maybe[gwv1.Kind](c, "Gateway", "ListenerSet", "ListenerSet", "ListenerSet", "Service"),
			Name: pick[gwv1.ObjectName](c, "a", "a", "b", "b", "absent"), Namespace: rarely[gwv1.Namespace](c, "default", "prod"),
			SectionName: rarely[gwv1.SectionName](c, "l0", "l1", ""), Port: rarely[gwv1.PortNumber](c, 80, 81),
		})
	}
	return spec
}

func (c *choices) refs() (refs []gwv1.BackendRef) {
	for range 1 + c.n(3) {
		refs = append(refs, gwv1.BackendRef{Weight: maybe[int32](c, 0, 1, 3, 1e6, -1, 1<<31-1),
			BackendObjectReference: gwv1.BackendObjectReference{
				Name: pick[gwv1.ObjectName](c, "x", "y", "x", "y", "x", "y", "absent"), Namespace: rarely[gwv1.Namespace](c, "default", "prod"),
				Port: new(pick[gwv1.PortNumber](c, 80, 80, 81)), Kind: rarely[gwv1.Kind](c, "Service", "Pod"),
			}})
	}
	return refs
}

func (c *choices) slice() discoveryv1.EndpointSlice {
	s := discoveryv1.EndpointSlice{ObjectMeta: c.meta("s"), AddressType: discoveryv1.AddressTypeIPv4}
	addresses := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "192.0.2.1", "127.0.0.1", "fd00::1", "x"}
	if other := rarely(c, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN); other != nil || c.n(3) == 0 {
		s.AddressType, addresses = discoveryv1.AddressTypeIPv6, []string{"fd00::1", "fd00::2", "2001:db8::1", "::1", "10.0.0.1"}
		if other != nil {
			s.AddressType = *other
		}
	}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: pick(c, "x", "y")}
	for range 1 + c.n(4) {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(pick(c, "p", "q")), Port: new(pick[int32](c, 80, 8080, 80, 8080, 0, 70000)),
			Protocol: pick(c, nil, nil, new(corev1.ProtocolUDP))})
	}
	for range c.n(6) {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{pick(c, addresses...)}[:c.n(8)/7^1],
			NodeName:  maybe(c, "n1", "n2"),
			Hints:     &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "z1"}, {Name: "z2"}}[c.n(2)*c.n(2) : 1+c.n(2)]},
			Conditions: discoveryv1.EndpointConditions{Ready: rarely(c, true, false), Serving: rarely(c, true, false),
				Terminating: rarely(c, true, false)},
		})
	}
	return s
}
