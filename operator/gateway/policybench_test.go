// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// BenchmarkTranslate_Policies translates 4,000 frontends with 2,000 policies of 100 networks each:
// without policies, when they are all new, and when they are known.
func BenchmarkTranslate_Policies(b *testing.B) {
	objs := manyPolicies(2000, 100)
	without := objs
	without.Policies = nil
	known := gateway.Translate(objs, gateway.Options{}).LastGood
	for _, c := range []struct {
		name string
		objs gateway.Objects
		good gateway.LastGood
	}{{"none", without, gateway.LastGood{}}, {"new", objs, gateway.LastGood{}}, {"known", objs, known}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t := gateway.Translate(c.objs, gateway.Options{LastGood: c.good})
				if len(t.Frontends) != 4000 || len(t.Policies) != len(c.objs.Policies) {
					b.Fatalf("%d frontends, %d policies", len(t.Frontends), len(t.Policies))
				}
			}
		})
	}
}

// manyPolicies returns Gateways with 4,000 listeners, a route each, and a policy of so many networks
// for every n-th route and one for each Gateway.
func manyPolicies(n, networks int) (objs gateway.Objects) {
	const frontends, perGateway = 4000, 50
	class := gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "blixt"}}
	class.Spec.ControllerName = gateway.ControllerName
	objs.GatewayClasses = []gwv1.GatewayClass{class}
	for i := range frontends / perGateway {
		gw := gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("g%d", i)}}
		gw.Spec.GatewayClassName = "blixt"
		gw.Spec.Addresses = []gwv1.GatewaySpecAddress{{Value: fmt.Sprintf("192.0.2.%d", i)}}
		for j := range perGateway {
			name := gwv1.SectionName(fmt.Sprintf("l%d", j))
			gw.Spec.Listeners = append(gw.Spec.Listeners, gwv1.Listener{Name: name, Protocol: gwv1.TCPProtocolType, Port: gwv1.PortNumber(1000 + j)})
			route := gwv1.TCPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("r%d", i*perGateway+j)}}
			route.Spec.ParentRefs = []gwv1.ParentReference{{Name: gwv1.ObjectName(gw.Name), SectionName: &name}}
			route.Spec.Rules = []gwv1.TCPRouteRule{{BackendRefs: []gwv1.BackendRef{{BackendObjectReference: gwv1.BackendObjectReference{Name: "web", Port: new(gwv1.PortNumber(80))}}}}}
			objs.TCPRoutes = append(objs.TCPRoutes, route)
		}
		objs.Gateways = append(objs.Gateways, gw)
	}
	service := corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	service.Spec.Ports = []corev1.ServicePort{{Port: 80}}
	objs.Services = []corev1.Service{service}
	for i := range n {
		p := v1alpha1.BlixtPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%d", i)}}
		target := gwv1.LocalPolicyTargetReferenceWithSectionName{}
		target.Group, target.Kind, target.Name = gwv1.GroupName, "TCPRoute", gwv1.ObjectName(fmt.Sprintf("r%d", i*frontends/n))
		if i < frontends/perGateway {
			target.Kind, target.Name = "Gateway", gwv1.ObjectName(fmt.Sprintf("g%d", i))
		}
		p.Spec.TargetRefs = []gwv1.LocalPolicyTargetReferenceWithSectionName{target}
		p.Spec.MaxAge = &metav1.Duration{Duration: 3600e9}
		p.Spec.Affinity = &v1alpha1.PolicyAffinity{Type: v1alpha1.AffinityClientAddress}
		p.Spec.Sources = &v1alpha1.PolicySources{}
		for j := range networks {
			p.Spec.Sources.Allow = append(p.Spec.Sources.Allow, fmt.Sprintf("10.%d.%d.0/24", i%256, j))
		}
		objs.Policies = append(objs.Policies, p)
	}
	return objs
}
