// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// writes returns how many writes the operator has done, by kind and verb.
func writes(t *testing.T) map[string]int {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, f := range families {
		if f.GetName() != "blixt_operator_writes_total" {
			continue
		}
		for _, m := range f.Metric {
			all[m.Label[0].GetValue()+" "+m.Label[1].GetValue()] = int(m.Counter.GetValue())
		}
	}
	return all
}

// calm waits until the operator has written nothing for a while, and returns
// what it had written by then.
func (o *operator) calm() map[string]int {
	o.Helper()
	last, since := writes(o.T), time.Now()
	for time.Since(since) < 500*time.Millisecond {
		time.Sleep(50 * time.Millisecond)
		if now := writes(o.T); fmt.Sprint(now) != fmt.Sprint(last) {
			last, since = now, time.Now()
		}
	}
	return last
}

// wrote fails the test unless the operator has written exactly this since.
func (o *operator) wrote(before map[string]int, what string, want map[string]int) {
	o.Helper()
	got := map[string]int{}
	for key, n := range o.calm() {
		if n != before[key] {
			got[key] = n - before[key]
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		o.Errorf("%s: the operator wrote %v, want %v", what, got, want)
	}
}

// published waits until agents are told something that a check accepts.
func (o *operator) published(what string, check func(fleet.Snapshot) bool) {
	o.Helper()
	o.eventually(what, func() error {
		var s fleet.Snapshot
		o.agents.change(func(a *agents) { s = a.snapshot })
		if !check(s) {
			return fmt.Errorf("agents are told %+v", s)
		}
		return nil
	})
}

func TestUnrelatedAndEqualEventsCauseNoWrite(t *testing.T) {
	o := start(t)
	o.serve()
	before := o.calm()
	o.apply(`
apiVersion: v1
kind: Service
metadata: {name: other, namespace: default}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: other-1, namespace: default, labels: {kubernetes.io/service-name: other}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.1.0.9]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: other}
spec: {controllerName: example.com/other}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: other, namespace: default}
spec: {gatewayClassName: other, listeners: [{name: http, protocol: TCP, port: 80}]}
`)
	n := named[corev1.Node]("", "n1")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(n), n))
	n.Status.Conditions[0].LastHeartbeatTime = metav1.Now()
	o.must(o.kube.Status().Update(t.Context(), n))
	o.wrote(before, "what is none of its business", map[string]int{})

	// Of an endpoint, the mirrored slice alone.
	before = o.calm()
	slice := named[discoveryv1.EndpointSlice]("default", "web-1")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(slice), slice))
	slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.1.0.6"}})
	o.must(o.kube.Update(t.Context(), slice))
	o.published("the new endpoint", func(s fleet.Snapshot) bool { return strings.Contains(fmt.Sprint(s.Endpoints), "10.1.0.6") })
	o.wrote(before, "an endpoint more", map[string]int{"EndpointSlice apply": 1})

	// Of a label on a Gateway, nothing but the generation matters.
	before = o.calm()
	gw := named[gwv1.Gateway]("default", "web")
	edit(o, gw, func(gw *gwv1.Gateway) {
		gw.Labels = map[string]string{"a": "b"}
	})
	o.wrote(before, "a label", map[string]int{})
}

