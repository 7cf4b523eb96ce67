// SPDX-License-Identifier: Apache-2.0

package clusterpage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// hostile is what a name or message must not do anything with.
const hostile = "</script><img src=x onerror=alert(1)>\x1b[2J\u202e'\"`"

func is(kind, reason, message string, status metav1.ConditionStatus) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

// newGateway returns a Gateway of class ours with a TCP and a UDP listener.
func newGateway(name string, conditions ...metav1.Condition) gwv1.Gateway {
	if len(conditions) == 0 {
		conditions = []metav1.Condition{is("Accepted", "Accepted", "", metav1.ConditionTrue), is("Programmed", "Programmed", "", metav1.ConditionTrue)}
	}
	return gwv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: name},
		Spec: gwv1.GatewaySpec{GatewayClassName: "blixt", Listeners: []gwv1.Listener{
			{Name: "tcp", Protocol: gwv1.TCPProtocolType, Port: 80}, {Name: "udp", Protocol: gwv1.UDPProtocolType, Port: 53},
		}},
		Status: gwv1.GatewayStatus{Addresses: []gwv1.GatewayStatusAddress{{Value: "192.0.2.10"}}, Conditions: conditions},
	}
}

// newRoute returns a route of namespace, with what it says of a parent.
func newRoute(namespace, name string, parent gwv1.ParentReference, conditions ...metav1.Condition) gwv1.TCPRoute {
	r := gwv1.TCPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	r.Status.Parents = []gwv1.RouteParentStatus{{ParentRef: parent, ControllerName: gateway.ControllerName, Conditions: conditions}}
	return r
}

var (
	routeAccepted = is("Accepted", "Accepted", "", metav1.ConditionTrue)
	prod          = gwv1.Namespace("prod")
)

// newFacts are of a cluster with a class of Blixt's, and one of somebody else.
func newFacts() *doctor.Facts {
	class := func(name string, controller gwv1.GatewayController) gwv1.GatewayClass {
		return gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: gwv1.GatewayClassSpec{ControllerName: controller}}
	}
	return &doctor.Facts{
		Now: time.Now(), Namespace: "blixt-system", Version: "v1.35.2", Unread: map[string]string{},
		Classes: []gwv1.GatewayClass{class("blixt", gateway.ControllerName), class("other", "example.com/other")},
	}
}

