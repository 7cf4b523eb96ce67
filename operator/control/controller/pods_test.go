// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// aPod is as large as pods usually are.
func aPod(namespace, name, ip string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: "1-2-3", ResourceVersion: "7", Labels: map[string]string{"app": name},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: metav1.NewFieldsV1(strings.Repeat("x", 2000))}},
		},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{
			{Name: "main", Image: "example.com/main", Env: make([]corev1.EnvVar, 20), Ports: []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 81, HostPort: 8081}}},
			{Name: "proxy", Image: "example.com/proxy", Ports: []corev1.ContainerPort{{ContainerPort: 90}}},
		}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, Conditions: make([]corev1.PodCondition, 5)},
	}
	return p
}

// Of a pod, the cache keeps addresses and ports of the node; of those of the
// operator's namespace, all.
func TestPodsAreStripped(t *testing.T) {
	strip := stripPod("blixt-system")
	stripped, err := strip(aPod("shop", "web", "10.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	got := stripped.(*corev1.Pod)
	if c := got.Spec.Containers; len(c) != 1 || len(c[0].Ports) != 1 || c[0].Ports[0].HostPort != 8081 || c[0].Env != nil {
		t.Errorf("containers %+v: want the host port alone", c)
	}
	if got.ManagedFields != nil || got.Labels != nil || got.Status.Conditions != nil || got.UID != "1-2-3" || got.ResourceVersion != "7" {
		t.Errorf("got %+v", got)
	}
	again, _ := strip(got)
	if !slices.Equal(addressesOf(again.(*corev1.Pod)), []string{"10.0.0.1"}) {
		t.Errorf("stripped twice it has lost its address: %+v", again)
	}
	own, _ := strip(aPod("blixt-system", "agent", "10.0.0.2"))
	if p := own.(*corev1.Pod); p.ManagedFields != nil || p.Labels["app"] != "agent" || len(p.Spec.Containers) != 2 {
		t.Errorf("pod of the operator's namespace: %+v", p)
	}
	unknown := toolscache.DeletedFinalStateUnknown{Key: "shop/web"}
	if got, err := strip(unknown); err != nil || got != any(unknown) {
		t.Errorf("strip(%v) = %v, %v", unknown, got, err)
	}
}

func TestAddressesOf(t *testing.T) {
	ended := aPod("shop", "job", "10.0.0.3")
	ended.Status.Phase = corev1.PodSucceeded
	for _, test := range []struct {
		object client.Object
		want   []string
	}{
		{aPod("shop", "web", "2001:DB8:0::1"), []string{"2001:db8::1"}},
		{ended, nil},
		{&corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}, ExternalIPs: []string{"192.0.2.9"}}}, nil},
		{&corev1.Service{
			Spec:   corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.1", "fd00::1"}},
			Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}, {Hostname: "lb.example.com"}}}},
		}, []string{"10.96.0.1", "fd00::1", "192.0.2.1"}},
		{&discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}}, {Addresses: []string{"example.com"}}, {}, {Addresses: []string{"::ffff:10.0.0.2"}},
		}}, []string{"10.0.0.1", "10.0.0.2"}},
	} {
		if got := addressesOf(test.object); !slices.Equal(got, test.want) {
			t.Errorf("addresses of %T %s: %v, want %v", test.object, test.object.GetName(), got, test.want)
		}
	}
}
