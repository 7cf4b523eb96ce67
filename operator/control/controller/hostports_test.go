// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

func TestHostPortsOfPods(t *testing.T) {
	ports := func(ports ...corev1.ContainerPort) []corev1.Container { return []corev1.Container{{Ports: ports}} }
	always := corev1.ContainerRestartPolicyAlways
	sidecar := ports(corev1.ContainerPort{HostPort: 81, Protocol: corev1.ProtocolUDP})
	sidecar[0].RestartPolicy = &always
	for _, c := range []struct {
		name string
		spec corev1.PodSpec
		is   corev1.PodPhase
		want []string
	}{
		{"none", corev1.PodSpec{Containers: ports(corev1.ContainerPort{ContainerPort: 80})}, corev1.PodRunning, nil},
		{"of each kind", corev1.PodSpec{Containers: ports(
			corev1.ContainerPort{HostPort: 80, Protocol: corev1.ProtocolTCP}, corev1.ContainerPort{HostPort: 80, Protocol: corev1.ProtocolSCTP},
			corev1.ContainerPort{HostPort: 82, HostIP: "::ffff:192.0.2.1"}, corev1.ContainerPort{HostPort: 83, HostIP: "not an address"},
		), InitContainers: sidecar}, corev1.PodPending, []string{"TCP/80", "TCP/82 192.0.2.1", "TCP/83", "UDP/81"}},
		{"of what ends before the pod starts", corev1.PodSpec{InitContainers: ports(corev1.ContainerPort{HostPort: 80})}, corev1.PodRunning, nil},
		{"of a pod that has ended", corev1.PodSpec{Containers: ports(corev1.ContainerPort{HostPort: 80})}, corev1.PodFailed, nil},
		{"of a pod that is done", corev1.PodSpec{Containers: ports(corev1.ContainerPort{HostPort: 80})}, corev1.PodSucceeded, nil},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: c.spec, Status: corev1.PodStatus{Phase: c.is}}
		if all := hostPorts(pod); all != nil {
			t.Errorf("%s: a pod without node has %v", c.name, all)
		}
		pod.Spec.NodeName = "n1"
		stripped, err := stripPod("blixt-system")(pod)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range hostPorts(stripped.(*corev1.Pod)) {
			text := gateway.Port{Protocol: p.Protocol, Port: p.Port}.String()
			if p.Address.IsValid() {
				text += " " + p.Address.String()
			}
			if got = append(got, text); p.Pod != "shop/web" || p.Node != "n1" {
				t.Errorf("%s: %+v", c.name, p)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: ports (-want +got):\n%s", c.name, diff)
		}
	}
}

// A pod without ports of its node causes no work, nor does a change of one with some
// that has the same ports after it.
func TestHostPortsAreAllThatCountsOfAPod(t *testing.T) {
	plain := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.PodSpec{NodeName: "n1"}}
	with, ended := plain.DeepCopy(), plain.DeepCopy()
	with.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{HostPort: 80}}}}
	with.DeepCopyInto(ended)
	ended.Status.Phase = corev1.PodSucceeded
	running := with.DeepCopy()
	running.Status.Phase = corev1.PodRunning
	e := &events{namespace: "blixt-system", causes: &causes{}}
	for _, c := range []struct {
		name             string
		previous, object client.Object
		want             int
	}{
		{"comes without ports", nil, plain, 0},
		{"changes without ports", plain, plain.DeepCopy(), 0},
		{"comes with ports", nil, with, 1},
		{"runs now", with, running, 0},
		{"ends", with, ended, 1},
		{"is deleted after its end", nil, ended, 0},
	} {
		q := newQueue[request]("test")
		e.add(immediately{q}, c.previous, c.object)
		if q.Len() != c.want {
			t.Errorf("a pod %s: %d requests, want %d", c.name, q.Len(), c.want)
		}
		q.ShutDown()
	}
}

// immediately is a queue without delays.
type immediately struct{ queue }

func (q immediately) AddAfter(r request, _ time.Duration) { q.Add(r) }

// A port of a pod that is gone rests for the pod's successor, however long ago the last
// pass was.
func TestHostPortsRest(t *testing.T) {
	var m hostPortMemory
	now := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	a, b := gateway.HostPort{Pod: "shop/a", Node: "n1", Port: 80}, gateway.HostPort{Pod: "shop/b", Node: "n1", Port: 80}
	gone := a
	gone.Gone = true
	for i, step := range []struct {
		after       time.Duration
		ports, want []gateway.HostPort
		rests       bool
	}{
		{0, []gateway.HostPort{a}, []gateway.HostPort{a}, false},
		{time.Hour, nil, []gateway.HostPort{gone}, true},
		{59 * time.Second, []gateway.HostPort{b}, []gateway.HostPort{b, gone}, true},
		{time.Second, []gateway.HostPort{b}, []gateway.HostPort{b}, false},
		{time.Second, []gateway.HostPort{a, b}, []gateway.HostPort{a, b}, false},
	} {
		now = now.Add(step.after)
		if got := m.remember(now, time.Minute, step.ports); !slices.Equal(got, step.want) || m.rests() != step.rests {
			t.Errorf("step %d: ports %+v, rests %v; want %+v", i, got, m.rests(), step.want)
		}
	}
}
