// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"encoding/json"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

const addressPreserved = gateway.GatewayConditionClientAddressPreserved

// preserves waits until the agents are to preserve clients' addresses, or not to.
func (o *operator) preserves(when string, want bool) {
	o.Helper()
	o.published(when, func(s fleet.Snapshot) bool {
		return len(s.Frontends) > 0 && !slices.ContainsFunc(s.Frontends, func(f gateway.Frontend) bool { return f.PreserveClient != want })
	})
}

// report changes what each agent reports.
func (o *operator) report(change func(*lb.Report)) {
	o.agents.change(func(a *agents) {
		for i := range a.reports {
			change(&a.reports[i])
		}
	})
}

// again starts the operator again.
func (o *operator) again() {
	o.Helper()
	o.stop()
	o.agents.change(func(a *agents) { a.snapshot = fleet.Snapshot{} })
	o.run()
}

// choose has the owner of the Gateway choose.
func (o *operator) choose(choice v1alpha1.ClientAddress) {
	o.Helper()
	config := named[v1alpha1.BlixtGatewayConfig]("default", "own")
	edit(o, config, func(c *v1alpha1.BlixtGatewayConfig) { c.Spec.ClientAddress = choice })
}

// An upgrade changes no Gateway: what was served by an earlier release has Node, whoever
// changes or deletes what remembers it, until its owner chooses Preserve. A new one has
// Preserve, whatever happens.
func TestServedByEarlierRelease(t *testing.T) {
	o := start(t)
	o.serve()
	gw := named[gwv1.Gateway]("default", "web")
	service := named[corev1.Service]("default", "blixt-web")
	o.preserves("a new Gateway", true)
	o.condition(gw, addressPreserved, "True Preserved", "")
	o.again()
	o.preserves("a new Gateway, after a restart", true)
	o.must(o.kube.Delete(t.Context(), service))
	o.again()
	o.preserves("a new Gateway, after a restart without its Service", true)
	o.service(func(*corev1.Service) error { return nil })
	o.calm()

	// As the earlier release has left it.
	o.stop()
	edit(o, service, func(s *corev1.Service) {
		var p map[string]any
		o.must(json.Unmarshal([]byte(s.Annotations[v1alpha1.LastGoodAnnotation]), &p))
		delete(p, "clientAddress")
		text, err := json.Marshal(p)
		o.must(err)
		s.Annotations[v1alpha1.LastGoodAnnotation] = string(text)
	})
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw))
	gw.Status.Conditions = slices.DeleteFunc(gw.Status.Conditions, func(c metav1.Condition) bool { return c.Type == addressPreserved })
	o.must(o.kube.Status().Update(t.Context(), gw))
	o.again()
	o.preserves("a Gateway of an earlier release", false)
	o.condition(gw, addressPreserved, "False NodeKept", "set clientAddress Preserve in a BlixtGatewayConfig")
	o.service(func(*corev1.Service) error { return nil })
	o.calm()
	for _, loss := range []struct {
		what string
		lose func()
	}{
		{"nothing", func() {}},
		{"a tool has replaced the Gateway's metadata", func() {
			edit(o, gw, func(g *gwv1.Gateway) {
				g.Annotations, g.Labels = nil, map[string]string{"argocd.argoproj.io/instance": "web"}
			})
		}},
		{"its Service", func() { o.must(o.kube.Delete(t.Context(), service)) }},
		{"ConfigMap blixt-incumbents", func() {
			o.must(client.IgnoreNotFound(o.kube.Delete(t.Context(), named[corev1.ConfigMap](namespace, v1alpha1.IncumbentsConfigMap))))
		}},
		{"its status", func() {
			o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw))
			gw.Status = gwv1.GatewayStatus{}
			o.must(o.kube.Status().Update(t.Context(), gw))
		}},
	} {
		o.stop()
		loss.lose()
		o.again()
		o.preserves("a Gateway of an earlier release that has lost "+loss.what, false)
		o.condition(gw, addressPreserved, "False NodeKept", "")
		o.service(func(*corev1.Service) error { return nil })
		o.calm()
	}

	o.create(&v1alpha1.BlixtGatewayConfig{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "own"}})
	edit(o, gw, func(g *gwv1.Gateway) {
		g.Spec.Infrastructure = &gwv1.GatewayInfrastructure{ParametersRef: &gwv1.LocalParametersReference{Group: v1alpha1.GroupName, Kind: "BlixtGatewayConfig", Name: "own"}}
	})
	o.condition(gw, addressPreserved, "False NodeKept", "")
	o.choose(v1alpha1.ClientAddressNode)
	o.condition(gw, addressPreserved, "False NodeChosen", "")
	o.choose(v1alpha1.ClientAddressPreserve)
	o.preserves("its owner has chosen", true)
	o.condition(gw, addressPreserved, "True Preserved", "")
	o.calm()
	o.again()
	o.must(o.kube.Delete(t.Context(), named[v1alpha1.BlixtGatewayConfig]("default", "own")))
	o.condition(gw, "Accepted", "False InvalidParameters", "what was valid last goes on")
	o.preserves("its config is deleted", true)
	edit(o, gw, func(g *gwv1.Gateway) { g.Spec.Infrastructure = nil })
	o.condition(gw, "Accepted", "True Accepted", "")
	o.preserves("its owner has chosen once", true)
}

// What the agents report of each other decides what a Gateway says, but not for a moment.
func TestBackendsThatSeeNodes(t *testing.T) {
	o := start(t)
	o.serve()
	gw := named[gwv1.Gateway]("default", "web")
	o.condition(gw, addressPreserved, "True Preserved", "The client's address is preserved for all backends.")
	o.report(func(r *lb.Report) {
		if r.Node == "n2" {
			r.Announcing.Pairs = []lb.Pair{{Node: "n1", Unanswered: lb.FormOf(false, false, false) | lb.FormOf(true, false, false)}}
		}
	})
	o.condition(gw, addressPreserved, "False PartlyPreserved", "1 of 1 backends see the address of a node: 1 on n1 (from n2: something between the nodes drops their messages by TCP/IPv4, see blixt doctor).")
	o.report(func(r *lb.Report) { r.Announcing = &lb.Announcing{} })
	o.condition(gw, addressPreserved, "True Preserved", "")
	o.report(func(r *lb.Report) {
		if r.Node == "n1" {
			r.UndoesNot = lb.ReasonNotAcked
		}
	})
	o.condition(gw, addressPreserved, "False PartlyPreserved", "1 on n1 (the agent there has not taken the key that signs yet)")
	o.apply(`{apiVersion: blixt.x-k8s.io/v1alpha1, kind: BlixtConfig, metadata: {name: blixt}, spec: {addresses: {source: Pool, pool: [198.51.100.0/29]}, dataplane: {remoteBackends: {path: Stack}}}}`)
	o.condition(gw, addressPreserved, "False PartlyPreserved", "remoteBackends.path of the BlixtConfig is Stack")
}