func TestChangesAreServed(t *testing.T) {
	o := start(t)
	o.serve()
	gw, route := named[gwv1.Gateway]("default", "web"), named[gwv1.TCPRoute]("default", "web")
	// Agents that hold the state of before are not counted as serving a new listener.
	o.agents.change(func(a *agents) { a.silent = true })
	edit(o, gw, func(gw *gwv1.Gateway) {
		gw.Spec.Listeners = append(gw.Spec.Listeners, gwv1.Listener{Name: "more", Protocol: gwv1.TCPProtocolType, Port: 81})
	})
	o.condition(gw, "Programmed", "False Pending", "0/2 nodes, missing: n1 and n2")
	o.agents.change(func(a *agents) { a.silent = false })
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	if n := gw.Status.Listeners[1].AttachedRoutes; n != 1 {
		t.Errorf("the new listener has %d routes, want 1", n)
	}
	// A Service that goes, and comes back.
	s := named[corev1.Service]("default", "web")
	o.must(o.kube.Delete(t.Context(), s))
	o.condition(route, "ResolvedRefs", "False BackendNotFound", "Service default/web does not exist")
	o.published("a refusing frontend", func(s fleet.Snapshot) bool { return s.Frontends[0].Reject > 0 })
	o.apply(`{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {ports: [{port: 80, targetPort: 8080}]}}`)
	o.condition(route, "ResolvedRefs", "True ResolvedRefs", "")
	// A route that goes leaves its listener without one.
	o.must(o.kube.Delete(t.Context(), route))
	o.published("no backends", func(s fleet.Snapshot) bool { return len(s.Frontends[0].Refs) == 0 })
	o.eventually("attachedRoutes", func() error {
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw))
		if n := gw.Status.Listeners[0].AttachedRoutes; n != 0 {
			return fmt.Errorf("%d, want 0", n)
		}
		return nil
	})
	o.must(o.kube.Delete(t.Context(), gw))
	o.published("nothing", func(s fleet.Snapshot) bool { return len(s.Frontends) == 0 && len(s.Addresses) == 0 })
}

func TestOthersConditionsAndParentsStay(t *testing.T) {
	o := start(t)
	o.serve()
	gw, route := named[gwv1.Gateway]("default", "web"), named[gwv1.TCPRoute]("default", "web")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw))
	foreign := metav1.Condition{Type: "example.com/Audited", Status: "True", Reason: "Audited", LastTransitionTime: metav1.Now(), ObservedGeneration: 1}
	gw.Status.Conditions = append(gw.Status.Conditions, foreign)
	programmed := meta.FindStatusCondition(gw.Status.Conditions, "Programmed")
	programmed.Status, programmed.Message = "False", "somebody wrote over this"
	o.must(o.kube.Status().Update(t.Context(), gw))
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(route), route))
	ref := gwv1.ParentReference{Name: "theirs"}
	route.Spec.ParentRefs = append(route.Spec.ParentRefs, ref)
	o.must(o.kube.Update(t.Context(), route))
	o.must(retry.RetryOnConflict(retry.DefaultBackoff, func() error { // the operator writes it, too
		if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(route), route); err != nil {
			return err
		}
		route.Status.Parents = append(route.Status.Parents, gwv1.RouteParentStatus{ParentRef: ref, ControllerName: "example.com/other", Conditions: []metav1.Condition{foreign}})
		return o.kube.Status().Update(t.Context(), route)
	}))
	// They stay when ours change, and when ours go.
	edit(o, gw, func(gw *gwv1.Gateway) {
		gw.Spec.Listeners[0].Port = 8080
	})
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	if meta.FindStatusCondition(gw.Status.Conditions, foreign.Type) == nil {
		t.Errorf("the Gateway's foreign condition is gone: %v", gw.Status.Conditions)
	}
	o.condition(route, "Accepted", "True Accepted", "")
	route.Spec.ParentRefs = []gwv1.ParentReference{ref}
	o.must(o.kube.Update(t.Context(), route))
	o.eventually("parents", func() error {
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(route), route))
		if p := route.Status.Parents; len(p) != 1 || p[0].ControllerName != "example.com/other" {
			return fmt.Errorf("they are %v, want that of the other controller", p)
		}
		return nil
	})
}

func TestRestartChangesNothing(t *testing.T) {
	o := start(t)
	o.serve()
	gw := named[gwv1.Gateway]("default", "web")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw))
	o.calm()
	o.stop()
	before := writes(t)
	// A new leader, whose agents come a moment later.
	o.agents.change(func(a *agents) {
		a.epoch, a.version, a.snapshot, a.silent = 2, zero[lb.Report]().Version, fleet.Snapshot{}, true
	})
	o.run()
	time.Sleep(700 * time.Millisecond) // less than the grace of a new leader
	o.agents.change(func(a *agents) { a.silent = false })
	o.condition(gw, "Programmed", "True Programmed", "All nodes serve it.")
	o.wrote(before, "a restart", map[string]int{})
}

