// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Each test here is named after a defect of the first Blixt in the handling of
// configuration. It starts from testdata's common case and changes it.

// common is the Gateway demo with TCP port 80 and UDP port 53, IPv4 and IPv6.
func common(t *testing.T) testCase { return readCase(t, "testdata/gateway-tcp-udp.in.yaml") }

func (c *testCase) state() lb.State {
	translation := gateway.Translate(c.Objects, c.Options)
	return gateway.Resolve(&translation.Unresolved, gateway.IndexEndpoints(c.Slices, nil), c.Resolve).State
}

// backends returns the backends of a frontend such as 192.0.2.1:80, with their
// weights.
func backends(t *testing.T, s lb.State, addr string, protocol lb.Protocol) (addrs map[string]float64, reject float64) {
	t.Helper()
	want := netip.MustParseAddrPort(addr)
	for _, f := range s.Frontends {
		if f.Key() == (lb.Key{Addr: want.Addr(), Protocol: protocol, Port: want.Port()}) {
			addrs = map[string]float64{}
			for _, b := range f.Backends {
				addrs[b.Addr.String()] = weight(b.Weight)
			}
			return addrs, weight(f.Reject)
		}
	}
	t.Fatalf("frontend %s/%s is missing", addr, protocol)
	return nil, 0
}

// wantBackends checks the backends of frontend 192.0.2.1:80/tcp.
func wantBackends(t *testing.T, s lb.State, want map[string]float64, wantReject float64) {
	t.Helper()
	const addr = "192.0.2.1:80"
	got, reject := backends(t, s, addr, lb.TCP)
	if len(got) != len(want) || reject != wantReject {
		t.Fatalf("backends of %s: %v, reject %v; want %v, reject %v", addr, got, reject, want, wantReject)
	}
	for backend, weight := range want {
		if w, ok := got[backend]; !ok || w != weight {
			t.Fatalf("backends of %s: %v; want %v", addr, got, want)
		}
	}
}

func TestDefect9_AttachedRoutesAreCounted(t *testing.T) {
	c := common(t)
	for i, want := range []int32{1, 2, 3} {
		if got := attachedRoutes(t, c, "web"); got != want {
			t.Errorf("attachedRoutes after %d more routes: %d, want %d", i, got, want)
		}
		more := *c.Objects.TCPRoutes[0].DeepCopy()
		more.Name += "x"
		c.Objects.TCPRoutes = append(c.Objects.TCPRoutes, more)
	}
	// A route that names a listener twice, alone and along with all others, is
	// attached to it once.
	c = common(t)
	route := &c.Objects.TCPRoutes[0]
	route.Spec.ParentRefs = append(route.Spec.ParentRefs, gwv1.ParentReference{Name: "demo"})
	if got := attachedRoutes(t, c, "web"); got != 1 {
		t.Errorf("attachedRoutes of one route with two parentRefs: %d, want 1", got)
	}
}

func attachedRoutes(t *testing.T, c testCase, listener gwv1.SectionName) int32 {
	t.Helper()
	for _, l := range gateway.Translate(c.Objects, c.Options).Gateways[0].Status.Listeners {
		if l.Name == listener {
			return l.AttachedRoutes
		}
	}
	t.Fatalf("listener %s has no status", listener)
	return 0
}

func TestDefect9_ProgrammedNeedsTheDataPlane(t *testing.T) {
	c := common(t)
	status := gateway.Translate(c.Objects, c.Options).Gateways[0].Status
	all := [][]metav1.Condition{status.Conditions}
	for _, l := range status.Listeners {
		all = append(all, l.Conditions)
	}
	for _, conditions := range all {
		if p := meta.FindStatusCondition(conditions, "Programmed"); p == nil || p.Status != metav1.ConditionUnknown {
			t.Errorf("Programmed before the data plane said anything: %v, want Unknown", p)
		}
	}
}

func TestDefect9_RoutesHaveStatus(t *testing.T) {
	c := common(t)
	routes := gateway.Translate(c.Objects, c.Options).Routes
	if len(routes) != 2 {
		t.Fatalf("%d route statuses, want 2", len(routes))
	}
	for _, r := range routes {
		for _, kind := range []string{"Accepted", "ResolvedRefs"} {
			if !meta.IsStatusConditionTrue(r.Status.Parents[0].Conditions, kind) {
				t.Errorf("%s %s: %s is not True", r.Kind, r, kind)
			}
		}
	}
}

func TestDefect10_AllowedNamespacesFollowLabels(t *testing.T) {
	c := readCase(t, "testdata/route-namespaces.in.yaml")
	if got := attachedRoutes(t, c, "by-label"); got != 1 {
		t.Fatalf("routes of a namespace with the label: %d attached, want 1", got)
	}
	c.Objects.Namespaces[0].Labels = nil
	if got := attachedRoutes(t, c, "by-label"); got != 0 {
		t.Errorf("after the label was taken away: %d attached, want 0", got)
	}
}

func TestDefect10_SectionNameSelectsTheListener(t *testing.T) {
	c := readCase(t, "testdata/route-section-and-port.in.yaml")
	for _, f := range c.state().Frontends {
		want := map[uint16]string{80: "by-name", 81: "by-port", 82: "by-both"}[f.Port]
		if f.Route != "TCPRoute/default/"+want {
			t.Errorf("port %d is served by %s, want %s", f.Port, f.Route, want)
		}
	}
}

func TestDefect10_WeightsAreExact(t *testing.T) {
	c := readCase(t, "testdata/backend-weights.in.yaml")
	want := []uint64{35 * lb.WeightUnit, 35 * lb.WeightUnit, 30 * lb.WeightUnit, 0}
	var got []uint64
	for _, b := range c.state().Frontends[0].Backends {
		got = append(got, b.Weight)
	}
	if !slices.Equal(got, want) {
		t.Errorf("weights %v, want %v", got, want)
	}
	// A third of a weight is not a whole number, but the same on every node.
	c.Slices[0].Endpoints = append(c.Slices[0].Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.0.0.9"}})
	if got := c.state().Frontends[0].Backends[0].Weight; got != 70*lb.WeightUnit/3 {
		t.Errorf("a third of 70: %d, want %d", got, 70*lb.WeightUnit/3)
	}
}

func TestDefect10_OlderGatewayKeepsItsPort(t *testing.T) {
	c := common(t)
	// An IPv6-only Gateway conflicts with one of the two addresses.
	rival := *c.Objects.Gateways[0].DeepCopy()
	rival.Name, rival.Spec.Addresses = "rival", rival.Spec.Addresses[1:]
	rival.CreationTimestamp = metav1.NewTime(time.Unix(1, 0))
	c.Objects.Gateways[0].CreationTimestamp = metav1.NewTime(time.Unix(2, 0))
	c.Objects.Gateways = append(c.Objects.Gateways, rival)
	for _, f := range c.state().Frontends {
		if f.Gateway != "default/rival" || !f.Addr.Is6() {
			t.Errorf("%s is served for %s; want only the older Gateway's own address", f.Key(), f.Gateway)
		}
	}
	c.Objects.Gateways = c.Objects.Gateways[:1]
	if got := len(c.state().Frontends); got != 4 {
		t.Errorf("%d frontends after the rival left, want 4", got)
	}
}

func TestDefect10_ServiceTypeChanges(t *testing.T) {
	c := common(t)
	c.Objects.Services[0].Spec.Type = corev1.ServiceTypeExternalName
	wantBackends(t, c.state(), nil, 1)
}
