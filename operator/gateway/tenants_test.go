// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// tenant is the namespace whose objects change, and of whom nobody else must
// notice.
const tenant = "prod"

// FuzzTranslate_Tenants does what TestTranslate_Tenants does with other bytes.
func FuzzTranslate_Tenants(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(randomBytes(seed), randomBytes(seed+1000), randomBytes(seed+2000))
	}
	f.Fuzz(func(t *testing.T, before, then, last []byte) { checkTenants(t, before, then, last) })
}

// TestTranslate_Tenants changes everything in one namespace, several times. What
// the others are served stays as it is.
func TestTranslate_Tenants(t *testing.T) {
	for seed := range uint64(1500) {
		checkTenants(t, randomBytes(seed), randomBytes(seed+1e6), randomBytes(seed+2e6))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func checkTenants(t *testing.T, steps ...[]byte) {
	t.Helper()
	var c testCase
	c.generate(steps[0])
	c.unique()
	before := gateway.Translate(c.Objects, c.Options)
	for i := range steps {
		c.Options.Incumbents, c.Options.LastGood = copied(t, &before.Incumbents), before.LastGood
		if i > 0 {
			c.replaceTenant(steps[i])
			c.growOthers(steps[i])
		}
		after := gateway.Translate(c.Objects, c.Options)
		checkKept(t, &c, &before, &after)
		if i == 0 && !cmp.Equal(before.Unresolved, after.Unresolved, exact) {
			t.Errorf("the same objects give another state (-before +after):\n%s", cmp.Diff(before.Unresolved, after.Unresolved, exact))
		}
		before = after
	}
}

// copied returns what a later process reads of the incumbents.
func copied(t *testing.T, i *gateway.Incumbents) *gateway.Incumbents {
	t.Helper()
	text, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	var again gateway.Incumbents
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*i, again, exact); diff != "" {
		t.Fatalf("incumbents are read differently (-written +read):\n%s", diff)
	}
	return &again
}

// replaceTenant replaces all objects of the tenant, and the statuses of his
// Services.
func (c *testCase) replaceTenant(bytes []byte) {
	var other testCase
	other.generate(bytes)
	other.unique()
	o, n := &c.Objects, &other.Objects
	o.Gateways = replaced(o.Gateways, n.Gateways, func(o gwv1.Gateway) string { return o.Namespace })
	o.ListenerSets = replaced(o.ListenerSets, n.ListenerSets, func(o gwv1.ListenerSet) string { return o.Namespace })
	o.TCPRoutes = replaced(o.TCPRoutes, n.TCPRoutes, func(o gwv1.TCPRoute) string { return o.Namespace })
	o.UDPRoutes = replaced(o.UDPRoutes, n.UDPRoutes, func(o gwv1.UDPRoute) string { return o.Namespace })
	o.ReferenceGrants = replaced(o.ReferenceGrants, n.ReferenceGrants, func(o gwv1.ReferenceGrant) string { return o.Namespace })
	o.Policies = replaced(o.Policies, n.Policies, func(o v1alpha1.BlixtPolicy) string { return o.Namespace })
	if c.Options.Cluster == nil {
		return
	}
	cluster := *c.Options.Cluster
	cluster.Assigned = maps.Clone(cluster.Assigned)
	maps.DeleteFunc(cluster.Assigned, func(name types.NamespacedName, _ gateway.Assigned) bool { return name.Namespace == tenant })
	if other.Options.Cluster != nil {
		for name, a := range other.Options.Cluster.Assigned {
			if name.Namespace == tenant {
				cluster.Assigned[name] = a
			}
		}
	}
	c.Options.Cluster = &cluster
}

// growOthers adds listeners and addresses to some Gateways of the others: whether
// they get these or not, they keep what they have.
func (c *testCase) growOthers(bytes []byte) {
	from := choices(bytes[len(bytes)/2:])
	c.Objects.Gateways = slices.Clone(c.Objects.Gateways)
	for i := range c.Objects.Gateways {
		gw := c.Objects.Gateways[i].DeepCopy()
		if gw.Namespace == tenant || from.n(2) == 0 {
			continue
		}
		port := 9000 + from.n(3)
		name := gwv1.SectionName("grown" + strconv.Itoa(port))
		if !slices.ContainsFunc(gw.Spec.Listeners, func(l gwv1.Listener) bool { return l.Name == name }) {
			gw.Spec.Listeners = append(gw.Spec.Listeners, gwv1.Listener{Name: name, Port: gwv1.PortNumber(port), Protocol: gwv1.TCPProtocolType})
		}
		if len(gw.Spec.Addresses) > 0 {
			gw.Spec.Addresses = append(gw.Spec.Addresses, gwv1.GatewaySpecAddress{Value: pick(&from, "192.0.2.1", "192.0.2.2", "192.0.2.8", "2001:db8::1")})
		}
		c.Objects.Gateways[i] = *gw
	}
}

// checkSharing checks that Gateways of several namespaces share only addresses of
// nodes, and those that some BlixtConfig lists.
func checkSharing(t *testing.T, c *testCase, translation *gateway.Translation) {
	t.Helper()
	if c.Options.Cluster == nil {
		return
	}
	shared := map[netip.Addr]bool{}
	for _, a := range translation.Addresses {
		shared[a.IP] = !a.Exclusive || slices.ContainsFunc(c.Objects.Configs, func(b v1alpha1.BlixtConfig) bool {
			return slices.ContainsFunc(b.Spec.Addresses.Shared, func(text string) bool {
				r, err := gateway.ParseAddressRange(text)
				return err == nil && !a.IP.Less(r.First) && !r.Last.Less(a.IP)
			})
		})
	}
	namespaces := map[netip.Addr]string{}
	for _, f := range translation.Frontends {
		namespace, _, _ := strings.Cut(f.Gateway, "/")
		if other, held := namespaces[f.Addr]; held && other != namespace && !shared[f.Addr] {
			t.Errorf("address %s is served for namespaces %s and %s", f.Addr, namespace, other)
		}
		namespaces[f.Addr] = namespace
	}
}

// checkCapacity checks that the tables of each node have room for the state.
func checkCapacity(t *testing.T, c *testCase, translation *gateway.Translation) {
	t.Helper()
	if c.Options.Cluster == nil {
		return
	}
	size := c.Options.Cluster.Capacity.OrDefault()
	for _, node := range c.Options.Cluster.Nodes {
		state := gateway.Resolve(&translation.Unresolved, nil, gateway.ResolveOptions{NodeName: node.Name, HostAddresses: node.Addresses}).State
		if a, f := len(state.Addresses), len(state.Frontends); a > size.Addresses || f > size.Frontends {
			t.Errorf("node %s has %d addresses and %d frontends, but its tables have only room for %+v", node.Name, a, f, size)
		}
	}
}

// replaced returns the first list with the tenant's objects of the second.
func replaced[T any](list, others []T, namespace func(T) string) []T {
	list = slices.DeleteFunc(slices.Clone(list), func(o T) bool { return namespace(o) == tenant })
	for _, o := range others {
		if namespace(o) == tenant {
			list = append(list, o)
		}
	}
	return list
}

// checkKept checks that Gateways of others have all frontends and addresses that
// they had. Frontends may have other backends only if the others let the tenant
// attach routes, or refer to him.
func checkKept(t *testing.T, c *testCase, before, after *gateway.Translation) {
	t.Helper()
	now := map[lb.Key]gateway.Frontend{}
	for _, f := range after.Frontends {
		now[f.Key] = f
	}
	for _, f := range before.Frontends {
		if ofTenant(f.Gateway) || strings.Count(f.Listener, "/") == 2 && ofTenant(f.Listener) {
			continue
		}
		got, served := now[f.Key]
		if !served || got.Gateway != f.Gateway || got.Listener != f.Listener {
			t.Errorf("frontend %s of Gateway %s, listener %s, is lost; now it is %+v", f.Key, f.Gateway, f.Listener, got)
			continue
		}
		if !opensUp(f) && !opensUp(got) && !c.admits(&f) && !cmp.Equal(f, got, exact) {
			t.Errorf("frontend of others differs (-before +after):\n%s", cmp.Diff(f, got, exact))
		}
	}
	addresses := map[types.NamespacedName][]gwv1.GatewayStatusAddress{}
	for _, g := range after.Gateways {
		addresses[g.NamespacedName] = g.Status.Addresses
	}
	for _, g := range before.Gateways {
		for _, a := range g.Status.Addresses {
			if g.Namespace != tenant && !slices.ContainsFunc(addresses[g.NamespacedName], func(b gwv1.GatewayStatusAddress) bool { return cmp.Equal(a, b) }) {
				t.Errorf("Gateway %s has lost address %s", g, a.Value)
			}
		}
	}
}

func ofTenant(name string) bool { return strings.HasPrefix(name, tenant+"/") }

// opensUp reports whether the tenant is among those who decide about backends.
func opensUp(f gateway.Frontend) bool {
	return strings.Contains(f.Route, "/"+tenant+"/") || f.Reject > 0 ||
		slices.ContainsFunc(f.Refs, func(r gateway.Ref) bool { return r.Service.Namespace == tenant })
}

// admits reports whether the listener takes routes of other namespaces.
func (c *testCase) admits(f *gateway.Frontend) bool {
	for _, g := range c.Objects.Gateways {
		for _, l := range g.Spec.Listeners {
			if g.Namespace+"/"+g.Name == f.Gateway && string(l.Name) == f.Listener {
				return l.AllowedRoutes != nil
			}
		}
	}
	return true // a ListenerSet's
}