func TestGatewaysSayWhatIsWrongWithTheirParts(t *testing.T) {
	t.Parallel()
	f := newFacts()
	badListener := newGateway("listener")
	badListener.Status.Listeners = []gwv1.ListenerStatus{
		{Name: "tcp", Conditions: []metav1.Condition{is("Accepted", "Accepted", "", metav1.ConditionTrue)}},
		{Name: "udp", Conditions: []metav1.Condition{is("Conflicted", "HostPort", "a pod has port 53", metav1.ConditionTrue)}},
	}
	other := newGateway("other")
	other.Spec.GatewayClassName = "other"
	f.Gateways = []gwv1.Gateway{
		newGateway("well"), newGateway("refused", is("Accepted", "Invalid", hostile, metav1.ConditionFalse)), newGateway("route"), other, badListener, newGateway("set"),
	}
	f.ListenerSets = []gwv1.ListenerSet{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "more"},
		Spec: gwv1.ListenerSetSpec{
			ParentRef: gwv1.ParentGatewayReference{Namespace: &prod, Name: "set"},
			Listeners: []gwv1.ListenerEntry{{Name: "tcp", Protocol: gwv1.TCPProtocolType, Port: 8080}},
		},
		Status: gwv1.ListenerSetStatus{Conditions: []metav1.Condition{is("Accepted", "Accepted", "", metav1.ConditionTrue)}},
	}, {
		ObjectMeta: metav1.ObjectMeta{Namespace: "evil", Name: "refused"},
		Spec: gwv1.ListenerSetSpec{
			ParentRef: gwv1.ParentGatewayReference{Namespace: &prod, Name: "set"},
			Listeners: []gwv1.ListenerEntry{{Name: "tcp", Protocol: gwv1.TCPProtocolType, Port: 666}},
		},
		Status: gwv1.ListenerSetStatus{Conditions: []metav1.Condition{is("Accepted", "NotAllowed", "", metav1.ConditionFalse)}},
	}}
	section := gwv1.SectionName("tcp")
	set := gwv1.Kind("ListenerSet")
	f.TCPRoutes = []gwv1.TCPRoute{
		newRoute("prod", "well", gwv1.ParentReference{Name: "well", SectionName: &section}, routeAccepted),
		newRoute("prod", "dangling", gwv1.ParentReference{Name: "route"}, routeAccepted, is("ResolvedRefs", "BackendNotFound", "Service prod/web does not exist", metav1.ConditionFalse)),
		newRoute("evil", "route", gwv1.ParentReference{Namespace: &prod, Name: "well"}, is("Accepted", "NotAllowedByListeners", hostile, metav1.ConditionFalse)),
		newRoute("team", "more", gwv1.ParentReference{Kind: &set, Name: "more"}, routeAccepted),
		newRoute("evil", "set", gwv1.ParentReference{Kind: &set, Name: "refused"}, routeAccepted),
		newRoute("prod", "nowhere", gwv1.ParentReference{Name: "gone"}, routeAccepted),
	}
	var got strings.Builder
	for _, d := range declare(f) {
		fmt.Fprintf(&got, "%s %s %q\n", d.Name, d.Verdict, d.Problem)
		for _, l := range d.Listeners {
			fmt.Fprintf(&got, "  %s %d/%s %v %q\n", l.Name, l.Port, l.Protocol, l.Routes, l.Problem)
		}
	}
	want := fmt.Sprintf(`prod/listener failed "listener udp: condition Conflicted is True, HostPort: a pod has port 53"
  tcp 80/TCP [] ""
  udp 53/UDP [] "HostPort: a pod has port 53"
prod/refused failed %q
  tcp 80/TCP [] ""
  udp 53/UDP [] ""
prod/route failed "TCPRoute prod/dangling: condition ResolvedRefs is False, BackendNotFound: Service prod/web does not exist"
  tcp 80/TCP [TCPRoute/prod/dangling] "TCPRoute prod/dangling: condition ResolvedRefs is False, BackendNotFound: Service prod/web does not exist"
  udp 53/UDP [] ""
prod/set ok ""
  tcp 80/TCP [] ""
  udp 53/UDP [] ""
  team/more/tcp 8080/TCP [TCPRoute/team/more] ""
prod/well ok ""
  tcp 80/TCP [TCPRoute/prod/well] ""
  udp 53/UDP [] ""
`, "condition Accepted is False, Invalid: "+hostile)
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

// A tenant who has ten thousand routes refer to one Gateway, or writes messages of 32 KiB,
// makes the page no larger.
func TestTextsAreBounded(t *testing.T) {
	t.Parallel()
	f := newFacts()
	f.Gateways = []gwv1.Gateway{newGateway("well")}
	for i := range 10_000 {
		f.TCPRoutes = append(f.TCPRoutes, newRoute("prod", fmt.Sprint("r", i), gwv1.ParentReference{Name: "well"}, is("Accepted", "X", strings.Repeat(hostile, 700), metav1.ConditionFalse)))
	}
	f.Dataplanes = []v1alpha1.NodeDataplane{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: v1alpha1.NodeDataplaneStatus{
		Conditions: []metav1.Condition{is("Ready", "X", strings.Repeat("\xc3\xa4", 16<<10), metav1.ConditionFalse)},
	}}}
	text, err := json.Marshal(struct {
		G []page.Declared
		N []page.Node
	}{declare(f), nodes(f.Dataplanes)})
	if err != nil || len(text) > 16<<10 || strings.Contains(string(text), "<") {
		t.Errorf("%v, %d bytes", err, len(text))
	}
}

func TestNodesSayWhyTheyAreNotWell(t *testing.T) {
	t.Parallel()
	node := func(name string, conditions ...metav1.Condition) v1alpha1.NodeDataplane {
		return v1alpha1.NodeDataplane{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1alpha1.NodeDataplaneStatus{
			Kernel: "6.12.1", Conditions: conditions,
			Applications: []v1alpha1.ApplicationStatus{{Frontends: 4, Backends: 9, Flows: 100, Bytecode: v1alpha1.BytecodeStatus{Digest: "sha256:0123456789abcdef"}}},
		}}
	}
	got := nodes([]v1alpha1.NodeDataplane{
		node("new"), node("well", is("Ready", "Serving", "", metav1.ConditionTrue), is("Drifted", "No", "", metav1.ConditionFalse)),
		node("away", is("Ready", "Away", "no report for 60 s", metav1.ConditionUnknown)),
		node("bad", is("Ready", "Full", "table is full", metav1.ConditionFalse)), node("other", is("Ready", "Serving", "", metav1.ConditionTrue), is("Drifted", "Program", hostile, metav1.ConditionTrue)),
		{ObjectMeta: metav1.ObjectMeta{Name: "empty"}},
	})
	want := []finding.Level{finding.Unknown, finding.OK, finding.Warning, finding.Failed, finding.Failed, finding.Unknown}
	for i, n := range got {
		if n.Verdict != want[i] || (n.Reason == "") != (n.Verdict == finding.OK) {
			t.Errorf("%+v, want %s", n, want[i])
		}
	}
	if n := got[1]; n.Version != "0123456789ab" || n.Flows != 100 || n.Kernel != "6.12.1" || n.Backends != 9 {
		t.Errorf("%+v", n)
	}
}