func zero[T any]() (v T) { return v }

func TestLostAgentIsNamed(t *testing.T) {
	o := start(t)
	o.serve()
	o.agents.change(func(a *agents) {
		a.reports[1].Connected, a.reports[1].LastContact = false, time.Now().Add(-time.Hour)
	})
	o.condition(named[v1alpha1.NodeDataplane]("", "n2"), "Ready", "Unknown AgentLost", "")
	o.agents.change(func(a *agents) { a.reports[0].Error = "table frontends is full: 4096 of 4096" })
	o.condition(named[v1alpha1.NodeDataplane]("", "n1"), "Ready", "False WriteFailed", "4096 of 4096")
}

// TestBrokenConfigBreaksNothing makes a BlixtConfig invalid, and deletes it. An
// operator that starts meanwhile knows what it was.
func TestBrokenConfigBreaksNothing(t *testing.T) {
	o := start(t)
	o.serve()
	class, gw := named[gwv1.GatewayClass]("", "blixt"), named[gwv1.Gateway]("default", "web")
	o.apply(`{apiVersion: blixt.x-k8s.io/v1alpha1, kind: BlixtConfig, metadata: {name: blixt}, spec: {addresses: {source: Pool, pool: [198.51.100.0/29]}, dataplane: {agent: {priorityClassName: mine}}}}`)
	set := named[appsv1.DaemonSet](namespace, rollout.AgentsName(rollout.Name(firstCode)))
	o.eventually("agents", func() error {
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(set), set))
		if got := set.Spec.Template.Spec.PriorityClassName; got != "mine" {
			return fmt.Errorf("their priority class is %s, want mine", got)
		}
		return nil
	})
	generation := set.Generation
	as := func(when, says string) {
		t.Helper()
		o.condition(class, "Accepted", "False InvalidParameters", says)
		o.calm()
		o.condition(gw, "Programmed", "True Programmed", "All nodes")
		o.published("what it was when "+when, func(s fleet.Snapshot) bool {
			return len(s.Frontends) == 1 && s.Frontends[0].String() == "198.51.100.0:80/tcp"
		})
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(set), set))
		if set.Generation != generation {
			t.Errorf("when %s the agents have become %+v", when, set.Spec.Template.Spec)
		}
	}
	restart := func() {
		t.Helper()
		o.stop()
		o.agents.change(func(a *agents) {
			a.epoch, a.version, a.snapshot = a.epoch+1, zero[lb.Report]().Version, fleet.Snapshot{}
		})
		o.run()
	}
	o.config("{source: Pool, pool: [198.51.100.9-198.51.100.1]}")
	as("it is wrong", "198.51.100.9-198.51.100.1")
	restart()
	as("it is wrong and the operator starts", "198.51.100.9-198.51.100.1")
	o.must(o.kube.Delete(t.Context(), named[v1alpha1.BlixtConfig]("", "blixt")))
	as("it is gone", "does not exist")
	restart()
	as("it is gone and the operator starts", "does not exist")
	o.config("{source: Pool, pool: [198.51.100.0/29]}")
	o.condition(class, "Accepted", "True Accepted", "")
}

// TestLastClassTakesAllWithIt deletes what the operator made.
func TestLastClassTakesAllWithIt(t *testing.T) {
	o := start(t)
	o.serve()
	o.must(o.kube.Delete(t.Context(), named[gwv1.GatewayClass]("", "blixt"))) // which waits for its Gateway
	o.calm()
	if got := o.applications(); len(got) != 1 {
		t.Fatalf("applications %v, want one: the class has a Gateway", got)
	}
	o.must(o.kube.Delete(t.Context(), named[gwv1.Gateway]("default", "web")))
	o.eventually("leftovers", func() error {
		var nodes v1alpha1.NodeDataplaneList
		var sets appsv1.DaemonSetList
		o.must(o.kube.List(t.Context(), &nodes))
		o.must(o.kube.List(t.Context(), &sets))
		if n := len(o.applications()) + len(nodes.Items) + len(sets.Items); n > 0 {
			return fmt.Errorf("%d objects", n)
		}
		return nil
	})
}
