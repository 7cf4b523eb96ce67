// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
)

// edit changes an object as somebody does who reads it first.
func edit[T client.Object](o *operator, object T, change func(T)) {
	o.Helper()
	o.must(retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		ctx := context.WithoutCancel(o.Context()) // cleaning up, too
		if err := o.kube.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		change(object)
		return o.kube.Update(ctx, object)
	}))
}

// balanced has the cluster's load balancer give the web Gateway an address. Returns
// the UID of its Service.
func (o *operator) balanced() types.UID {
	o.Helper()
	o.apply(kube.WebGateway)
	o.config("{source: LoadBalancer}")
	o.load(firstCode, "n1", "n2")
	s := o.service(func(*corev1.Service) error { return nil })
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.7"}}
	o.must(o.kube.Status().Update(o.Context(), s))
	o.condition(named[gwv1.Gateway]("default", "web"), "Programmed", "True Programmed", "")
	return s.UID
}

// kept fails the test unless the Service, its address and the frontend are as they
// were, now and after the operator has started again.
func (o *operator) kept(what string, uid types.UID) {
	o.Helper()
	check := func(when string) {
		o.Helper()
		o.calm()
		s := o.service(func(*corev1.Service) error { return nil })
		if s.UID != uid || s.DeletionTimestamp != nil || len(s.Status.LoadBalancer.Ingress) != 1 {
			o.Errorf("%s, %s: the Service is %s with %+v, want %s", what, when, s.UID, s.Status, uid)
		}
		gw := named[gwv1.Gateway]("default", "web")
		o.must(o.kube.Get(o.Context(), client.ObjectKeyFromObject(gw), gw))
		if a := gw.Status.Addresses; len(a) != 1 || a[0].Value != "203.0.113.7" {
			o.Errorf("%s, %s: the Gateway has addresses %+v", what, when, a)
		}
		o.published(what+", "+when, func(s fleet.Snapshot) bool {
			for _, f := range s.Frontends {
				if f.String() == "203.0.113.7:80/tcp" && len(f.Refs) == 1 {
					return true
				}
			}
			return false
		})
	}
	check("at once")
	o.stop()
	o.agents.change(func(a *agents) { a.snapshot = fleet.Snapshot{} })
	o.run()
	check("after a restart")
}

