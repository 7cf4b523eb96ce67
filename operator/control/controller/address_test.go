// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// config changes the BlixtConfig's addresses.
func (o *operator) config(addresses string) {
	o.Helper()
	o.apply(fmt.Sprintf("{apiVersion: blixt.x-k8s.io/v1alpha1, kind: BlixtConfig, metadata: {name: blixt}, spec: {addresses: %s}}", addresses))
}

// service waits for the Service of the web Gateway to be as a check wants it.
func (o *operator) service(check func(*corev1.Service) error) *corev1.Service {
	o.Helper()
	s := named[corev1.Service]("default", "blixt-web")
	o.eventually("service", func() error {
		if err := o.kube.Get(o.Context(), client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		return check(s)
	})
	return s
}

// TestLoadBalancerAssigns has the cluster's load balancer give addresses.
func TestLoadBalancerAssigns(t *testing.T) {
	o := start(t)
	o.apply(kube.WebGateway)
	o.config("{source: LoadBalancer, loadBalancerClass: example.com/lb}")
	o.load(firstCode, "n1", "n2")
	gw := named[gwv1.Gateway]("default", "web")
	o.condition(gw, "Programmed", "False AddressNotAssigned", "")
	s := o.service(func(s *corev1.Service) error {
		if c := s.Spec.LoadBalancerClass; c == nil || *c != "example.com/lb" {
			return fmt.Errorf("its class is %v", c)
		}
		return nil
	})
	if s.Spec.Ports[0].NodePort == 0 {
		t.Fatalf("the Service has no node port: %+v", s.Spec)
	}
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.7"}}
	o.must(o.kube.Status().Update(t.Context(), s))
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	if a := gw.Status.Addresses; len(a) != 1 || a[0].Value != "203.0.113.7" {
		t.Errorf("the Gateway has addresses %v", a)
	}
	// Clouds that deliver to a node port are served as well.
	want := fmt.Sprintf("0.0.0.0:%d/tcp", s.Spec.Ports[0].NodePort)
	o.published("VIP and node port", func(f fleet.Snapshot) bool {
		var keys []string
		for _, f := range f.Frontends {
			keys = append(keys, f.String())
		}
		return strings.Contains(fmt.Sprint(keys), "203.0.113.7:80/tcp") && strings.Contains(fmt.Sprint(keys), want)
	})
	// So they are for a listener that comes later.
	o.listen(81)
	o.service(func(s *corev1.Service) error {
		if len(s.Spec.Ports) != 2 || s.Spec.Ports[1].NodePort == 0 {
			return fmt.Errorf("its ports are %+v", s.Spec.Ports)
		}
		want = fmt.Sprintf("0.0.0.0:%d/tcp", s.Spec.Ports[1].NodePort)
		return nil
	})
	o.published("another node port", func(f fleet.Snapshot) bool {
		return slices.ContainsFunc(f.Frontends, func(f gateway.Frontend) bool { return f.String() == want })
	})
	o.calm()
	// What is asked for is passed on; what is given instead is not used.
	edit(o, gw, func(gw *gwv1.Gateway) {
		kind := gwv1.IPAddressType
		gw.Spec.Addresses = []gwv1.GatewaySpecAddress{{Type: &kind, Value: "203.0.113.9"}}
	})
	o.condition(gw, "Programmed", "False AddressNotUsable", "203.0.113.9")
	o.service(func(s *corev1.Service) error {
		if s.Spec.LoadBalancerIP != "203.0.113.9" || s.Annotations["metallb.io/loadBalancerIPs"] != "" {
			return fmt.Errorf("it asks for %q and %v", s.Spec.LoadBalancerIP, s.Annotations)
		}
		return nil
	})
	// Another source is another class, which cannot be changed: a new Service.
	o.config("{source: Node}")
	edit(o, gw, func(gw *gwv1.Gateway) {
		gw.Spec.Addresses = nil
	})
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	if len(gw.Status.Addresses) != 2 || gw.Status.Addresses[0].Value != "192.0.2.11" {
		t.Errorf("the Gateway has addresses %v, want those of the nodes", gw.Status.Addresses)
	}
	n := o.service(func(n *corev1.Service) error {
		if n.UID == s.UID || len(n.Status.LoadBalancer.Ingress) != 2 {
			return fmt.Errorf("it is %s with %v", n.UID, n.Status.LoadBalancer.Ingress)
		}
		return nil
	})
	if n.Spec.Ports[0].NodePort != 0 {
		t.Errorf("the Service has a node port that nobody needs: %+v", n.Spec.Ports)
	}
}

// TestNobodyHijacks has Gateways ask for what is not theirs.
func TestNobodyHijacks(t *testing.T) {
	o := start(t)
	o.apply(kube.WebGateway)
	o.load(firstCode, "n1", "n2")
	gw := named[gwv1.Gateway]("default", "web")
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	api := named[corev1.Service]("default", "kubernetes")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(api), api))
	kind := gwv1.IPAddressType
	for _, address := range []string{api.Spec.ClusterIP, "8.8.8.8", "10.1.0.5", "192.0.2.11"} {
		edit(o, gw, func(gw *gwv1.Gateway) {
			gw.Spec.Addresses = []gwv1.GatewaySpecAddress{{Type: &kind, Value: address}}
		})
		o.condition(gw, "Programmed", "False AddressNotUsable", address)
		o.published("no frontend on "+address, func(s fleet.Snapshot) bool { return len(s.Frontends) == 0 && len(s.Addresses) == 0 })
	}
	o.config("{source: Node}")
	for _, port := range []gwv1.PortNumber{22, 10250, 30080, 40000} {
		edit(o, gw, func(gw *gwv1.Gateway) {
			gw.Spec.Addresses, gw.Spec.Listeners[0].Port = nil, port
		})
		o.condition(gw, "Accepted", "False ListenersNotValid", "")
		if c := gw.Status.Listeners[0].Conditions; !strings.Contains(fmt.Sprint(c), "PortUnavailable") {
			t.Errorf("port %d: the listener says %+v", port, c)
		}
		o.published("nothing", func(s fleet.Snapshot) bool { return len(s.Frontends) == 0 })
	}
}

