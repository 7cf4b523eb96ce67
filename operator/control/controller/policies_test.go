// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// denyPolicy denies networks on a target of namespace default.
func denyPolicy(name, kind, target string, networks ...string) string {
	return fmt.Sprintf(`
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtPolicy
metadata: {name: %s, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: %s, name: %s}]
  sources: {deny: [%s]}
---`, name, kind, target, strings.Join(networks, ", "))
}

// denies waits until agents are sent a policy's networks, with a restriction of every
// frontend.
func (o *operator) denies(policy string, networks ...string) {
	o.Helper()
	o.published(policy+" denies "+strings.Join(networks, ", "), func(s fleet.Snapshot) bool {
		return restricts(s, policy) && slices.ContainsFunc(s.Sources, func(set lb.SourceSet) bool {
			return set.Policy == policy && fmt.Sprint(set.Deny) == fmt.Sprint(networks)
		})
	})
}

func restricts(s fleet.Snapshot, policy string) bool {
	for _, f := range s.Frontends {
		if !slices.ContainsFunc(f.Restrictions, func(r lb.Restriction) bool { return r.Policy == policy && r.Sources && !r.DryRun }) {
			return false
		}
	}
	return len(s.Frontends) > 0
}

// policy waits for a condition of a policy on its first ancestor or, with a kind that begins
// with "target ", of its first target.
func (o *operator) policy(name, kind, want, says string) *v1alpha1.BlixtPolicy {
	o.Helper()
	p := named[v1alpha1.BlixtPolicy]("default", name)
	kind, ofTarget := strings.CutPrefix(kind, "target ")
	o.eventually(fmt.Sprintf("%s of %s is %s with %q", kind, name, want, says), func() error {
		if err := o.kube.Get(o.Context(), client.ObjectKeyFromObject(p), p); err != nil {
			return err
		}
		var all []metav1.Condition
		switch {
		case !ofTarget && len(p.Status.Ancestors) > 0:
			all = p.Status.Ancestors[0].Conditions
		case ofTarget && len(p.Status.Targets) > 0:
			all = p.Status.Targets[0].Conditions
		}
		c := meta.FindStatusCondition(all, kind)
		if c == nil || string(c.Status)+" "+c.Reason != want || !strings.Contains(c.Message, says) || c.ObservedGeneration != p.Generation {
			return fmt.Errorf("generation %d has the status %+v", p.Generation, p.Status)
		}
		return nil
	})
	return p
}

// affected waits until Gateway default/web says which policies concern it; "": none.
func (o *operator) affected(want string) {
	o.Helper()
	gw := named[gwv1.Gateway]("default", "web")
	o.eventually(fmt.Sprintf("the Gateway is affected by %q", want), func() error {
		if err := o.kube.Get(o.Context(), client.ObjectKeyFromObject(gw), gw); err != nil {
			return err
		}
		got := ""
		if c := meta.FindStatusCondition(gw.Status.Conditions, v1alpha1.PolicyAffected); c != nil {
			got = c.Message
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			return fmt.Errorf("its condition says %q", got)
		}
		return nil
	})
}

// eventOf waits for an event about a policy.
func (o *operator) eventOf(policy, reason, says string) {
	o.Helper()
	o.eventually(fmt.Sprintf("event %s of %s", reason, policy), func() error {
		list := &eventsv1.EventList{}
		if err := o.kube.List(o.Context(), list, client.InNamespace("default")); err != nil {
			return err
		}
		for i := range list.Items {
			if e := &list.Items[i]; e.Regarding.Kind == "BlixtPolicy" && e.Regarding.Name == policy && e.Reason == reason && strings.Contains(e.Note, says) {
				return nil
			}
		}
		return errors.New("there is none")
	})
}

