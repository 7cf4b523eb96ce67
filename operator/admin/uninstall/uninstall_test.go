// SPDX-License-Identifier: Apache-2.0

package uninstall_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/uninstall"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// run uninstalls, and returns what it said.
func (c *cluster) run(as client.Client, o uninstall.Options) (string, error) {
	var out bytes.Buffer
	o.Namespace, o.KeepCRDs, o.Out, o.Pause = namespace, true, &out, 50*time.Millisecond
	if o.Timeout == 0 {
		o.Timeout = patience
	}
	err := uninstall.Run(c.Context(), as, o)
	c.Logf("%s%v", out.String(), err)
	return out.String(), err
}

// wantNothing wants what people have made, and the Deployment, to be all.
func (c *cluster) wantNothing() {
	c.Helper()
	var want []string
	for _, name := range c.before {
		if name != "Pod blixt-system/blixt-operator-1" {
			want = append(want, name)
		}
	}
	if diff := cmp.Diff(want, c.objects()); diff != "" {
		c.Errorf("objects (-what people made +left):\n%s", diff)
	}
}

func TestNothingIsLeftThoughGatewaysAre(t *testing.T) {
	c := newCluster(t)
	hook := c.hook()
	if _, err := c.run(hook, uninstall.Options{}); err != nil {
		t.Fatal(err)
	}
	c.wantNothing()
	if got := c.bpfman.Programs(); len(got) > 0 {
		t.Errorf("programs in the kernels: got %v, want none", got)
	}

	class, gw, set, route := &gwv1.GatewayClass{}, &gwv1.Gateway{}, &gwv1.ListenerSet{}, &gwv1.TCPRoute{}
	c.must(c.kube.Get(t.Context(), client.ObjectKey{Name: "blixt"}, class))
	c.must(c.kube.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "web"}, gw))
	c.must(c.kube.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "more"}, set))
	c.must(c.kube.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "web"}, route))
	waiting := func(kind string) string { return kind + " Unknown Pending: Waiting for controller" }
	both := []string{waiting("Accepted"), waiting("Programmed")}
	for _, s := range []struct {
		of        string
		want, got []string
	}{
		{"the class", both[:1], told(class.Status.Conditions)},
		{"the Gateway", both, told(gw.Status.Conditions)},
		{"the ListenerSet", both, told(set.Status.Conditions)},
	} {
		if diff := cmp.Diff(s.want, s.got); diff != "" {
			t.Errorf("conditions of %s (-want +got):\n%s", s.of, diff)
		}
	}
	if len(class.Finalizers) > 0 || len(gw.Status.Addresses) > 0 || len(gw.Status.Listeners) > 0 || len(set.Status.Listeners) > 0 || len(route.Status.Parents) > 0 {
		t.Errorf("finalizers %v of the class, addresses %v and listeners %v of the Gateway, listeners %v of the ListenerSet, parents %v of the route: want none",
			class.Finalizers, gw.Status.Addresses, gw.Status.Listeners, set.Status.Listeners, route.Status.Parents)
	}

	out, err := c.run(hook, uninstall.Options{})
	if want := "Blixt is off this cluster.\n"; err != nil || out != want {
		t.Errorf("the second time: got %q, %v, want %q", out, err, want)
	}
}

func told(conditions []metav1.Condition) (all []string) {
	for _, c := range conditions {
		all = append(all, c.Type+" "+string(c.Status)+" "+c.Reason+": "+c.Message)
	}
	return all
}

func TestNodeDownIsNamedAndForgottenOnRequest(t *testing.T) {
	c := newCluster(t)
	c.bpfman.Break("n2", kube.AgentAway)
	c.setReady("n2", corev1.ConditionUnknown)
	c.must(c.kube.Create(t.Context(), &corev1.Pod{ // which nobody on its node will end
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "agent-on-n2", Labels: map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager}},
		Spec:       corev1.PodSpec{NodeName: "n2", Containers: []corev1.Container{{Name: "agent", Image: "blixt"}}},
	}))
	out, err := c.run(c.kube, uninstall.Options{Timeout: 8 * time.Second})
	if err == nil {
		t.Fatal("got no error, want what blocks")
	}
	var states bpfmanv1.ClusterBpfApplicationStateList
	c.must(c.kube.List(t.Context(), &states, client.MatchingLabels{corev1.LabelHostname: "n2"}))
	for _, want := range []string{
		"ClusterBpfApplicationState " + states.Items[0].Name + " on node n2: the node is not ready",
		"blixt uninstall --namespace blixt-system --force-nodes-down",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
	if !strings.Contains(out, "waiting for ClusterBpfApplicationState "+states.Items[0].Name+" on node n2") {
		t.Errorf("while it waits it does not say what for:\n%s", out)
	}
	if blockers := regexp.MustCompile(`(?m)^  \S.*`).FindAllString(err.Error(), -1); len(blockers) != 1 {
		t.Errorf("blockers %q, want the node alone: the other has unloaded", blockers)
	}

	out, err = c.run(c.kube, uninstall.Options{ForceNodesDown: true})
	if err != nil {
		t.Fatal(err)
	}
	c.wantNothing()
	if want := "node n2 may still run a program of Blixt: restart it"; !strings.Contains(out, want) {
		t.Errorf("output lacks %q:\n%s", want, out)
	}
	if got := c.bpfman.Programs(); len(got) != 1 || got[0].Node != "n2" {
		t.Errorf("programs in the kernels: got %v, want that of n2, which nobody could unload", got)
	}
}