// Nothing that is invalid takes an address, a Service or a frontend away, whether
// or not the operator starts again meanwhile, and each says what is wrong.
func TestMistakesTakeNothing(t *testing.T) {
	o := start(t)
	uid := o.balanced()
	class, gw := named[gwv1.GatewayClass]("", "blixt"), named[gwv1.Gateway]("default", "web")

	edit(o, class, func(c *gwv1.GatewayClass) { c.Spec.ParametersRef.Name = "typo" })
	o.condition(class, "Accepted", "False InvalidParameters", "typo")
	o.kept("a typo in the class", uid)
	o.condition(gw, "Accepted", "True Accepted", "")
	edit(o, class, func(c *gwv1.GatewayClass) { c.Spec.ParametersRef.Name = "blixt" })
	o.condition(class, "Accepted", "True Accepted", "")

	o.must(o.kube.Delete(t.Context(), named[v1alpha1.BlixtConfig]("", "blixt")))
	o.condition(class, "Accepted", "False InvalidParameters", "which does not exist")
	o.kept("a BlixtConfig that is gone", uid)
	o.config("{source: LoadBalancer}")
	o.condition(class, "Accepted", "True Accepted", "")

	o.apply(`{apiVersion: blixt.x-k8s.io/v1alpha1, kind: BlixtGatewayConfig, metadata: {name: mine, namespace: default}, spec: {idleTimeouts: {tcp: 77s}}}`)
	edit(o, gw, func(g *gwv1.Gateway) {
		g.Spec.Infrastructure = &gwv1.GatewayInfrastructure{ParametersRef: &gwv1.LocalParametersReference{Group: "blixt.x-k8s.io", Kind: "BlixtGatewayConfig", Name: "mine"}}
	})
	o.condition(gw, "Programmed", "True Programmed", "")
	o.must(o.kube.Delete(t.Context(), named[v1alpha1.BlixtGatewayConfig]("default", "mine")))
	o.condition(gw, "Accepted", "False InvalidParameters", "what was valid last goes on")
	o.kept("a BlixtGatewayConfig that is gone", uid)
	o.condition(gw, "Programmed", "False Invalid", "what was valid last goes on")
	o.published("the idle timeout of before", func(s fleet.Snapshot) bool {
		return len(s.Frontends) > 0 && s.Frontends[len(s.Frontends)-1].IdleTimeout.Seconds() == 77
	})
	edit(o, gw, func(g *gwv1.Gateway) { g.Spec.Infrastructure = nil })
	o.condition(gw, "Programmed", "True Programmed", "")

	edit(o, gw, func(g *gwv1.Gateway) {
		kind := gwv1.HostnameAddressType
		g.Spec.Addresses = []gwv1.GatewaySpecAddress{{Type: &kind, Value: "web.example.com"}}
	})
	o.condition(gw, "Accepted", "False UnsupportedAddress", "what was valid last goes on")
	o.kept("an address of another type", uid)
	edit(o, gw, func(g *gwv1.Gateway) { g.Spec.Addresses, g.Spec.GatewayClassName = nil, "blitx" })
	o.condition(gw, "Accepted", "False Invalid", "GatewayClass blitx does not exist")
	o.kept("a typo in gatewayClassName", uid)
	edit(o, gw, func(g *gwv1.Gateway) { g.Spec.GatewayClassName = "blixt" })
	o.condition(gw, "Programmed", "True Programmed", "")

	// Another controller's class is a choice, which ends all.
	o.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: theirs}, spec: {controllerName: example.com/other}}`)
	edit(o, gw, func(g *gwv1.Gateway) { g.Spec.GatewayClassName = "theirs" })
	o.eventually("no Service", func() error {
		s := named[corev1.Service]("default", "blixt-web")
		if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(s), s); client.IgnoreNotFound(err) != nil || err == nil {
			return fmt.Errorf("get Service %s: %w, want none", s.Name, cmp.Or(err, errors.New("there is one")))
		}
		return nil
	})
}

// A Service that somebody labels as ours, and gives a Gateway that is gone as its
// owner, is not deleted: who does that may not be allowed to delete it.
func TestForgedServiceIsNotDeleted(t *testing.T) {
	o := prepare(t)
	o.create(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "db",
			Labels: map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager, gwv1.GatewayNameLabelKey: "gone"},
		},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 5432}}},
	}, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "blixt-gone",
			Labels:          map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager, gwv1.GatewayNameLabelKey: "gone"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: gwv1.GroupVersion.String(), Kind: "Gateway", Name: "gone", UID: "gone", Controller: new(true)}},
		},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 5432}}},
	})
	o.run()
	o.serve()
	o.calm()
	for _, name := range []string{"db", "blixt-gone"} {
		s := named[corev1.Service]("default", name)
		if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil || s.DeletionTimestamp != nil {
			t.Errorf("Service %s: %v", name, err)
		}
	}
}

// server returns what has the API server serve the first version of a CRD, or not.
func (o *operator) server(name string, list client.ObjectList) func(bool) {
	serve := func(served bool) {
		o.Helper()
		edit(o, named[apiextv1.CustomResourceDefinition]("", name), func(crd *apiextv1.CustomResourceDefinition) { crd.Spec.Versions[0].Served = served })
		o.eventually(name, func() error {
			if err := o.kube.List(context.Background(), list); (err == nil) != served {
				return fmt.Errorf("served is to be %v: %w", served, err)
			}
			return nil
		})
	}
	o.Cleanup(func() { serve(true) })
	return serve
}

// While a CRD is exchanged, the API server may not serve the version that the operator
// reads. Its objects exist still, so nothing ends.
func TestKindThatIsNotServedTakesNothing(t *testing.T) {
	o := start(t)
	uid := o.balanced()
	serve := o.server("tcproutes.gateway.networking.k8s.io", &gwv1.TCPRouteList{})
	before := failures(t)
	serve(false)
	o.eventually("a pass that fails", func() error {
		if failures(t) == before {
			return fmt.Errorf("there is none")
		}
		return nil
	})
	o.listen(81) // causes a pass
	time.Sleep(500 * time.Millisecond)
	o.published("the route's backend", func(s fleet.Snapshot) bool {
		return len(s.Frontends) > 0 && len(s.Frontends[len(s.Frontends)-1].Refs) == 1
	})
	serve(true)
	o.serves(81)
	if s := o.service(func(*corev1.Service) error { return nil }); s.UID != uid {
		t.Error("the Service is another one")
	}
}

// A Service that somebody deletes is made again, and asks for the same address if the
// Gateway names it.
func TestDeletedServiceIsMadeAgain(t *testing.T) {
	o := start(t)
	uid := o.balanced()
	edit(o, named[gwv1.Gateway]("default", "web"), func(g *gwv1.Gateway) {
		g.Spec.Addresses = []gwv1.GatewaySpecAddress{{Value: "203.0.113.7"}}
	})
	o.must(o.kube.Delete(t.Context(), named[corev1.Service]("default", "blixt-web")))
	o.service(func(s *corev1.Service) error {
		if s.UID == uid || s.Spec.LoadBalancerIP != "203.0.113.7" {
			return fmt.Errorf("it is %s, and asks for %q", s.UID, s.Spec.LoadBalancerIP)
		}
		return nil
	})
}

// A read that fails says nothing of any Gateway: none is written.
func TestFailingReadsWriteNoStatus(t *testing.T) {
	o := start(t)
	o.serve()
	o.calm()
	serve := o.server("clusterbpfapplications.bpfman.io", &bpfmanv1.ClusterBpfApplicationList{})
	serve(false)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		gw := named[gwv1.Gateway]("default", "web")
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw))
		if c := meta.FindStatusCondition(gw.Status.Conditions, "Programmed"); c.Status != metav1.ConditionTrue {
			t.Fatalf("without bpfman's applications the Gateway is %+v", c)
		}
	}
}
