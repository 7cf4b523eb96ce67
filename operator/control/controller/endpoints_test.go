// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/control/controller"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// pod creates a pod that has an address.
func (o *operator) pod(namespace, name, ip string) *corev1.Pod {
	o.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	o.must(client.IgnoreAlreadyExists(o.kube.Create(o.Context(), ns)))
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main", Image: "example.com/main"}}},
	}
	o.create(p)
	o.podStatus(p, corev1.PodRunning, ip)
	return p
}

// podStatus is what the kubelet does.
func (o *operator) podStatus(p *corev1.Pod, phase corev1.PodPhase, ip string) {
	o.Helper()
	p.Status.Phase, p.Status.PodIP, p.Status.PodIPs = phase, ip, []corev1.PodIP{{IP: ip}}
	o.must(o.kube.Status().Update(o.Context(), p))
}

// endpoints waits until agents are told of an address, or are not.
func (o *operator) endpoint(addr string, want bool) {
	o.Helper()
	o.published(fmt.Sprintf("endpoint %s served: %v", addr, want), func(s fleet.Snapshot) bool {
		return strings.Contains(fmt.Sprint(s.Endpoints), addr+":") == want
	})
}

// slice makes an EndpointSlice of Service default/web.
func (o *operator) slice(name string, addresses ...string) *discoveryv1.EndpointSlice {
	o.Helper()
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
	}
	for _, addr := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr}})
	}
	o.create(s)
	return s
}

// An address among those of pods is served once a pod of the namespace has it, and
// no longer; one outside, until a pod of another namespace has it. Each pod's event
// is enough: the EndpointSlice stays as it is.
func TestEndpointsFollowPods(t *testing.T) {
	o := start(t)
	n := named[corev1.Node]("", "n1")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(n), n))
	n.Spec.PodCIDR, n.Spec.PodCIDRs = "10.2.0.0/24", []string{"10.2.0.0/24"}
	o.must(o.kube.Update(t.Context(), n))
	o.serve()
	o.slice("web-2", "10.2.0.7", "10.3.0.7", "10.3.0.8", "192.0.2.12")
	o.endpoint("10.3.0.8", true)
	o.endpoint("10.2.0.7", false)
	o.endpoint("192.0.2.12", false)

	own := o.pod("default", "own", "10.2.0.9")
	from := time.Now()
	o.podStatus(own, corev1.PodRunning, "10.2.0.7")
	o.endpoint("10.2.0.7", true)
	t.Logf("served %v after the pod's event", time.Since(from).Round(time.Millisecond))
	// The address becomes another's, while the slice still has it.
	o.must(o.kube.Delete(t.Context(), own, client.GracePeriodSeconds(0)))
	o.endpoint("10.2.0.7", false)
	o.pod("tenant", "successor", "10.2.0.7")

	theirs := o.pod("tenant", "theirs", "10.3.0.7")
	o.endpoint("10.3.0.7", false)
	o.endpoint("10.2.0.7", false)
	o.podStatus(theirs, corev1.PodSucceeded, "10.3.0.7")
	o.endpoint("10.3.0.7", true)
	// What each pass reads anew is judged alike.
	o.apply(`{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {ports: [{port: 80, targetPort: 8081}]}}`)
	o.endpoint("10.3.0.7", true)
	o.endpoint("10.2.0.7", false)
	o.endpoint("192.0.2.12", false)
}

// A ClusterIP is known by its Service where it lies in no range that is known, and
// from the moment that the Service has it.
func TestEndpointsAreNoServices(t *testing.T) {
	o := start(t)
	o.serve()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 5432, TargetPort: intstr.FromInt32(5432)}},
	}}
	o.create(s)
	o.slice("web-2", s.Spec.ClusterIP, "203.0.113.9", "203.0.113.10")
	o.endpoint("203.0.113.9", true)
	o.endpoint(s.Spec.ClusterIP, false)
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.9"}}
	o.must(o.kube.Status().Update(t.Context(), s))
	o.endpoint("203.0.113.9", false)
	o.must(o.kube.Delete(t.Context(), s))
	o.endpoint("203.0.113.9", true)
	o.endpoint("203.0.113.10", true)
}

// A slice whose label changes, or goes, is no longer the Service's.
func TestSlicesChangeTheirService(t *testing.T) {
	o := start(t)
	o.serve()
	s := o.slice("web-2", "203.0.113.9")
	for _, label := range []string{"other", "web", ""} {
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(s), s))
		if s.Labels[discoveryv1.LabelServiceName] = label; label == "" {
			s.Labels = nil
		}
		o.must(o.kube.Update(t.Context(), s))
		o.endpoint("203.0.113.9", label == "web")
	}
}

// What is wrong with endpoints stands in a condition of the route. Endpoints that come
// and go in good order write nothing there.
func TestRoutesTellOfEndpoints(t *testing.T) {
	o := start(t)
	o.serve()
	route := named[gwv1.TCPRoute]("default", "web")
	const kind = gateway.RouteConditionEndpointsUsable
	o.condition(route, kind, "True EndpointsUsable", "Every Service has a ready endpoint.")
	before := o.calm()
	good := o.slice("web-2", "203.0.113.9")
	o.endpoint("203.0.113.9", true)
	o.must(o.kube.Delete(t.Context(), good))
	o.endpoint("203.0.113.9", false)
	time.Sleep(controller.ConditionDelay + time.Second)
	if n := o.calm()["TCPRoute status"] - before["TCPRoute status"]; n != 0 {
		t.Errorf("an endpoint that came and went wrote %d statuses", n)
	}
	bad := o.slice("web-3", "192.0.2.12")
	o.condition(route, kind, "False EndpointsRefused", "EndpointSlice default/web-3: Endpoint 192.0.2.12 is left out: it is the address of a node")
	o.must(o.kube.Delete(t.Context(), bad))
	o.condition(route, kind, "True EndpointsUsable", "")
	o.must(o.kube.Delete(t.Context(), named[discoveryv1.EndpointSlice]("default", "web-1")))
	o.condition(route, kind, "False NoReadyEndpoint", "Service default/web: No endpoint is ready for 198.51.100.0:80/tcp")
}