// bpfman may be gone before Blixt is, with its finalizers left.
func TestBpfmanIsNotThere(t *testing.T) {
	c := &cluster{T: t, kube: server.Client}
	c.clear()
	t.Cleanup(c.clear)
	a := &bpfmanv1.ClusterBpfApplication{ObjectMeta: metav1.ObjectMeta{
		Name: "blixt-111111111111", Labels: map[string]string{"app.kubernetes.io/managed-by": "blixt-operator"},
		Finalizers: []string{"bpfman.io.operator/finalizer"},
	}}
	a.Spec.ByteCode.Image = &bpfmanv1.ByteCodeImage{Url: bytecode}
	a.Spec.Programs = []bpfmanv1.ClBpfApplicationProgram{{Name: "blixt", Type: bpfmanv1.ProgTypeTCX, TCX: &bpfmanv1.ClTcxProgramInfo{}}}
	c.must(c.kube.Create(t.Context(), a))
	_, err := c.run(c.kube, uninstall.Options{Timeout: time.Second})
	if err == nil || !strings.Contains(err.Error(), "ClusterBpfApplication blixt-111111111111: it is being deleted, and waits for whoever has its finalizer bpfman.io.operator/finalizer") ||
		!strings.Contains(err.Error(), "install it again") {
		t.Errorf("got %v, want the application, its finalizer and what to do", err)
	}
}

// An operator in another namespace would make everything anew.
func TestOperatorIsElsewhere(t *testing.T) {
	c := newCluster(t)
	before := c.objects()
	err := uninstall.Run(t.Context(), c.kube, uninstall.Options{Namespace: "default", Timeout: patience, KeepCRDs: true, Out: t.Output()})
	if err == nil || !strings.Contains(err.Error(), "name its namespace with --namespace blixt-system") {
		t.Errorf("got %v, want where the operator is", err)
	}
	if diff := cmp.Diff(before, c.objects()); diff != "" {
		t.Errorf("objects (-before +after):\n%s", diff)
	}
}

// What is not Blixt's stays: conditions and parents of other controllers,
// Services and applications of others.
func TestOthersKeepTheirs(t *testing.T) {
	c := newCluster(t)
	gw, route := &gwv1.Gateway{}, &gwv1.TCPRoute{}
	key := client.ObjectKey{Namespace: "default", Name: "web"}
	other := metav1.Condition{Type: "example.com/Seen", Status: metav1.ConditionTrue, Reason: "Seen", LastTransitionTime: metav1.Now()}
	kube.Wait(t, patience, "write", "", func() (string, error) {
		c.must(c.kube.Get(t.Context(), key, gw))
		c.must(c.kube.Get(t.Context(), key, route))
		meta.SetStatusCondition(&gw.Status.Conditions, other)
		route.Status.Parents = append(route.Status.Parents, gwv1.RouteParentStatus{
			ParentRef: gwv1.ParentReference{Name: "else"}, ControllerName: "example.com/other", Conditions: []metav1.Condition{other},
		})
		return "", errors.Join(c.kube.Status().Update(t.Context(), gw), c.kube.Status().Update(t.Context(), route))
	})
	if _, err := c.run(c.kube, uninstall.Options{}); err != nil {
		t.Fatal(err)
	}
	c.must(c.kube.Get(t.Context(), key, gw))
	c.must(c.kube.Get(t.Context(), key, route))
	if meta.FindStatusCondition(gw.Status.Conditions, other.Type) == nil {
		t.Errorf("conditions %v of the Gateway lack another's", gw.Status.Conditions)
	}
	if p := route.Status.Parents; len(p) != 1 || p[0].ControllerName != "example.com/other" {
		t.Errorf("parents of the route: got %v, want another's alone", p)
	}
}

