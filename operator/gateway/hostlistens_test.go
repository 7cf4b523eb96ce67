// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// A listener is warned of nodes that listen at its port, by a few names, and by the
// address and protocol that they listen at.
func TestSetHostListens(t *testing.T) {
	at := func(addr string, protocol lb.Protocol, port uint16) lb.Key {
		return lb.Key{Addr: netip.MustParseAddr(addr), Protocol: protocol, Port: port}
	}
	warnings := func(nodes map[lb.Key][]string) map[string]string {
		c := readCase(t, "testdata/host-ports.in.yaml")
		c.Options.Cluster.HostPorts = nil
		translation := c.translate()
		translation.SetHostListens(nodes)
		got := map[string]string{}
		add := func(name string, conditions []metav1.Condition) {
			if w := meta.FindStatusCondition(conditions, v1alpha1.ListenerPortWarning); w != nil {
				got[name] = string(w.Status) + " " + w.Reason + ": " + w.Message
			}
		}
		for _, g := range translation.Gateways {
			for _, l := range g.Status.Listeners {
				add(g.Name+"/"+string(l.Name), l.Conditions)
			}
		}
		return got
	}
	says := func(port, nodes string) string {
		return "True HostListens: Something on the node itself listens at " + port + ", and gets what comes there, not the listener: on " + nodes + ". Stop it, or use another port."
	}
	for _, c := range []struct {
		name  string
		nodes map[lb.Key][]string
		want  map[string]string
	}{
		{"nowhere", nil, map[string]string{}},
		{"nobody's port", map[lb.Key][]string{at("10.1.0.1", lb.UDP, 8001): {"n1"}}, map[string]string{}},
		{"all nodes' port", map[lb.Key][]string{at("10.1.0.1", lb.TCP, 8001): {"n1"}, at("10.1.0.2", lb.TCP, 8001): {"n2"}, at("fd01::1", lb.TCP, 8001): {"n1"}},
			map[string]string{"all/loopback": says("TCP port 8001", "n1, n2")}},
		{"one node's port", map[lb.Key][]string{at("10.1.0.9", lb.TCP, 8009): {"control"}},
			map[string]string{"all/elsewhere": says("TCP port 8009", "control")}},
		{"many", map[lb.Key][]string{at("10.1.0.1", lb.UDP, 80): {"n3", "n1"}, at("10.1.0.2", lb.UDP, 80): {"n4", "n2", "n5"}},
			map[string]string{"all/other-protocol": says("UDP port 80", "n1, n2, n3 and others")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, warnings(c.nodes)); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// What was wrong with the port before is still told.
func TestSetHostListens_KeepsOtherWarnings(t *testing.T) {
	c := readCase(t, "testdata/kept-port-not-allowed.in.yaml")
	translation := c.translate()
	warning := func(g gateway.GatewayStatus) *metav1.Condition {
		return meta.FindStatusCondition(g.Status.Listeners[0].Conditions, v1alpha1.ListenerPortWarning)
	}
	before := *warning(translation.Gateways[1])
	translation.SetHostListens(map[lb.Key][]string{{Addr: netip.MustParseAddr("10.1.0.1"), Protocol: lb.TCP, Port: 8080}: {"n1"}})
	if got := warning(translation.Gateways[1]); got.Reason != v1alpha1.ReasonHostListens ||
		got.Message != "Something on the node itself listens at TCP port 8080, and gets what comes there, not the listener: on n1. Stop it, or use another port. "+before.Message {
		t.Errorf("warning is %+v", got)
	}
}