// nobody answers nothing.
type nobody struct{}

func (nobody) Ask(context.Context, observe.Query, func(string, json.RawMessage) error) error {
	return nil
}

func TestFactsAreReadInTheBackgroundWhileSomebodyLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		block := make(chan struct{})
		s := New(Options{Name: "lab", FactsEvery: 20 * time.Millisecond, Asker: nobody{}, Facts: func(context.Context) (*doctor.Facts, error) {
			if reads.Add(1) > 1 {
				<-block
			}
			return newFacts(), nil
		}})
		var readers sync.WaitGroup
		for range 10 {
			readers.Go(func() {
				if o, err := s.Overview(t.Context()); err != nil || o.Kind != "cluster" || o.Name != "lab" {
					t.Errorf("%+v, %v", o, err)
				}
			})
		}
		readers.Wait()
		if n := reads.Load(); n != 1 {
			t.Errorf("10 readers had the cluster read %d times", n)
		}
		time.Sleep(25 * time.Millisecond) // facts are old: they are read again, and nobody waits
		if _, err := s.Overview(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(25 * time.Millisecond) // very old: a reader waits, and no longer than it wants to
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := s.Overview(ctx); err == nil {
			t.Error("there is an overview of facts that nobody has looked at for long")
		}
		close(block)
		if _, err := s.Overview(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Millisecond)
		before := reads.Load()
		time.Sleep(100 * time.Millisecond)
		if n := reads.Load(); n > before {
			t.Errorf("nobody looks, and the cluster was read %d times", n-before)
		}
	})
}

func TestAnApiServerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	down.Store(true)
	s := New(Options{FactsEvery: time.Millisecond, Asker: nobody{}, Facts: func(context.Context) (*doctor.Facts, error) {
		if down.Load() {
			return nil, errors.New("list Node: connection refused")
		}
		return newFacts(), nil
	}})
	if _, err := s.Overview(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
	down.Store(false)
	await(t, "an overview", func() bool { _, err := s.Overview(t.Context()); return err == nil })
	down.Store(true)
	await(t, "that the facts are old", func() bool {
		s.until = time.Time{}
		o, err := s.Overview(t.Context())
		return err == nil && slices.ContainsFunc(o.Status.Findings, func(f finding.Finding) bool {
			return f.Check == "api-server" && f.Verdict == finding.Unknown && strings.Contains(f.Seen, "connection refused")
		})
	})
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Errorf("waited in vain for %s", what)
}

// The operator has Gateways in its memory, and may not list all that blixt doctor examines.
func TestOverviewOfTheOperator(t *testing.T) {
	t.Parallel()
	f := newFacts()
	f.Unread = map[string]string{"Deployment": "forbidden", "CSINode": "forbidden"}
	g := newGateway("new")
	objects := []client.Object{&f.Classes[0], &g}
	s := New(Options{Own: true, Asker: nobody{}, Objects: fake.NewClientBuilder().WithScheme(kube.Scheme).WithObjects(objects...).Build(), Facts: func(context.Context) (*doctor.Facts, error) { return f, nil }})
	o, err := s.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Gateways) != 1 || o.Gateways[0].Name != "prod/new" || len(f.Gateways) != 0 {
		t.Errorf("Gateways %+v; facts have %d", o.Gateways, len(f.Gateways))
	}
	left := 0
	for _, found := range o.Status.Findings {
		if found.Object == "Deployment" || found.Object == "CSINode" {
			t.Errorf("%+v: the operator is not to list it", found)
		}
		if found.Check == "doctor" && found.Verdict == finding.OK && strings.Contains(found.Seen, "CSINode, Deployment") {
			left++
		}
	}
	if left != 1 {
		t.Errorf("what is left out is not told once: %+v", o.Status.Findings)
	}
}