// A policy of the Gateway is published, becomes Programmed once the nodes have confirmed it,
// and is named by what it concerns. Its sources alone are published alone, and its status
// follows. When it goes, its restrictions and its traces in other objects go.
func TestPolicyFromItsCreationToItsEnd(t *testing.T) {
	o := start(t)
	o.serve()
	o.agents.change(func(a *agents) { a.silent = true })
	o.apply(denyPolicy("office", "Gateway", "web", "203.0.113.0/24"))
	o.denies("default/office", "203.0.113.0/24")
	o.policy("office", "Accepted", "True Accepted", "")
	o.policy("office", "Programmed", "False Reconciling", "")
	o.agents.change(func(a *agents) { a.silent = false })
	o.policy("office", "Programmed", "True Programmed", "All nodes")
	o.affected("default/office")
	o.eventOf("office", "Programmed", "All nodes")
	if n, _ := o.metric("blixt_policies", "Programmed"); n != 1 {
		t.Errorf("%v policies are Programmed by metric", n)
	}

	o.apply(denyPolicy("office", "Gateway", "web", "203.0.113.0/24", "198.51.100.64/26"))
	o.denies("default/office", "198.51.100.64/26", "203.0.113.0/24")
	if n := o.agents.sources.Load(); n != 1 {
		t.Errorf("%d sets of sources were published alone, want 1", n)
	}
	o.policy("office", "Programmed", "True Programmed", "All nodes") // of the new generation

	o.must(o.kube.Delete(t.Context(), named[v1alpha1.BlixtPolicy]("default", "office")))
	o.published("no restriction", func(s fleet.Snapshot) bool { return len(s.Sources) == 0 && !restricts(s, "default/office") })
	o.affected("")
	route := named[gwv1.TCPRoute]("default", "web")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(route), route))
	for _, p := range route.Status.Parents {
		if c := meta.FindStatusCondition(p.Conditions, v1alpha1.PolicyAffected); c != nil {
			t.Errorf("the route says still %+v", c)
		}
	}
	// One of the same name is another one.
	o.apply(denyPolicy("office", "TCPRoute", "web", "192.0.2.0/24"))
	o.denies("default/office", "192.0.2.0/24")
	o.policy("office", "Programmed", "True Programmed", "")
}

// Many changes in a row end as the last one, whatever else of the policy changes between them.
func TestPolicyThatChangesOften(t *testing.T) {
	o := start(t)
	o.serve()
	o.apply(denyPolicy("office", "Gateway", "web", "10.0.0.0/16"))
	o.denies("default/office", "10.0.0.0/16")
	for i := range 20 {
		kind := "Gateway"
		if i%4 == 3 {
			kind = "TCPRoute"
		}
		o.apply(denyPolicy("office", kind, "web", fmt.Sprintf("10.%d.0.0/16", i)))
	}
	o.denies("default/office", "10.19.0.0/16")
	o.published("the target is the route", func(s fleet.Snapshot) bool {
		return s.Frontends[0].Restrictions[0].Target == "TCPRoute/default/web"
	})
	o.policy("office", "Programmed", "True Programmed", "")
}

// Nobody else notices that a target is missing: the policy says so, as an event too.
func TestPolicyWithoutItsTarget(t *testing.T) {
	o := start(t)
	o.serve()
	o.apply(denyPolicy("early", "Gateway", "later", "203.0.113.0/24"))
	o.policy("early", "Accepted", "False TargetNotFound", "Gateway default/later does not exist")
	o.eventOf("early", "TargetNotFound", "default/later")
	o.eventually("metric", func() error {
		if n, _ := o.metric("blixt_problems", "BlixtPolicy", "TargetNotFound"); n != 1 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	gw := named[gwv1.Gateway]("default", "later")
	gw.Spec = gwv1.GatewaySpec{GatewayClassName: "blixt", Listeners: []gwv1.Listener{{Name: "dns", Protocol: gwv1.UDPProtocolType, Port: 53}}}
	o.create(gw)
	o.policy("early", "Accepted", "True Accepted", "")
	o.must(o.kube.Delete(t.Context(), gw))
	o.policy("early", "Accepted", "False TargetNotFound", "default/later")
	// The target of another controller is none of ours.
	o.create(&gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: gwv1.GatewayClassSpec{ControllerName: "example.com/other"}})
	gw = named[gwv1.Gateway]("default", "later")
	gw.Spec = gwv1.GatewaySpec{GatewayClassName: "other", Listeners: []gwv1.Listener{{Name: "dns", Protocol: gwv1.UDPProtocolType, Port: 53}}}
	o.create(gw)
	if p := o.policy("early", "target Accepted", "False Foreign", "is not Blixt's"); len(p.Status.Ancestors) != 0 {
		t.Errorf("ancestors %+v", p.Status.Ancestors)
	}
}

// Of a route with seventeen Gateways, the status has room for sixteen. The policy holds on all.
func TestPolicyOnSeventeenGateways(t *testing.T) {
	o := start(t)
	o.serve()
	config := named[v1alpha1.BlixtConfig]("", "blixt")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(config), config))
	config.Spec.Addresses.Pool = []string{"198.51.100.0/25"}
	o.must(o.kube.Update(t.Context(), config))
	route := named[gwv1.TCPRoute]("default", "web")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(route), route))
	for i := range 16 {
		gw := named[gwv1.Gateway]("default", fmt.Sprint("more", i))
		gw.Spec = gwv1.GatewaySpec{GatewayClassName: "blixt", Listeners: []gwv1.Listener{{Name: "http", Protocol: gwv1.TCPProtocolType, Port: 80}}}
		o.create(gw)
		route.Spec.ParentRefs = append(route.Spec.ParentRefs, gwv1.ParentReference{Name: gwv1.ObjectName(gw.Name)})
	}
	o.must(o.kube.Update(t.Context(), route))
	o.apply(denyPolicy("wide", "TCPRoute", "web", "203.0.113.0/24"))
	o.denies("default/wide", "203.0.113.0/24")
	o.published("seventeen frontends", func(s fleet.Snapshot) bool { return len(s.Frontends) == 17 && restricts(s, "default/wide") })
	p := o.policy("wide", v1alpha1.PolicyAggregated, "True Aggregated", "17")
	if len(p.Status.Ancestors) != 16 {
		t.Errorf("%d ancestors", len(p.Status.Ancestors))
	}
}

