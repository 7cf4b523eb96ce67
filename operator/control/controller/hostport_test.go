// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// podAt returns a pod on node n1 with a port of the node, in a sidecar.
func podAt(name string, port int32) *corev1.Pod {
	always := corev1.ContainerRestartPolicyAlways
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName: "n1",
			InitContainers: []corev1.Container{{
				Name: "proxy", Image: "example.com/proxy", RestartPolicy: &always,
				Ports: []corev1.ContainerPort{{ContainerPort: 80, HostPort: port}},
			}},
			Containers: []corev1.Container{{Name: "main", Image: "example.com/main"}},
		},
	}
}

// listener waits for a condition of the web Gateway's first listener: its status and
// reason, "" for none, and a part of its message.
func (o *operator) listener(kind, want, says string) {
	o.Helper()
	gw := named[gwv1.Gateway]("default", "web")
	o.eventually("listener's "+kind, func() error {
		if err := o.kube.Get(o.Context(), client.ObjectKeyFromObject(gw), gw); err != nil {
			return err
		}
		if len(gw.Status.Listeners) == 0 {
			return fmt.Errorf("no listener has a status")
		}
		got, message := "", ""
		if c := meta.FindStatusCondition(gw.Status.Listeners[0].Conditions, kind); c != nil {
			got, message = string(c.Status)+" "+c.Reason, c.Message
		}
		if got != want || !strings.Contains(message, says) {
			return fmt.Errorf("%s is %q: %q, want %q with %q", kind, got, message, want, says)
		}
		return nil
	})
}

// startAtNodes has two nodes serve the listener at their own addresses.
func startAtNodes(t *testing.T) *operator {
	t.Helper()
	o := start(t)
	o.apply(kube.WebGateway)
	o.config("{source: Node}")
	o.load(firstCode, "n1", "n2")
	o.listener("Programmed", "True Programmed", "")
	return o
}

// A pod's hostPort is not given to a listener while the pod runs.
func TestHostPortComesFirst(t *testing.T) {
	o := start(t)
	pod := podAt("ingress", 80)
	o.create(pod)
	o.apply(kube.WebGateway)
	o.config("{source: Node}")
	o.load(firstCode, "n1", "n2")
	o.listener("Accepted", "False PortUnavailable", "is a hostPort of Pod default/ingress on node n1")
	pod.Status.Phase = corev1.PodSucceeded
	o.must(o.kube.Status().Update(t.Context(), pod))
	o.listener("Accepted", "True Accepted", "")
	o.listener("Programmed", "True Programmed", "")
}

// A hostPort that comes later takes no port from a listener: the listener is warned,
// once, and until the pod is gone.
func TestHostPortComesLater(t *testing.T) {
	o := startAtNodes(t)
	pod := podAt("late", 80)
	o.create(pod)
	o.listener(v1alpha1.ListenerPortWarning, "True HostPort", "Pod default/late on node n1")
	o.listener("Programmed", "True Programmed", "")
	o.eventually("event", func() error {
		var all eventsv1.EventList
		if err := o.kube.List(t.Context(), &all, client.InNamespace("default")); err != nil {
			return err
		}
		for _, e := range all.Items {
			if e.Reason == v1alpha1.ReasonHostPort && e.Type == corev1.EventTypeWarning && strings.Contains(e.Note, "Pod default/late") {
				return nil
			}
		}
		return fmt.Errorf("none of %d warns", len(all.Items))
	})
	o.calm()
	o.must(o.kube.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
	o.listener(v1alpha1.ListenerPortWarning, "", "")
}

// The status of a Gateway, which its owner may write, takes no port from a pod when an
// operator starts.
func TestHostPortIsNotTakenByStatus(t *testing.T) {
	o := startAtNodes(t)
	o.stop()
	// Statuses count only where no operator has kept who has what.
	o.must(o.kube.Delete(t.Context(), named[corev1.ConfigMap](namespace, v1alpha1.IncumbentsConfigMap)))
	o.create(podAt("ingress", 80))
	o.run()
	o.listener("Accepted", "False PortUnavailable", "is a hostPort of Pod default/ingress on node n1")
}

// A port that a listener does not get is not the Service's either: kube-proxy would
// take it from the node.
func TestRefusedPortsAreNotOfTheService(t *testing.T) {
	o := start(t)
	o.apply(kube.WebGateway)
	o.config("{source: Node, podTraffic: KubeProxy}")
	o.load(firstCode, "n1", "n2")
	gw := named[gwv1.Gateway]("default", "web")
	has := func(ports string, addresses int) {
		t.Helper()
		o.service(func(s *corev1.Service) error {
			var all []string
			for _, p := range s.Spec.Ports {
				all = append(all, p.Name)
			}
			if got := strings.Join(all, " "); got != ports || len(s.Status.LoadBalancer.Ingress) != addresses {
				return fmt.Errorf("its ports are %q, its addresses %v", got, s.Status.LoadBalancer.Ingress)
			}
			return nil
		})
	}
	change := func(listeners ...gwv1.Listener) {
		t.Helper()
		o.eventually("update", func() error { // its status may be written meanwhile
			if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw); err != nil {
				return err
			}
			gw.Spec.Listeners = listeners
			return o.kube.Update(t.Context(), gw)
		})
	}
	web := gwv1.Listener{Name: "http", Protocol: gwv1.TCPProtocolType, Port: 80}
	tunnel := gwv1.Listener{Name: "tunnel", Protocol: gwv1.UDPProtocolType, Port: 8472}
	has("tcp-80", 2)
	change(web, tunnel)
	o.condition(gw, "Accepted", "True ListenersNotValid", "tunnel")
	has("tcp-80", 2)
	change(tunnel)
	o.condition(gw, "Accepted", "False ListenersNotValid", "")
	has("tcp-80", 0)
}

// Where a node itself listens at a listener's port, the listener is warned, until that
// is over.
func TestHostListens(t *testing.T) {
	o := startAtNodes(t)
	listens := func(keys ...lb.Key) {
		o.agents.change(func(a *agents) {
			for i := range a.reports {
				if a.reports[i].Node == "n2" {
					a.reports[i].HostListens = keys
				}
			}
		})
	}
	shown := func(addresses bool) { // to kube-proxy, which would take the port from the node
		t.Helper()
		o.service(func(s *corev1.Service) error {
			if got := s.Status.LoadBalancer.Ingress; (len(got) > 0) != addresses {
				return fmt.Errorf("it shows %v", got)
			}
			return nil
		})
	}
	shown(true)
	listens(lb.Key{Addr: netip.MustParseAddr("192.0.2.12"), Protocol: lb.TCP, Port: 80})
	shown(false)
	o.listener(v1alpha1.ListenerPortWarning, "True HostListens", "not the listener: on n2.")
	o.listener("Programmed", "True Programmed", "")
	listens()
	shown(true)
	o.listener(v1alpha1.ListenerPortWarning, "", "")
}