// TestServiceOfAnotherIsLeftAlone finds a Service where the Gateway's would be.
func TestServiceOfAnotherIsLeftAlone(t *testing.T) {
	o := start(t)
	o.apply(`{apiVersion: v1, kind: Service, metadata: {name: blixt-web, namespace: default}, spec: {ports: [{port: 1234}]}}`)
	o.serve() // which needs none
	s := o.service(func(*corev1.Service) error { return nil })
	if s.Spec.Ports[0].Port != 1234 || len(s.OwnerReferences) > 0 {
		t.Errorf("the other's Service has become %+v", s)
	}
}

// warn has somebody warn of a Service, as MetalLB does.
func (o *operator) warn(s *corev1.Service, name, message string, at time.Time) {
	o.Helper()
	o.create(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: s.Namespace, Name: name},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: s.Namespace, Name: s.Name, UID: s.UID},
		Type:           corev1.EventTypeWarning, Reason: "AllocationFailed", Message: message,
		FirstTimestamp: metav1.NewTime(at), LastTimestamp: metav1.NewTime(at), Count: 1,
	})
}

// TestLoadBalancerSaysWhyNot has the condition repeat what went wrong last.
func TestLoadBalancerSaysWhyNot(t *testing.T) {
	o := start(t)
	o.apply(kube.WebGateway)
	o.config("{source: LoadBalancer}")
	o.load(firstCode, "n1", "n2")
	gw := named[gwv1.Gateway]("default", "web")
	o.condition(gw, "Programmed", "False AddressNotAssigned", "needs an implementation of Services of type LoadBalancer")
	s := o.service(func(*corev1.Service) error { return nil })
	o.warn(s, "first", "no available IPs in pool public", time.Now())
	o.condition(gw, "Programmed", "False AddressNotAssigned", "yet: AllocationFailed: no available IPs in pool public.")
	o.warn(s, "second", "pool public is gone", time.Now().Add(time.Second))
	other := s.DeepCopy()
	other.UID = "another" // that of before had its name
	o.warn(other, "third", "this is history", time.Now().Add(2*time.Second))
	o.condition(gw, "Programmed", "False AddressNotAssigned", "yet: AllocationFailed: pool public is gone.")
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.7"}}
	o.must(o.kube.Status().Update(t.Context(), s))
	o.condition(gw, "Programmed", "True Programmed", "All nodes serve it.")
}