// A node whose table is full says so, and is named. What it has room for again is in force.
func TestPolicyForWhichANodeHasNoRoom(t *testing.T) {
	o := start(t)
	o.serve()
	o.apply(denyPolicy("office", "Gateway", "web", "203.0.113.0/24"))
	o.policy("office", "Programmed", "True Programmed", "")
	o.agents.change(func(a *agents) {
		a.reports[1].TableFull = &lb.TableFull{PolicyTable: "sources", Size: 100, Needed: 101, Policies: []string{"default/office"}}
		a.reports[1].Error = a.reports[1].TableFull.String()
	})
	o.policy("office", "Programmed", "False NoCapacity", "Table sources has no room for it on n2.")
	o.eventOf("office", "NoCapacity", "n2")
	// The node says so, too, and its Gateways are served nevertheless.
	o.eventually("node n2 lacks room", func() error {
		n := named[v1alpha1.NodeDataplane]("", "n2")
		if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(n), n); err != nil {
			return err
		}
		if c := meta.FindStatusCondition(n.Status.Conditions, v1alpha1.NodeReady); c == nil || c.Reason != "TableFull" || !strings.Contains(c.Message, "default/office") {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	o.condition(named[gwv1.Gateway]("default", "web"), "Programmed", "True Programmed", "All nodes serve it.")
	o.agents.change(func(a *agents) { a.reports[1].TableFull, a.reports[1].Error = nil, "" })
	o.policy("office", "Programmed", "True Programmed", "All nodes")
	o.agents.change(func(a *agents) { a.reports[0].EnforcesPolicies = false })
	o.policy("office", "Programmed", "True Programmed", "The program of n1 is of a release without BlixtPolicies")
}

// refuse answers requests for policies with an error while it is set.
type refuse struct {
	next    http.RoundTripper
	refuses atomic.Bool
	refused atomic.Int32
}

func (r *refuse) RoundTrip(request *http.Request) (*http.Response, error) {
	if strings.HasSuffix(request.URL.Path, "/blixtpolicies") && r.refuses.Load() {
		r.refused.Add(1)
		return nil, errors.New("connection refused")
	}
	return r.next.RoundTrip(request)
}

// A new leader publishes nothing before it knows the policies: agents would lift restrictions.
func TestNewLeaderPublishesNoFrontendWithoutItsPolicy(t *testing.T) {
	o := prepare(t)
	r := &refuse{}
	o.wrap = func(next http.RoundTripper) http.RoundTripper {
		r.next = next
		return r
	}
	o.run()
	o.serve()
	o.apply(denyPolicy("office", "Gateway", "web", "203.0.113.0/24"))
	o.policy("office", "Programmed", "True Programmed", "")
	o.stop()

	reports := o.agents.reports
	o.agents = newAgents(2)
	o.agents.reports = reports
	r.refuses.Store(true)
	o.run()
	o.eventually("the list of policies is asked for", func() error {
		if r.refused.Load() == 0 {
			return errors.New("it is not")
		}
		return nil
	})
	time.Sleep(500 * time.Millisecond)
	o.agents.change(func(a *agents) {
		if a.published > 0 {
			t.Errorf("agents were sent %+v", a.snapshot)
		}
	})
	r.refuses.Store(false)
	o.denies("default/office", "203.0.113.0/24")
	o.agents.change(func(a *agents) {
		if a.version.Sequence != 1 {
			t.Errorf("the policy came with version %d only", a.version.Sequence)
		}
	})
	o.policy("office", "Programmed", "True Programmed", "")
}

// Where the CRD is missing, as the chart was not upgraded, the operator serves, and says so.
// Once it is there, policies hold without a restart.
func TestClusterWithoutPolicies(t *testing.T) {
	const name = "blixtpolicies.blixt.x-k8s.io"
	o := start(t)
	o.stop()
	crd := named[apiextv1.CustomResourceDefinition]("", name)
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(crd), crd))
	restore := func() { define(t, map[string]*apiextv1.CustomResourceDefinition{name: crd}) }
	defer restore()
	define(t, map[string]*apiextv1.CustomResourceDefinition{name: nil})
	o.run()
	o.serve()
	o.condition(named[gwv1.GatewayClass]("", "blixt"), "Accepted", "True Accepted", "BlixtPolicy v1alpha1 is missing, so no BlixtPolicy holds: install the CRDs of Blixt's chart")
	restore()
	o.eventually("the API server knows the kind", func() error {
		return server.ApplyYAML(t.Context(), []byte(denyPolicy("office", "Gateway", "web", "203.0.113.0/24")))
	})
	o.policy("office", "Programmed", "True Programmed", "")
	o.denies("default/office", "203.0.113.0/24")
}

