// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

var exact = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}),
	cmp.AllowUnexported(gateway.Resolution{}, gateway.PolicyStatus{}),
	cmp.Comparer(func(a, b gateway.KnownPolicy) bool { return reflect.DeepEqual(a, b) }),
}

// One translation serves every later change of endpoints: Resolve reads nothing
// else, does not modify it, and returns what a new translation would yield.
func TestResolve_EndpointChangesKeepTheTranslation(t *testing.T) {
	c := common(t)
	translation := gateway.Translate(c.Objects, c.Options)
	before := gateway.Translate(c.Objects, c.Options)
	for n := range 20 {
		c.Slices[0].Endpoints = c.Slices[0].Endpoints[:0:0]
		for i := range n {
			c.Slices[0].Endpoints = append(c.Slices[0].Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.1.%d", i)}})
		}
		endpoints := gateway.IndexEndpoints(c.Slices, nil)
		got := gateway.Resolve(&translation.Unresolved, endpoints, c.Resolve)
		fresh := gateway.Translate(c.Objects, c.Options)
		if diff := cmp.Diff(gateway.Resolve(&fresh.Unresolved, endpoints, c.Resolve), got, exact); diff != "" {
			t.Fatalf("%d endpoints: old translation differs from a fresh one (-fresh +old):\n%s", n, diff)
		}
	}
	if diff := cmp.Diff(before, translation, exact); diff != "" {
		t.Errorf("Resolve changed the translation:\n%s", diff)
	}
}

func TestUpdate_EqualsResolveForEveryCase(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		c := readCase(t, in)
		translation := gateway.Translate(c.Objects, c.Options)
		r := gateway.Resolve(&translation.Unresolved, nil, c.Resolve)
		endpoints := gateway.IndexEndpoints(c.Slices, nil)
		changed := r.Update(&translation.Unresolved, endpoints, c.Resolve, services(c.Slices)...)
		if diff := cmp.Diff(gateway.Resolve(&translation.Unresolved, endpoints, c.Resolve), r, exact); diff != "" {
			t.Errorf("%s: update differs (-resolve +update):\n%s", in, diff)
		}
		for _, f := range changed {
			if !slices.ContainsFunc(r.State.Frontends, func(g lb.Frontend) bool { return cmp.Equal(f, g, exact) }) {
				t.Errorf("%s: %s is said to have changed, but is not in the state", in, f.Key())
			}
		}
	}
}

func services(endpointSlices []discoveryv1.EndpointSlice) []types.NamespacedName {
	var names []types.NamespacedName
	for service := range gateway.IndexEndpoints(endpointSlices, nil) {
		names = append(names, service)
	}
	return names
}

// The other frontends are not resolved again: their backends are the same
// memory afterwards.
func TestUpdate_TouchesOnlyFrontendsOfTheService(t *testing.T) {
	c := common(t)
	translation := gateway.Translate(c.Objects, c.Options)
	endpoints := gateway.IndexEndpoints(c.Slices, nil)
	before := gateway.Resolve(&translation.Unresolved, endpoints, c.Resolve)
	after := gateway.Resolve(&translation.Unresolved, endpoints, c.Resolve)
	after.State.Frontends = slices.Clone(before.State.Frontends)
	changed := after.Update(&translation.Unresolved, endpoints, c.Resolve, types.NamespacedName{Namespace: "default", Name: "dns"})
	for i, f := range after.State.Frontends {
		same := &f.Backends[0] == &before.State.Frontends[i].Backends[0]
		if same != (f.Protocol == lb.TCP) {
			t.Errorf("%s: kept %v", f.Key(), same)
		}
		if told := slices.ContainsFunc(changed, func(g lb.Frontend) bool { return g.Key() == f.Key() }); told == same {
			t.Errorf("%s: kept %v, but said to have changed %v", f.Key(), same, told)
		}
	}
}

func TestResolve_DoesNotDependOnTheOrderOfInput(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		c := readCase(t, in)
		want := c.state()
		slices.Reverse(c.Objects.GatewayClasses)
		slices.Reverse(c.Objects.Gateways)
		slices.Reverse(c.Objects.TCPRoutes)
		slices.Reverse(c.Objects.UDPRoutes)
		slices.Reverse(c.Objects.Services)
		slices.Reverse(c.Objects.ReferenceGrants)
		slices.Reverse(c.Slices)
		if diff := cmp.Diff(want, c.state(), exact); diff != "" {
			t.Errorf("%s: reversed input gives another state:\n%s", in, diff)
		}
	}
}

// The result of Resolve is in canonical order, so that equal states have equal
// hashes.
// A backend on another node has its node's name where that node may be told the client.
func TestResolve_NamesTheNodesThatHearOfClients(t *testing.T) {
	web := types.NamespacedName{Namespace: "default", Name: "web"}
	u := gateway.Unresolved{}
	for port, preserve := range map[uint16]bool{80: true, 81: false} {
		u.Frontends = append(u.Frontends, gateway.Frontend{
			Key:            lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: port},
			PreserveClient: preserve, Refs: []gateway.Ref{{Service: web, Weight: 1}},
		})
	}
	endpoints := gateway.Endpoints{web: {Ports: []gateway.EndpointPort{{Protocol: lb.TCP, Endpoints: []gateway.Endpoint{
		{Addr: netip.MustParseAddrPort("10.0.0.1:80"), State: gateway.Ready, Node: "a"},
		{Addr: netip.MustParseAddrPort("10.0.0.2:80"), State: gateway.Ready, Node: "b"},
	}}}}}
	for _, f := range gateway.Resolve(&u, endpoints, gateway.ResolveOptions{NodeName: "a"}).State.Frontends {
		want := map[uint16]string{80: "b", 81: ""}[f.Port]
		if f.PreserveClient != (f.Port == 80) || f.Backends[0].Node != "" || f.Backends[1].Node != want {
			t.Errorf("port %d: preserved %v, backends %+v", f.Port, f.PreserveClient, f.Backends)
		}
	}
}

func TestResolve_IsNormalized(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		c := readCase(t, in)
		s := c.state()
		before := s.Hash()
		s.Normalize()
		if s.Hash() != before {
			t.Errorf("%s: Normalize changed the state", in)
		}
	}
}

func TestProblems_TellEachCauseOnce(t *testing.T) {
	c := readCase(t, "testdata/listener-port-taken.in.yaml")
	translation := gateway.Translate(c.Objects, c.Options)
	want := []gateway.Problem{
		{Object: "Gateway default/new listener web", Message: "PortUnavailable: TCP port 80 of 192.0.2.1 is taken by listener web of Gateway default/old, which is older: use another port or address."},
	}
	if diff := cmp.Diff(want, translation.Problems()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if c := common(t); len(c.state().Frontends) > 0 {
		translation := gateway.Translate(c.Objects, c.Options)
		if problems := translation.Problems(); problems != nil {
			t.Errorf("problems of the common case: %v", problems)
		}
	}
}
