// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// TestUnservedAreThoseThatConnectionsGoTo: a reference without a weight needs no
// endpoints, one of two with a weight does.
func TestUnservedAreThoseThatConnectionsGoTo(t *testing.T) {
	web, api := types.NamespacedName{Namespace: "default", Name: "web"}, types.NamespacedName{Namespace: "default", Name: "api"}
	key := func(addr string) lb.Key { return lb.Key{Addr: netip.MustParseAddr(addr), Protocol: lb.TCP, Port: 80} }
	endpoints := gateway.Endpoints{web: {Ports: []gateway.EndpointPort{{Name: "http", Protocol: lb.TCP, Endpoints: []gateway.Endpoint{
		{Addr: netip.MustParseAddrPort("10.0.0.1:8080"), State: gateway.Ready},
	}}}}}
	for name, c := range map[string]struct {
		ref  gateway.Ref
		want []string
	}{
		"one family":    {gateway.Ref{Service: web, PortName: "http", Weight: 1}, []string{"Service default/web [2001:db8::1]:80/tcp"}},
		"other port":    {gateway.Ref{Service: web, PortName: "https", Weight: 1}, []string{"Service default/web 192.0.2.1:80/tcp and [2001:db8::1]:80/tcp"}},
		"nothing there": {gateway.Ref{Service: api, PortName: "http", Weight: 1}, []string{"Service default/api 192.0.2.1:80/tcp and [2001:db8::1]:80/tcp"}},
		"no weight":     {gateway.Ref{Service: api, PortName: "http"}, nil},
	} {
		refs := []gateway.Ref{c.ref}
		var got []string
		for _, p := range gateway.Unserved([]gateway.Frontend{{Key: key("192.0.2.1"), Refs: refs}, {Key: key("2001:db8::1"), Refs: refs}}, endpoints) {
			message, _, _ := strings.Cut(strings.TrimPrefix(p.Message, "No endpoint is ready for "), ": its share")
			got = append(got, p.Object+" "+message)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A tenant can have any number of endpoints refused, and any number of routes to
// them: each Service is looked at once, and what is kept of it is bounded.
func TestManyRefusedEndpointsCostLittle(t *testing.T) {
	shop := types.NamespacedName{Namespace: "shop", Name: "web"}
	s := discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1"}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Port: new(int32(80))}}}
	for i := range 1000 {
		addr := fmt.Sprintf("127.0.%d.%d", i/250, i%250)
		if i == 500 {
			addr = "10.0.0.1"
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr}})
	}
	found := gateway.NewServiceEndpoints([]discoveryv1.EndpointSlice{s}, nil)
	if len(found.Problems)+found.MoreProblems != 999 || len(found.Problems) > 50 || len(found.Ports[0].Endpoints) != 1 {
		t.Fatalf("%d problems and %d more, %d endpoints", len(found.Problems), found.MoreProblems, len(found.Ports[0].Endpoints))
	}
	var translation gateway.Translation
	for i := range 100 {
		name := types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("r", i)}
		translation.Routes = append(translation.Routes, gateway.RouteStatus{Kind: "TCPRoute", NamespacedName: name})
		translation.Frontends = append(translation.Frontends, gateway.Frontend{
			Key:   lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: uint16(1000 + i)},
			Route: translation.Routes[i].FrontendName(), Refs: []gateway.Ref{{Service: shop, Weight: 1}},
		})
	}
	report := gateway.NewUsers(&translation, nil).Report(gateway.Endpoints{shop: found})
	for _, f := range translation.Frontends {
		c := report.Condition(f.Route, 1)
		if c.Status != metav1.ConditionFalse || !strings.HasSuffix(c.Message, "And 994 more.") || len(c.Message) > 1000 {
			t.Fatalf("%s: %d bytes, %q", c.Reason, len(c.Message), c.Message)
		}
	}
}