// What the status says changes nothing, and a policy that somebody else's status is written to
// gets its own again. Nothing is written again and again.
func TestPolicyStatusIsWrittenOnce(t *testing.T) {
	o := start(t)
	o.serve()
	o.apply(denyPolicy("office", "Gateway", "web", "203.0.113.0/24"))
	p := o.policy("office", "Programmed", "True Programmed", "")
	before := writes(t)
	p.Status.Ancestors[0].Conditions[0].Message = "forged"
	p.Status.Ancestors = append(p.Status.Ancestors, gwv1.PolicyAncestorStatus{
		AncestorRef: gwv1.ParentReference{Name: "theirs"}, ControllerName: "example.com/other", Conditions: []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Theirs", LastTransitionTime: metav1.Now()}},
	})
	o.must(o.kube.Status().Update(t.Context(), p))
	o.eventually("our status is back, beside theirs", func() error {
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(p), p))
		if n := len(p.Status.Ancestors); n != 2 || strings.Contains(fmt.Sprint(p.Status), "forged") {
			return fmt.Errorf("%+v", p.Status)
		}
		return nil
	})
	time.Sleep(2 * time.Second)
	for key, n := range writes(t) {
		if strings.Contains(key, "BlixtPolicy") && n-before[key] > 3 {
			t.Errorf("%s: %d writes", key, n-before[key])
		}
	}
}

// Where health is not obeyed, the policies say so that are asked about it, on the Gateway where it is so,
// with an event; it is written once, and goes when it is over.
func TestPolicyWhoseHealthIsNotObeyed(t *testing.T) {
	o := start(t)
	o.serve()
	for _, name := range []string{"checked", "other"} {
		o.apply(strings.Replace(denyPolicy(name, "Gateway", "web", "203.0.113.0/24"), "sources: {deny: [203.0.113.0/24]}", "health: {active: {type: TCP}}", 1))
	}
	o.policy("checked", "Programmed", "True Programmed", "All nodes")
	suspect := lb.HealthNotice{Policy: "default/checked", Gateway: "default/web", Group: "g", Why: "the TCP check fails for all 3 backends of g at once, so it is not obeyed: timeout"}
	panics := lb.HealthNotice{Policy: "default/checked+default/gone", Gateway: "default/web", Group: "h", Why: "2 of 3 backends of h fail"}
	elsewhere := lb.HealthNotice{Policy: "default/other", Gateway: "default/mail", Group: "i", Why: "elsewhere"}
	decide := func(d health.Decision) { o.agents.change(func(a *agents) { a.judged = d }) }

	decide(health.Decision{Suspects: []lb.HealthNotice{suspect, elsewhere}})
	o.policy("checked", "Warning", "True HealthNotObeyed", "health: "+suspect.Why+".")
	o.eventOf("checked", "HealthNotObeyed", "timeout")
	p := o.policy("checked", "Programmed", "True Programmed", "All nodes")
	before := p.ResourceVersion
	for range 5 {
		decide(health.Decision{Suspects: []lb.HealthNotice{suspect, elsewhere}})
		time.Sleep(100 * time.Millisecond)
	}
	if p := o.policy("checked", "Warning", "True HealthNotObeyed", "timeout"); p.ResourceVersion != before {
		t.Errorf("what has not changed was written: %+v", p.Status)
	}
	decide(health.Decision{Suspects: []lb.HealthNotice{suspect}, Panics: []lb.HealthNotice{panics}})
	o.policy("checked", "Warning", "True HealthNotObeyed", "timeout. health: 2 of 3 backends of h fail.")

	decide(health.Decision{})
	o.eventually("the warning goes", func() error {
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(p), p))
		if c := meta.FindStatusCondition(p.Status.Ancestors[0].Conditions, v1alpha1.PolicyWarning); c != nil {
			return fmt.Errorf("it says %+v", c)
		}
		return nil
	})
	other := o.policy("other", "Accepted", "True Accepted", "")
	if c := meta.FindStatusCondition(other.Status.Ancestors[0].Conditions, v1alpha1.PolicyWarning); c != nil {
		t.Errorf("a policy that is not concerned on this Gateway says %+v", c)
	}
}