// Somebody who may list nothing is told so once, and that this is why nothing is shown.
func TestOverviewWithoutRights(t *testing.T) {
	t.Parallel()
	f := newFacts()
	f.Classes = nil
	for _, kind := range []string{"Node", "Gateway", "GatewayClass", "BlixtConfig", "Deployment", "NodeDataplane"} {
		f.Unread[kind] = kind + " is forbidden"
	}
	s := New(Options{Asker: nobody{}, Facts: func(context.Context) (*doctor.Facts, error) { return f, nil }})
	o, err := s.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var told []finding.Finding
	for _, found := range o.Status.Findings {
		if strings.Contains(found.Seen, "may not list") || f.Unread[found.Object] != "" {
			told = append(told, found)
		}
	}
	if len(told) != 1 || told[0].Verdict != finding.Unknown || o.Status.Verdict == finding.OK ||
		!strings.HasPrefix(told[0].Seen, "no Gateway is shown, and ") || !strings.HasSuffix(told[0].Seen, "BlixtConfig, Deployment, Gateway, GatewayClass, Node, NodeDataplane") {
		t.Errorf("%+v", told)
	}
}

// fleet are nodes that answer, or do not.
type fleet struct {
	answers map[string]string
	hangs   map[string]bool
	failed  map[string]string
}

func (f *fleet) Ask(ctx context.Context, q observe.Query, got func(string, json.RawMessage) error) error {
	for _, node := range slices.Sorted(maps.Keys(f.answers)) {
		if q.Flows != nil && node != "n1" {
			continue // it has no flows
		}
		if err := got(node, json.RawMessage(f.answers[node])); err != nil {
			return err
		}
	}
	var failed error
	if len(f.failed) > 0 {
		failed = &observe.NodesError{Reasons: f.failed}
	}
	if len(f.hangs) > 0 {
		<-ctx.Done()
		return errors.Join(ctx.Err(), failed)
	}
	return failed
}

func TestNodesThatDoNotAnswerHoldUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		nodes := &fleet{answers: map[string]string{"n1": "1", "n2": "2"}, hangs: map[string]bool{"n3": true}, failed: map[string]string{"n4": "its agent is not connected"}}
		s := New(Options{Asker: nodes, AskFor: time.Second, Facts: func(context.Context) (*doctor.Facts, error) { return newFacts(), nil }})
		var all []v1alpha1.NodeDataplane
		for _, name := range []string{"n1", "n2", "n3", "n4"} {
			all = append(all, v1alpha1.NodeDataplane{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}
		s.asking.setNodes(all)
		ask := func(q observe.Query) (answers int, unanswered map[string]string, took time.Duration) {
			began := time.Now()
			err := s.Ask(t.Context(), q, func(string, json.RawMessage) error { answers++; return nil })
			var known *observe.NodesError
			if err != nil && !errors.As(err, &known) {
				t.Fatal(err)
			}
			if known != nil {
				unanswered = known.Reasons
			}
			return answers, unanswered, time.Since(began)
		}
		status, flows := observe.Query{Status: &observe.StatusQuery{}}, observe.Query{Flows: &observe.FlowsQuery{}}
		want := map[string]string{"n3": "its agent has not answered within 1s", "n4": "its agent is not connected"}
		answers, unanswered, took := ask(status)
		if answers != 2 || !maps.Equal(unanswered, want) || took < time.Second || took > 2*time.Second {
			t.Errorf("the first look: %d answers, %v, %v", answers, unanswered, took)
		}
		answers, unanswered, took = ask(status)
		if answers != 2 || !maps.Equal(unanswered, want) || took > 800*time.Millisecond {
			t.Errorf("the second look: %d answers, %v, %v: want %v", answers, unanswered, took, lateFor)
		}
		answers, unanswered, _ = ask(flows)
		if answers != 1 || !maps.Equal(unanswered, want) {
			t.Errorf("flows: %d answers, %v", answers, unanswered)
		}
		nodes.answers["n3"], nodes.hangs = "3", nil // it is back
		answers, unanswered, took = ask(status)
		if answers != 3 || len(unanswered) != 1 || took > 800*time.Millisecond {
			t.Errorf("n3 is back: %d answers, %v, %v", answers, unanswered, took)
		}
		if _, late := s.asking.split(); len(late) != 1 {
			t.Errorf("late are still %v", late)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		nodes.hangs = map[string]bool{"n3": true}
		if err := s.Ask(ctx, status, func(string, json.RawMessage) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("a reader that is gone: %v", err)
		}
	})
}