// The kinds of Blixt go on request only, with what people have written of them.
func TestKindsGoOnRequest(t *testing.T) {
	c := newCluster(t)
	if err := uninstall.Run(t.Context(), c.kube, uninstall.Options{Namespace: namespace, Timeout: patience, Out: t.Output()}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../../charts/blixt/files/crds/*.yaml")
	c.must(err)
	for _, file := range files {
		crd, err := os.ReadFile(file)
		c.must(err)
		all, err := kube.Decode(crd)
		c.must(err)
		err = c.kube.Get(t.Context(), client.ObjectKey{Name: all[0].GetName()}, &apiextv1.CustomResourceDefinition{})
		if !apierrors.IsNotFound(err) {
			t.Errorf("get CRD %s: got %v, want that it is gone", all[0].GetName(), err)
		}
	}
	c.must(server.Apply(t.Context(), files...)) // for other tests
	kube.Wait(t, patience, "kinds", true, func() (bool, error) {
		return true, errors.Join(c.kube.List(t.Context(), &v1alpha1.BlixtConfigList{}), c.kube.List(t.Context(), &v1alpha1.BlixtGatewayConfigList{}), c.kube.List(t.Context(), &v1alpha1.BlixtPolicyList{}), c.kube.List(t.Context(), &v1alpha1.NodeDataplaneList{}))
	})
}

func TestDryRunChangesNothing(t *testing.T) {
	c := newCluster(t)
	before := c.objects()
	out, err := c.run(c.hook(), uninstall.Options{DryRun: true, ForceNodesDown: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, c.objects()); diff != "" {
		t.Errorf("objects (-before +after):\n%s", diff)
	}
	c.each(func(kind string, o client.Object) {
		if o.GetDeletionTimestamp() != nil {
			t.Errorf("%s %s is being deleted", kind, client.ObjectKeyFromObject(o))
		}
	})
	if gone, err := c.missing(); gone != "" || err != nil {
		t.Errorf("gone: %s, %v", gone, err)
	}
	d := &appsv1.Deployment{}
	c.must(c.kube.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "blixt-operator"}, d))
	if *d.Spec.Replicas != 1 {
		t.Errorf("the operator was scaled to %d", *d.Spec.Replicas)
	}
	for _, want := range []string{
		"scaled Deployment blixt-system/blixt-operator to 0", "deleted DaemonSet blixt-system/blixt-agent-", "deleted ClusterBpfApplication blixt-",
		"deleted Service default/blixt-web", "deleted EndpointSlice default/blixt-web-", "took back the status of Gateway default/web",
		"removed the finalizer of GatewayClass blixt", "deleted NodeDataplane n1", "deleted Secret blixt-system/blixt-tls", "deleted ConfigMap blixt-system/blixt-ca",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	for line := range strings.Lines(out) {
		if !strings.HasSuffix(line, " (dry run)\n") {
			t.Errorf("line %q does not say that nothing was done", line)
		}
	}
}

// What goes with the release is the class that the operator has made: by this name.
func TestClassOfTheOperatorGoes(t *testing.T) {
	c := newCluster(t)
	hook := c.hook()
	for name, labels := range map[string]map[string]string{"blixt": {"app.kubernetes.io/managed-by": "blixt-operator"}, "formerly": {"app.kubernetes.io/managed-by": "blixt-operator"}, "theirs": nil} {
		class := &gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: gwv1.GatewayClassSpec{ControllerName: "gateway.networking.k8s.io/blixt"}}
		if name == "blixt" {
			c.must(c.kube.Get(t.Context(), client.ObjectKey{Name: name}, class))
			class.Labels = labels
			c.must(c.kube.Update(t.Context(), class))
			continue
		}
		c.must(c.kube.Create(t.Context(), class))
	}
	out, err := c.run(hook, uninstall.Options{})
	if err != nil || !strings.Contains(out, "left GatewayClass formerly, which this account may not delete") {
		t.Fatal(out, err)
	}
	left := strings.Join(c.objects(), "\n")
	if strings.Contains(left, "GatewayClass blixt") || !strings.Contains(left, "GatewayClass formerly") || !strings.Contains(left, "GatewayClass theirs") {
		t.Errorf("what is left:\n%s", left)
	}
}

// bpfman does not go from under the programs of others.
func TestOthersProgramsKeepBpfman(t *testing.T) {
	c := newCluster(t)
	hook := c.hook()
	others := &bpfmanv1.ClusterBpfApplication{ObjectMeta: metav1.ObjectMeta{Name: "netobserv"}}
	others.Spec.ByteCode.Image = &bpfmanv1.ByteCodeImage{Url: "registry.example.com/other"}
	others.Spec.Programs = []bpfmanv1.ClBpfApplicationProgram{{Name: "netobserv", Type: bpfmanv1.ProgTypeTCX, TCX: &bpfmanv1.ClTcxProgramInfo{
		Links: []bpfmanv1.ClTcxAttachInfo{{Direction: bpfmanv1.TCIngress, InterfaceSelector: bpfmanv1.InterfaceSelector{PrimaryNodeInterface: new(true)}}},
	}}}
	c.must(c.kube.Create(t.Context(), others))
	kube.Wait(t, patience, "programs", 4, func() (int, error) { return len(c.bpfman.Programs()), nil })
	before := c.objects()
	_, err := c.run(hook, uninstall.Options{WithBpfman: true})
	if err == nil || !strings.Contains(err.Error(), "bpfman, which goes with this release, has programs of others: ClusterBpfApplication netobserv.") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, c.objects()); diff != "" {
		t.Errorf("it has changed something (-before +after):\n%s", diff)
	}
	if _, err := c.run(hook, uninstall.Options{}); err != nil { // bpfman stays
		t.Error(err)
	}
	c.must(c.kube.Delete(t.Context(), others))
	kube.Wait(t, patience, "the other application is gone", true, func() (bool, error) {
		err := c.kube.Get(t.Context(), client.ObjectKeyFromObject(others), others)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
	if _, err := c.run(hook, uninstall.Options{WithBpfman: true}); err != nil {
		t.Error(err)
	}
}
