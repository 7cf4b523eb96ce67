// SPDX-License-Identifier: Apache-2.0

// Package apiserver has a real API server take what blixt migrate writes for clusters, and looks
// whether it is served: by the endpoints of the Services that were there before.
package apiserver

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/ingressnginx"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
	"github.com/kubernetes-sigs/blixt/operator/migrate/services"
)

var server *kube.Server

func TestMain(m *testing.M) { os.Exit(kube.Run(m, kube.Options{}, &server)) }

// class is what an administrator has installed: load balancers give addresses, and those of
// externalIPs are in the pool.
const class = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: blixt}
spec:
  controllerName: gateway.networking.k8s.io/blixt
  parametersRef: {group: blixt.x-k8s.io, kind: BlixtConfig, name: blixt}
---
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtConfig
metadata: {name: blixt}
spec:
  addresses: {source: LoadBalancer, alsoSources: [Pool], pool: [198.51.100.0/24]}
`

func TestWhatIsWrittenIsServed(t *testing.T) {
	for source, read := range map[string]func([]migrate.File) *migrate.Plan{"services": services.Read, "ingressnginx": ingressnginx.Read} {
		inputs, err := filepath.Glob("../../../operator/migrate/" + source + "/testdata/*.in*")
		if err != nil || len(inputs) == 0 {
			t.Fatalf("find testdata of %s: %v, %d files", source, err, len(inputs))
		}
		for _, path := range inputs {
			name, _, _ := strings.Cut(filepath.Base(path), ".in")
			t.Run(source+"/"+name, func(t *testing.T) {
				testServed(t, read(migratetest.Files(t, path)))
			})
		}
	}
}

func testServed(t *testing.T, plan *migrate.Plan) {
	objects, notes := plan.Objects(migrate.Options{Namespace: "ingress-nginx"})
	text, err := migrate.YAML(objects, notes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Clear(t, &gwv1.GatewayList{}, &gwv1.ListenerSetList{}, &gwv1.TCPRouteList{}, &gwv1.UDPRouteList{}, &gwv1.GatewayClassList{},
			&gatewayv1beta1.ReferenceGrantList{}, &v1alpha1.BlixtConfigList{}, &v1alpha1.BlixtGatewayConfigList{}, &v1alpha1.BlixtPolicyList{}, &corev1.ServiceList{})
	})
	namespaces := map[string]bool{}
	for _, o := range objects {
		namespaces[o.Value.GetNamespace()] = true
	}
	for name := range namespaces {
		if err := server.ApplyYAML(t.Context(), []byte("{apiVersion: v1, kind: Namespace, metadata: {name: \""+name+"\"}}")); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.ApplyYAML(t.Context(), []byte(class+"---\n"+text)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	objs := stored(t)
	objs.Services = behind(plan)
	serves(t, plan, objs)
}

// stored returns what the API server has, with its defaults.
func stored(t *testing.T) gateway.Objects {
	t.Helper()
	var (
		classes  gwv1.GatewayClassList
		gateways gwv1.GatewayList
		sets     gwv1.ListenerSetList
		tcp      gwv1.TCPRouteList
		udp      gwv1.UDPRouteList
		grants   gwv1.ReferenceGrantList
		configs  v1alpha1.BlixtConfigList
		own      v1alpha1.BlixtGatewayConfigList
		policies v1alpha1.BlixtPolicyList
	)
	for _, list := range []client.ObjectList{&classes, &gateways, &sets, &tcp, &udp, &grants, &configs, &own, &policies} {
		if err := server.Client.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	return gateway.Objects{
		GatewayClasses: classes.Items, Gateways: gateways.Items, ListenerSets: sets.Items, TCPRoutes: tcp.Items, UDPRoutes: udp.Items,
		ReferenceGrants: grants.Items, Configs: configs.Items, GatewayConfigs: own.Items, Policies: policies.Items,
	}
}

// behind returns the Services of a plan: those that were read, and others as they must be.
func behind(plan *migrate.Plan) []corev1.Service {
	all := map[types.NamespacedName]*corev1.Service{}
	for i := range plan.Known {
		s := &plan.Known[i]
		all[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = s
	}
	for _, f := range plan.Frontends {
		for _, to := range f.Services {
			key := types.NamespacedName{Namespace: cmp.Or(to.Namespace, f.Namespace), Name: to.Name}
			if all[key] == nil {
				all[key] = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
			}
			s := all[key]
			has := slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
				return p.Port == int32(to.Port) && cmp.Or(p.Protocol, corev1.ProtocolTCP) == f.Protocol
			})
			if !has {
				s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprintf("%s-%d", strings.ToLower(string(f.Protocol)), to.Port), Protocol: f.Protocol, Port: int32(to.Port)})
			}
		}
	}
	var list []corev1.Service
	for _, s := range all {
		list = append(list, *s)
	}
	return list
}

// serves checks that each frontend of the plan has the endpoint of its Service as its backend,
// and nobody else's, at an address of its Gateway.
func serves(t *testing.T, plan *migrate.Plan, objs gateway.Objects) {
	t.Helper()
	endpoints, backend := gateway.Endpoints{}, map[string]string{}
	for i, s := range objs.Services {
		addr := netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})
		var ports []gateway.EndpointPort
		for j, p := range s.Spec.Ports {
			protocol := lb.TCP
			if p.Protocol == corev1.ProtocolUDP {
				protocol = lb.UDP
			}
			at := netip.AddrPortFrom(addr, uint16(1000+j))
			if key := fmt.Sprintf("%s/%s %s/%d", s.Namespace, s.Name, protocol, p.Port); backend[key] == "" { // of two equal ports the first one counts
				backend[key] = at.String()
			}
			ports = append(ports, gateway.EndpointPort{Name: p.Name, Protocol: protocol, Endpoints: []gateway.Endpoint{{Addr: at, State: gateway.Ready}}})
		}
		endpoints[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = gateway.ServiceEndpoints{Ports: ports}
	}
	translation := gateway.Translate(objs, gateway.Options{Cluster: &gateway.Cluster{Assigned: assigned(objs.Gateways)}})
	state := gateway.Resolve(&translation.Unresolved, endpoints, gateway.ResolveOptions{}).State
	got := map[string]bool{}
	for _, f := range state.Frontends {
		if f.Addr.Is6() { // the endpoints are IPv4
			continue
		}
		for _, b := range f.Backends {
			got[fmt.Sprintf("%s/%d to %s", f.Protocol, f.Port, b.Addr)] = true
		}
	}
	want := map[string]bool{}
	for _, f := range plan.Frontends {
		if f.Unserved {
			continue
		}
		for _, to := range f.Services {
			want[fmt.Sprintf("%s/%d to %s", f.Protocol, f.Port, backend[fmt.Sprintf("%s/%s %s/%d", cmp.Or(to.Namespace, f.Namespace), to.Name, f.Protocol, to.Port)])] = true
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("served %v, want %v; problems: %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)), translation.Problems())
	}
	for _, p := range translation.Policies {
		for _, a := range p.Status.Ancestors {
			for _, c := range a.Conditions {
				if c.Type == "Accepted" && c.Status != metav1.ConditionTrue {
					t.Errorf("policy %s/%s: %s: %s", p.Namespace, p.Name, c.Reason, c.Message)
				}
			}
		}
	}
}

// assigned gives each Gateway the addresses that it names, or one of its own.
func assigned(gateways []gwv1.Gateway) map[types.NamespacedName]gateway.Assigned {
	all := map[types.NamespacedName]gateway.Assigned{}
	for i, g := range gateways {
		given := []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)})}
		for j, a := range g.Spec.Addresses {
			if j == 0 {
				given = nil
			}
			given = append(given, netip.MustParseAddr(a.Value))
		}
		all[types.NamespacedName{Namespace: g.Namespace, Name: g.Name}] = gateway.Assigned{Addresses: given}
	}
	return all
}
