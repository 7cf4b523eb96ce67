// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// What the API server refuses of one tenant's is that Gateway's condition: it fails
// no pass, is tried again with pauses that no event shortens, and delays nobody.
func TestRefusedServiceIsAConditionOfItsGateway(t *testing.T) {
	o := prepare(t)
	g := o.guard()
	o.run()
	o.balanced()
	g.refuse("/services/blixt-other")
	before, first := failures(t), g.count()
	o.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: other, namespace: default}, spec: {gatewayClassName: blixt, listeners: [{name: http, protocol: TCP, port: 80}]}}`)
	other := named[gwv1.Gateway]("default", "other")
	o.condition(other, "Programmed", "False AddressNotAssigned", "denied by a policy")
	start := time.Now()
	for i := range 20 {
		o.listen(gwv1.PortNumber(100 + i))
		o.serves(uint16(100 + i))
	}
	if n, took := len(g.since(first, "/services/blixt-other")), time.Since(start); n > 8+int(took/time.Second) {
		t.Errorf("it was tried %d times within %v", n, took)
	}
	if n := failures(t) - before; n > 0 {
		t.Errorf("%v failures were counted", n)
	}
	g.refuse("")
	o.condition(other, "Programmed", "False AddressNotAssigned", "needs an implementation")
}

// A Service that has the name of a Gateway's is nobody's failure, and the Gateway
// gets its own when that is gone.
func TestServiceNameTakenFailsNoPass(t *testing.T) {
	o := start(t)
	o.apply(`{apiVersion: v1, kind: Service, metadata: {name: blixt-web, namespace: default}, spec: {ports: [{port: 1234}]}}`)
	o.serve()
	before := failures(t)
	o.listen(81)
	o.serves(81)
	time.Sleep(time.Second)
	if n := failures(t) - before; n > 0 {
		t.Errorf("%v failures were counted", n)
	}
	o.must(o.kube.Delete(t.Context(), named[corev1.Service]("default", "blixt-web")))
	o.service(func(s *corev1.Service) error {
		if len(s.OwnerReferences) == 0 {
			return fmt.Errorf("it is not the Gateway's")
		}
		return nil
	})
}

// A condition that names 64 listeners of long names is longer than the API server
// takes, were it not clipped.
func TestLongConditionIsWritten(t *testing.T) {
	o := start(t)
	o.serve()
	var listeners, rules []string
	for i := range 64 {
		listeners = append(listeners, fmt.Sprintf("{name: l%d-%s, protocol: TCP, port: %d}", i, strings.Repeat("x", 240), 1000+i))
	}
	rules = append(rules, "{backendRefs: [{name: web, port: 80}]}")
	o.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: wide, namespace: default}, spec: {gatewayClassName: blixt, listeners: [` + strings.Join(listeners, ", ") + `]}}`)
	first := strings.Repeat("a", 200)
	for _, name := range []string{first, "b"} {
		o.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {name: ` + name + `, namespace: default}, spec: {parentRefs: [{name: wide}], rules: [` + rules[0] + `]}}`)
		o.condition(named[gwv1.TCPRoute]("default", name), "Accepted", "True Accepted", "")
		time.Sleep(1100 * time.Millisecond) // the first one is older
	}
	o.condition(named[gwv1.TCPRoute]("default", "b"), "Accepted", "True Accepted", "bytes left out")
}

// A message of the load balancer is repeated, but not all of it.
func TestLongComplaintIsClipped(t *testing.T) {
	o := start(t)
	o.balanced()
	edit(o, named[gwv1.Gateway]("default", "web"), func(g *gwv1.Gateway) {
		g.Spec.Addresses = []gwv1.GatewaySpecAddress{{Value: "203.0.113.9"}}
	})
	s := o.service(func(*corev1.Service) error { return nil })
	o.warn(s, "long", strings.Repeat("why ", 250), time.Now())
	gw := named[gwv1.Gateway]("default", "web")
	o.condition(gw, "Programmed", "False AddressNotUsable", "bytes left out")
	if m := meta.FindStatusCondition(gw.Status.Conditions, "Programmed").Message; len(m) > 1000 {
		t.Errorf("the message has %d bytes", len(m))
	}
}

// Everything is done again from time to time, without any event, and then nothing
// needs to be written.
func TestEverythingIsReconciledFromTimeToTime(t *testing.T) {
	o := prepare(t)
	o.every = 200 * time.Millisecond
	o.run()
	o.serve()
	before := o.calm()
	var first int
	o.agents.change(func(a *agents) { first = a.published })
	o.eventually("passes", func() error {
		var now int
		o.agents.change(func(a *agents) { now = a.published })
		if now < first+3 {
			return fmt.Errorf("%d have come", now-first)
		}
		return nil
	})
	o.wrote(before, "all that is done again", map[string]int{})

	// The slices by which a Service shows its backends are made again if somebody
	// deletes them.
	o.deleteMirror()
	o.eventually("mirror", func() error { return o.mirrored() })
}

func (o *operator) deleteMirror() {
	o.Helper()
	for _, e := range o.mirrors() {
		o.must(o.kube.Delete(o.Context(), &e))
	}
}

func (o *operator) mirrored() error {
	if len(o.mirrors()) == 0 {
		return fmt.Errorf("there is no slice")
	}
	return nil
}

// mirrors returns the slices of the web Gateway's Service.
func (o *operator) mirrors() []discoveryv1.EndpointSlice {
	o.Helper()
	list := &discoveryv1.EndpointSliceList{}
	o.must(o.kube.List(o.Context(), list, client.InNamespace("default"), client.MatchingLabels{discoveryv1.LabelServiceName: "blixt-web"}))
	return list.Items
}
