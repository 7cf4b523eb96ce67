// SPDX-License-Identifier: Apache-2.0

package uninstall_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

var server *kube.Server

func TestMain(m *testing.M) { os.Exit(kube.Run(m, kube.Options{WideLinkIDs: true}, &server)) }

const (
	namespace = "blixt-system"
	bytecode  = "registry.example.com/bytecode@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	patience  = 30 * time.Second
)

// asked is what people ask for, besides a Gateway.
const asked = `
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: default}
spec:
  parentRef: {name: web}
  listeners: [{name: dns, protocol: UDP, port: 53}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: blixt-operator, namespace: blixt-system}
spec:
  replicas: 1
  selector: {matchLabels: {app.kubernetes.io/component: operator}}
  template:
    metadata: {labels: {app.kubernetes.io/component: operator}}
    spec: {containers: [{name: operator, image: blixt}]}
---
apiVersion: v1
kind: Pod
metadata: {name: blixt-operator-1, namespace: blixt-system, labels: {app.kubernetes.io/component: operator}}
spec: {nodeName: n1, containers: [{name: operator, image: blixt}]}
`

// cluster is one in which Blixt serves a Gateway on nodes n1 and n2.
type cluster struct {
	*testing.T
	kube   client.Client
	bpfman *kube.Bpfman
	before []string // what people have made
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{T: t, kube: server.Client}
	c.clear()
	t.Cleanup(c.clear)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	c.must(client.IgnoreAlreadyExists(c.kube.Create(t.Context(), ns)))
	for _, name := range []string{"n1", "n2"} {
		c.must(c.kube.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}))
		c.setReady(name, corev1.ConditionTrue)
	}
	c.must(server.ApplyYAML(t.Context(), []byte(kube.WebGateway+"---"+asked)))
	c.before = c.objects()
	c.bpfman = server.PlayBpfman(t)
	c.play(c.operator())
	kube.Wait(t, patience, "what the operator makes", "", c.missing)
	return c
}

// missing names a kind that the operator has not made yet.
func (c *cluster) missing() (string, error) {
	made := strings.Join(c.objects(), "\n")
	for _, want := range []string{
		"ClusterBpfApplication blixt-", "ClusterBpfApplicationState blixt-", "DaemonSet blixt-system/blixt-agent-", "Pod blixt-system/blixt-agent-",
		"NodeDataplane n1", "NodeDataplane n2", "Service default/blixt-web", "EndpointSlice default/blixt-web-", "Secret blixt-system/blixt-tls",
		"Secret blixt-system/blixt-seed", "Secret blixt-system/blixt-announce-keys", "Secret blixt-system/blixt-metrics", "ConfigMap blixt-system/blixt-ca", "Lease blixt-system/blixt-operator",
	} {
		if !strings.Contains(made, want) {
			return want, nil
		}
	}
	if n := len(c.bpfman.Programs()); n != 2 {
		return fmt.Sprintf("%d programs", n), nil
	}
	var route gwv1.TCPRoute
	var class gwv1.GatewayClass
	err := errors.Join(c.kube.Get(c.Context(), client.ObjectKey{Namespace: "default", Name: "web"}, &route), c.kube.Get(c.Context(), client.ObjectKey{Name: "blixt"}, &class))
	if len(route.Status.Parents) == 0 || len(class.Finalizers) == 0 {
		return "statuses", err
	}
	return "", err
}

// lists are all kinds that Blixt, or people for it, make objects of.
func lists() []client.ObjectList {
	return []client.ObjectList{
		&gwv1.TCPRouteList{}, &gwv1.UDPRouteList{}, &gwv1.ListenerSetList{}, &gwv1.GatewayList{}, &gwv1.GatewayClassList{},
		&v1alpha1.BlixtConfigList{}, &v1alpha1.BlixtGatewayConfigList{}, &v1alpha1.BlixtPolicyList{}, &v1alpha1.NodeDataplaneList{},
		&bpfmanv1.ClusterBpfApplicationList{}, &bpfmanv1.ClusterBpfApplicationStateList{},
		&discoveryv1.EndpointSliceList{}, &corev1.ServiceList{}, &appsv1.DeploymentList{}, &appsv1.DaemonSetList{}, &corev1.PodList{}, &corev1.NodeList{},
		&corev1.SecretList{}, &corev1.ConfigMapList{}, &coordinationv1.LeaseList{},
	}
}

// each calls f with every object that is not Kubernetes' own.
func (c *cluster) each(f func(kind string, o client.Object)) {
	c.Helper()
	for _, list := range lists() {
		c.must(server.Client.List(context.Background(), list))
		kind := strings.TrimSuffix(fmt.Sprintf("%T", list), "List")
		kind = kind[strings.LastIndex(kind, ".")+1:]
		c.must(meta.EachListItem(list, func(item runtime.Object) error {
			o := item.(client.Object)
			if !kube.IsSystem(o) {
				f(kind, o)
			}
			return nil
		}))
	}
}

func (c *cluster) objects() (names []string) {
	c.each(func(kind string, o client.Object) {
		names = append(names, kind+" "+strings.TrimPrefix(client.ObjectKeyFromObject(o).String(), "/"))
	})
	slices.Sort(names)
	return names
}

// clear removes everything.
func (c *cluster) clear() { server.Clear(c, lists()...) }

func (c *cluster) setReady(name string, status corev1.ConditionStatus) {
	c.Helper()
	n := &corev1.Node{}
	c.must(c.kube.Get(c.Context(), client.ObjectKey{Name: name}, n))
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	c.must(c.kube.Status().Update(c.Context(), n))
}

func (c *cluster) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}
