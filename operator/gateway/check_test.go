// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// checkStatuses checks that the API server would accept the statuses.
func checkStatuses(t *testing.T, c *testCase, translation *gateway.Translation) {
	t.Helper()
	generations := map[string]bool{}
	note := func(kind string, m metav1.Object) {
		generations[key(kind, m.GetNamespace(), m.GetName(), m.GetGeneration())] = true
	}
	for i := range c.Objects.GatewayClasses {
		note("GatewayClass", &metav1.ObjectMeta{Name: c.Objects.GatewayClasses[i].Name, Generation: c.Objects.GatewayClasses[i].Generation})
	}
	for i := range c.Objects.Gateways {
		note("Gateway", &c.Objects.Gateways[i])
	}
	for i := range c.Objects.ListenerSets {
		note("ListenerSet", &c.Objects.ListenerSets[i])
	}
	for i := range c.Objects.TCPRoutes {
		note("TCPRoute", &c.Objects.TCPRoutes[i])
	}
	for i := range c.Objects.UDPRoutes {
		note("UDPRoute", &c.Objects.UDPRoutes[i])
	}
	check := func(kind string, name types.NamespacedName, conditions []metav1.Condition) {
		kinds := map[string]bool{}
		for _, cond := range conditions {
			if cond.Reason == "" || cond.Message == "" || kinds[cond.Type] || len(cond.Message) > 32768 ||
				!generations[key(kind, name.Namespace, name.Name, cond.ObservedGeneration)] {
				t.Errorf("%s %s has a bad condition: %+v", kind, name, cond)
			}
			kinds[cond.Type] = true
		}
		if len(conditions) == 0 || len(conditions) > 8 {
			t.Errorf("%s %s has %d conditions, want 1 to 8", kind, name, len(conditions))
		}
	}
	for _, class := range translation.Classes {
		check("GatewayClass", types.NamespacedName{Name: class.Name}, class.Status.Conditions)
	}
	for _, g := range translation.Gateways {
		check("Gateway", g.NamespacedName, g.Status.Conditions)
		if n := len(g.Status.Addresses); n > 16 {
			t.Errorf("Gateway %s has %d addresses in its status, want 16 at most", g, n)
		}
		for _, l := range g.Status.Listeners {
			check("Gateway", g.NamespacedName, l.Conditions)
			if l.SupportedKinds == nil {
				t.Errorf("listener %s has no list of supported kinds, not even an empty one", l.Name)
			}
		}
	}
	for _, s := range translation.ListenerSets {
		check("ListenerSet", s.NamespacedName, s.Status.Conditions)
		for _, l := range s.Status.Listeners {
			check("ListenerSet", s.NamespacedName, l.Conditions)
		}
	}
	for _, r := range translation.Routes {
		for _, p := range r.Status.Parents {
			check(string(r.Kind), r.NamespacedName, p.Conditions)
		}
	}
}

