// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// serve brings the web Gateway up on both nodes.
func (o *operator) serve() {
	o.Helper()
	o.apply(kube.WebGateway)
	o.load(firstCode, "n1", "n2")
	o.condition(named[gwv1.Gateway]("default", "web"), "Programmed", "True Programmed", "All nodes serve it.")
}

// load plays bpfman and the kubelet: the application of some bytecode is
// loaded on nodes, and its agents start.
func (o *operator) load(bytecode string, nodes ...string) {
	o.Helper()
	o.loadKernel(bytecode, nodes...)
	for _, node := range nodes {
		o.agents.connect(node, rollout.Name(bytecode))
	}
}

// loadKernel is load without agents.
func (o *operator) loadKernel(bytecode string, nodes ...string) {
	o.Helper()
	application := named[bpfmanv1.ClusterBpfApplication]("", rollout.Name(bytecode))
	o.eventually("application", func() error { return o.kube.Get(o.Context(), client.ObjectKeyFromObject(application), application) })
	for i, node := range nodes {
		o.state(application.Name, node, uint32(100+i))
	}
	set := named[appsv1.DaemonSet](namespace, rollout.AgentsName(application.Name))
	o.eventually("agents", func() error { return o.kube.Get(o.Context(), client.ObjectKeyFromObject(set), set) })
	for _, node := range nodes {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "agent-" + node + "-" + application.Name, Labels: set.Spec.Template.Labels},
			Spec:       set.Spec.Template.Spec,
		}
		pod.Spec.NodeName = node
		o.create(pod)
	}
}

// state has bpfman say that a program is loaded and attached on a node.
func (o *operator) state(application, node string, program uint32) {
	o.Helper()
	s := &bpfmanv1.ClusterBpfApplicationState{ObjectMeta: metav1.ObjectMeta{
		Name:   application + "-" + node,
		Labels: map[string]string{"bpfman.io/ownedByProgram": application, corev1.LabelHostname: node},
	}}
	o.must(client.IgnoreAlreadyExists(o.kube.Create(o.Context(), s)))
	o.must(o.kube.Get(o.Context(), client.ObjectKeyFromObject(s), s))
	link := func(direction bpfmanv1.TCDirectionType, id uint32) bpfmanv1.ClTcxAttachInfoState {
		l := bpfmanv1.ClTcxAttachInfoState{InterfaceName: "eth0", Direction: direction, Priority: 50}
		l.ShouldAttach, l.UUID, l.LinkStatus, l.LinkId = true, fmt.Sprint(node, direction), bpfmanv1.ApAttachAttached, &id
		return l
	}
	p := bpfmanv1.ClBpfApplicationProgramState{Type: bpfmanv1.ProgTypeTCX, TCX: &bpfmanv1.ClTcxProgramInfoState{
		Links: []bpfmanv1.ClTcxAttachInfoState{link(bpfmanv1.TCIngress, 3_000_000_000+program), link(bpfmanv1.TCEgress, program)},
	}}
	p.Name, p.ProgramLinkStatus, p.ProgramId = "blixt", bpfmanv1.ProgAttachSuccess, &program
	s.Status = bpfmanv1.ClBpfApplicationStateStatus{
		UpdateCount: 1, Node: node, AppLoadStatus: bpfmanv1.AppLoadSuccess, Programs: []bpfmanv1.ClBpfApplicationProgramState{p},
		Conditions: []metav1.Condition{{Type: "Success", Status: "True", Reason: "Success", LastTransitionTime: metav1.Now()}},
	}
	o.must(o.kube.Status().Update(o.Context(), s))
}

func TestInstallServes(t *testing.T) {
	o := start(t)
	o.apply(kube.WebGateway)
	gw, route := named[gwv1.Gateway]("default", "web"), named[gwv1.TCPRoute]("default", "web")
	// Nobody waits for the data plane but Programmed.
	o.condition(named[gwv1.GatewayClass]("", "blixt"), "Accepted", "True Accepted", "")
	o.condition(gw, "Accepted", "True Accepted", "")
	o.condition(route, "Accepted", "True Accepted", "listener http")
	o.condition(route, "ResolvedRefs", "True ResolvedRefs", "")
	o.condition(gw, "Programmed", "False Pending", "0/2 nodes")

	o.load(firstCode, "n1", "n2")
	o.condition(gw, "Programmed", "True Programmed", "All nodes serve it.")
	if len(gw.Status.Addresses) != 1 || gw.Status.Addresses[0].Value != "198.51.100.0" {
		t.Errorf("the Gateway has addresses %v, want the first of the pool", gw.Status.Addresses)
	}
	snapshot := o.agents.snapshot
	if len(snapshot.Frontends) != 1 || snapshot.Frontends[0].String() != "198.51.100.0:80/tcp" {
		t.Errorf("agents are told to serve %v", snapshot.Frontends)
	}
	for name, e := range snapshot.Endpoints {
		if name.Name != "web" || e.Ports[0].Endpoints[0].Addr != netip.MustParseAddrPort("10.1.0.5:8080") || e.Ports[0].Endpoints[0].Node != "n1" {
			t.Errorf("agents know endpoints %v", e)
		}
	}
	ndp := named[v1alpha1.NodeDataplane]("", "n1")
	o.condition(ndp, "Ready", "True Serving", "")
	if a := ndp.Status.Applications; len(a) != 1 || a[0].ProgramID == nil || *a[0].ProgramID != 100 || *a[0].Links[0].LinkID != 3_000_000_100 || a[0].Bytecode.Digest != firstCode[len("registry.example.com/bytecode@"):] {
		t.Errorf("NodeDataplane says %+v", a)
	}
	// The Service shows the address, kube-proxy leaves it alone, and it has the backends.
	s := named[corev1.Service]("default", "blixt-web")
	o.eventually("service", func() error {
		if err := o.kube.Get(o.Context(), client.ObjectKeyFromObject(s), s); err != nil {
			return err
		}
		if in := s.Status.LoadBalancer.Ingress; len(in) != 1 || in[0].IP != "198.51.100.0" {
			return fmt.Errorf("it has %v", in)
		}
		return nil
	})
	if s.Labels["service.kubernetes.io/service-proxy-name"] != "blixt" || *s.Spec.LoadBalancerClass != "gateway.networking.k8s.io/blixt" {
		t.Errorf("the Service is %+v", s)
	}
	o.eventually("mirrored endpoints", func() error {
		list := &discoveryv1.EndpointSliceList{}
		if err := o.kube.List(o.Context(), list, client.MatchingLabels{discoveryv1.LabelServiceName: s.Name}); err != nil {
			return err
		}
		if len(list.Items) != 1 || list.Items[0].Endpoints[0].Addresses[0] != "10.1.0.5" || *list.Items[0].Ports[0].Port != 8080 {
			return fmt.Errorf("there are %+v", list.Items)
		}
		return nil
	})
	class := named[gwv1.GatewayClass]("", "blixt")
	o.must(o.kube.Get(o.Context(), client.ObjectKeyFromObject(class), class))
	if len(class.Finalizers) != 1 {
		t.Errorf("the GatewayClass in use has finalizers %v", class.Finalizers)
	}
	// All gone: the finalizer too.
	o.must(o.kube.Delete(o.Context(), gw))
	o.must(o.kube.Delete(o.Context(), class))
	o.eventually("class", func() error {
		if err := o.kube.Get(o.Context(), client.ObjectKeyFromObject(class), class); client.IgnoreNotFound(err) != nil || err == nil {
			return fmt.Errorf("it is still there (%w)", errors.Join(err))
		}
		return nil
	})
}
