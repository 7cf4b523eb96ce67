// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