// checkParents checks that each parentRef that is Blixt's, and no other, has a
// status.
func checkParents(t *testing.T, c *testCase, translation *gateway.Translation) {
	t.Helper()
	ours := map[string]bool{}
	for _, g := range translation.Gateways {
		ours["Gateway "+g.String()] = true
	}
	for _, s := range translation.ListenerSets {
		ours["ListenerSet "+s.String()] = true
	}
	want, got := map[string][]gwv1.ParentReference{}, map[string][]gwv1.ParentReference{}
	expect := func(route, namespace string, refs []gwv1.ParentReference) {
		for _, ref := range refs {
			kind, of := "Gateway", namespace
			if ref.Kind != nil {
				kind = string(*ref.Kind)
			}
			if ref.Namespace != nil && *ref.Namespace != "" {
				of = string(*ref.Namespace)
			}
			if (ref.Group == nil || *ref.Group == gwv1.GroupName) && ours[kind+" "+of+"/"+string(ref.Name)] {
				want[route] = append(want[route], ref)
			}
		}
	}
	for _, r := range c.Objects.TCPRoutes {
		expect("TCPRoute "+r.Namespace+"/"+r.Name, r.Namespace, r.Spec.ParentRefs)
	}
	for _, r := range c.Objects.UDPRoutes {
		expect("UDPRoute "+r.Namespace+"/"+r.Name, r.Namespace, r.Spec.ParentRefs)
	}
	for _, r := range translation.Routes {
		for _, p := range r.Status.Parents {
			got[string(r.Kind)+" "+r.String()] = append(got[string(r.Kind)+" "+r.String()], p.ParentRef)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parents with a status (-want +got):\n%s", diff)
	}
}

// checkOrder checks that the order of objects does not matter.
func checkOrder(t *testing.T, c *testCase, translation *gateway.Translation) {
	t.Helper()
	o := c.Objects
	random := rand.New(rand.NewPCG(1, 1))
	o.GatewayClasses, o.Gateways, o.ListenerSets = shuffled(random, o.GatewayClasses), shuffled(random, o.Gateways), shuffled(random, o.ListenerSets)
	o.TCPRoutes, o.UDPRoutes, o.ReferenceGrants = shuffled(random, o.TCPRoutes), shuffled(random, o.UDPRoutes), shuffled(random, o.ReferenceGrants)
	o.Services, o.Namespaces = shuffled(random, o.Services), shuffled(random, o.Namespaces)
	o.Policies = shuffled(random, o.Policies)
	o.Configs, o.GatewayConfigs = shuffled(random, o.Configs), shuffled(random, o.GatewayConfigs)
	if again := gateway.Translate(o, c.Options); !reflect.DeepEqual(*translation, again) {
		t.Errorf("another order of objects gives another translation (-first +shuffled):\n%s", cmp.Diff(*translation, again, exact))
	}
	if again := gateway.IndexEndpoints(shuffled(random, c.Slices), nil); !reflect.DeepEqual(gateway.IndexEndpoints(c.Slices, nil), again) {
		t.Errorf("another order of EndpointSlices gives other endpoints:\n%s", cmp.Diff(gateway.IndexEndpoints(c.Slices, nil), again, exact))
	}
}

func shuffled[T any](random *rand.Rand, list []T) []T {
	list = slices.Clone(list)
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// checkProgress checks that SetProgress changes nothing but Programmed, and
// depends on nothing but the last call.
func checkProgress(t *testing.T, c *testCase, translation *gateway.Translation) {
	t.Helper()
	from := choices(randomBytes(uint64(len(c.Objects.Gateways))))
	programmed := func(t *gateway.Translation) (all, others []metav1.Condition) {
		eachCondition(t, func(_ string, c metav1.Condition) {
			if c.Type == string(gwv1.GatewayConditionProgrammed) {
				all = append(all, c)
			} else {
				others = append(others, c)
			}
		})
		return all, others
	}
	twice, once := gateway.Translate(c.Objects, c.Options), gateway.Translate(c.Objects, c.Options)
	first, last := map[types.NamespacedName]gateway.Progress{}, map[types.NamespacedName]gateway.Progress{}
	stored := map[types.NamespacedName][]metav1.Condition{}
	for i := range c.Objects.Gateways {
		gw := &c.Objects.Gateways[i]
		name := types.NamespacedName{Namespace: gw.Namespace, Name: gw.Name}
		stored[name], first[name], last[name] = gw.Status.Conditions, from.progress(), from.progress()
	}
	twice.SetProgress(first, stored)
	twice.SetProgress(last, stored)
	once.SetProgress(last, stored)
	twice.SetPolicyProgress(first, nil, nil)
	twice.SetPolicyProgress(last, nil, nil)
	once.SetPolicyProgress(last, nil, nil)
	if diff := cmp.Diff(once, twice, exact); diff != "" {
		t.Errorf("SetProgress depends on the call before (-once +twice):\n%s", diff)
	}
	_, before := programmed(translation)
	all, after := programmed(&twice)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("SetProgress changes more than Programmed (-before +after):\n%s", diff)
	}
	for _, c := range all {
		if c.Reason == "" || c.Message == "" || (c.Status == metav1.ConditionTrue) != (c.Reason == string(gwv1.GatewayReasonProgrammed)) {
			t.Errorf("bad Programmed: %+v", c)
		}
	}
	for _, g := range twice.Gateways {
		if meta.IsStatusConditionFalse(g.Status.Conditions, "Accepted") && meta.IsStatusConditionTrue(g.Status.Conditions, "Programmed") {
			t.Errorf("Gateway %s is programmed, but not accepted", g)
		}
	}
}

// checkResolution checks that no tuple is there twice, that all weights are
// accounted for, and that Update equals Resolve.
func checkResolution(t *testing.T, translation *gateway.Translation, endpoints gateway.Endpoints, o gateway.ResolveOptions) {
	t.Helper()
	r := gateway.Resolve(&translation.Unresolved, endpoints, o)
	checkState(t, r.State)
	var services []types.NamespacedName
	for service := range endpoints {
		services = append(services, service)
	}
	empty := gateway.Resolve(&translation.Unresolved, nil, o)
	if empty.Update(&translation.Unresolved, endpoints, o, services...); !cmp.Equal(r, empty, exact) {
		t.Errorf("update differs (-resolve +update):\n%s", cmp.Diff(r, empty, exact))
	}
	byListener := map[string]*gateway.Frontend{}
	for i := range translation.Frontends {
		f := &translation.Frontends[i]
		byListener[f.Gateway+" "+f.Listener] = f
	}
	for _, f := range r.State.Frontends {
		if f.Addr.IsUnspecified() && len(o.HostAddresses) > 0 {
			t.Errorf("%s is not resolved", f.Key())
		}
		from := byListener[f.Gateway+" "+f.Listener]
		want, got := from.Reject, f.Reject
		for _, ref := range from.Refs {
			want += uint64(ref.Weight) * lb.WeightUnit
		}
		for _, b := range f.Backends {
			got += b.Weight
			if from.LocalOnly && o.NodeName != "" && !b.Local {
				t.Errorf("%s has backend %s, which is elsewhere", f.Key(), b.Addr)
			}
		}
		// Dividing by the number of endpoints leaves less than one for each.
		// Of groups that take over from each other, one gets weights.
		if slack := uint64(len(f.Backends) * len(from.Refs)); got > want || !from.LocalOnly && from.Failover == nil && want-got > slack {
			t.Errorf("%s: weights add up to %d, want %d", f.Key(), got, want)
		}
	}
}
