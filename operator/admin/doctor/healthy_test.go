// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"context"
	"sync"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/admission"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

var (
	now  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	past = metav1.NewTime(now.Add(-time.Hour))
	ours = map[string]string{"app.kubernetes.io/managed-by": "blixt-operator"}
)

// ofChart returns what Blixt's chart installs of bpfman. It is rendered once.
var ofChart = sync.OnceValues(func() ([]*unstructured.Unstructured, error) {
	return kube.ChartBpfman(context.Background(), "../../../charts/blixt")
})

// load returns an object that Blixt's chart installs of bpfman.
func load[T any](t *testing.T, kind, name string) T {
	t.Helper()
	var typed T
	objects, err := ofChart()
	for _, o := range objects {
		if o.GetKind() == kind && o.GetName() == name {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.DeepCopy().Object, &typed); err != nil {
				t.Fatal(err)
			}
			return typed
		}
	}
	t.Fatalf("the chart has no %s %s (%v)", kind, name, err)
	return typed
}

// healthy is a cluster of two nodes with bpfman as the chart installs it,
// and a Gateway that is served.
func healthy(t *testing.T) *doctor.Facts {
	t.Helper()
	daemon := load[appsv1.DaemonSet](t, "DaemonSet", "bpfman-daemon")
	daemon.UID = "daemon"
	agents := appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "blixt-agent-111111111111", UID: "agents", Labels: ours},
		Status:     appsv1.DaemonSetStatus{DesiredNumberScheduled: 2, CurrentNumberScheduled: 2, NumberReady: 2},
	}
	f := &doctor.Facts{
		Now: now, Namespace: "blixt-system", Version: "v1.37.2", Unread: map[string]string{},
		Namespaces: []corev1.Namespace{
			{ObjectMeta: metav1.ObjectMeta{Name: "blixt-system", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "bpfman", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"}}},
		},
		Services: []corev1.Service{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "blixt-web", CreationTimestamp: past, Labels: map[string]string{
				"app.kubernetes.io/managed-by": "blixt-operator", "gateway.networking.k8s.io/gateway-name": "web",
				"gateway.networking.k8s.io/gateway-class-name": "blixt", "service.kubernetes.io/service-proxy-name": "blixt",
			}},
			Spec:   corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.7"}},
			Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}}}},
		}},
		ServiceCIDRs: []networkingv1.ServiceCIDR{{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}}},
		Deployments:  []appsv1.Deployment{deployment("blixt-system", "blixt-operator", 2), deployment("bpfman", "bpfman-operator", 1)},
		DaemonSets:   []appsv1.DaemonSet{daemon, agents},
		NetworkPolicies: []networkingv1.NetworkPolicy{
			{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "blixt-agent", Labels: map[string]string{"app.kubernetes.io/name": "blixt"}}},
		},
		Leases: []coordinationv1.Lease{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "blixt-operator"},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("pod-1"), RenewTime: &metav1.MicroTime{Time: now.Add(-5 * time.Second)}, LeaseDurationSeconds: new(int32(15))},
		}},
		Policies:       admission.Policies(),
		PolicyBindings: admission.Bindings("blixt-system"),
		CSIDrivers: []storagev1.CSIDriver{{
			ObjectMeta: metav1.ObjectMeta{Name: "csi.bpfman.io"},
			Spec:       storagev1.CSIDriverSpec{VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}},
		}},
		BpfmanConfigs: []bpfmanv1.Config{load[bpfmanv1.Config](t, "Config", "bpfman-config")},
		Applications:  []bpfmanv1.ClusterBpfApplication{{ObjectMeta: metav1.ObjectMeta{Name: "blixt-111111111111", Labels: ours}}},
		Classes: []gwv1.GatewayClass{{
			ObjectMeta: metav1.ObjectMeta{Name: "blixt"},
			Spec: gwv1.GatewayClassSpec{
				ControllerName: "gateway.networking.k8s.io/blixt",
				ParametersRef:  &gwv1.ParametersReference{Group: "blixt.x-k8s.io", Kind: "BlixtConfig", Name: "blixt"},
			},
			Status: gwv1.GatewayClassStatus{Conditions: []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionTrue}}},
		}},
		Configs: []v1alpha1.BlixtConfig{{
			ObjectMeta: metav1.ObjectMeta{Name: "blixt", UID: "config"},
			Spec: v1alpha1.BlixtConfigSpec{
				Dataplane: &v1alpha1.Dataplane{Bytecode: &v1alpha1.Bytecode{VerificationKeys: []string{"key"}}},
				Addresses: v1alpha1.Addresses{Source: v1alpha1.SourcePool, Pool: []string{"198.51.100.0/29", "2001:db8:ffff::1-2001:db8:ffff::9"}},
			},
		}},
	}
	for plural, group := range map[string]string{
		"gatewayclasses": "gateway.networking.k8s.io", "gateways": "gateway.networking.k8s.io", "tcproutes": "gateway.networking.k8s.io",
		"udproutes": "gateway.networking.k8s.io", "listenersets": "gateway.networking.k8s.io", "referencegrants": "gateway.networking.k8s.io",
		"blixtconfigs": "blixt.x-k8s.io", "blixtgatewayconfigs": "blixt.x-k8s.io", "blixtpolicies": "blixt.x-k8s.io", "nodedataplanes": "blixt.x-k8s.io",
	} {
		version := map[string]string{"gateway.networking.k8s.io": "v1", "blixt.x-k8s.io": "v1alpha1"}[group]
		f.CRDs = append(f.CRDs, apiextv1.CustomResourceDefinition{
			ObjectMeta: metav1.ObjectMeta{Name: plural + "." + group, Annotations: map[string]string{
				"gateway.networking.k8s.io/bundle-version": "v1.7.0", "gateway.networking.k8s.io/channel": "standard",
			}},
			Spec: apiextv1.CustomResourceDefinitionSpec{Versions: []apiextv1.CustomResourceDefinitionVersion{{Name: version, Served: true}}},
		})
	}
	for _, plural := range []string{"clusterbpfapplications", "clusterbpfapplicationstates", "bpfapplicationstates", "configs"} {
		f.CRDs = append(f.CRDs, load[apiextv1.CustomResourceDefinition](t, "CustomResourceDefinition", plural+".bpfman.io"))
	}
	for _, name := range []string{"n1", "n2"} {
		addNode(f, name)
	}
	return f
}

func deployment(namespace, name string, replicas int32) appsv1.Deployment {
	return appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas},
		Status:     appsv1.DeploymentStatus{ReadyReplicas: replicas},
	}
}

// pod is one of a DaemonSet that runs since a time.
func pod(namespace, name, node string, owner types.UID, container string, since metav1.Time) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, OwnerReferences: []metav1.OwnerReference{{UID: owner, Controller: new(true)}}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{Name: container, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: since}}},
		}},
	}
}

// addNode adds a node on which all is well.
func addNode(f *doctor.Facts, name string) {
	f.Nodes = append(f.Nodes, corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "2001:db8:1::/64"}},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.11"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}, {Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse}},
			NodeInfo:   corev1.NodeSystemInfo{KernelVersion: "6.12.0-31-generic", OperatingSystem: "linux"},
		},
	})
	f.Pods = append(f.Pods, pod("bpfman", "bpfman-daemon-"+name, name, "daemon", "bpfman", past), pod("blixt-system", "blixt-agent-"+name, name, "agents", "agent", past))
	f.CSINodes = append(f.CSINodes, storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "csi.bpfman.io", NodeID: name}}},
	})
	f.States = append(f.States, bpfmanv1.ClusterBpfApplicationState{
		ObjectMeta: metav1.ObjectMeta{
			Name: "blixt-111111111111-" + name, CreationTimestamp: past,
			Labels: map[string]string{"bpfman.io/ownedByProgram": "blixt-111111111111", corev1.LabelHostname: name},
		},
		Status: bpfmanv1.ClBpfApplicationStateStatus{
			Node: name, AppLoadStatus: bpfmanv1.AppLoadSuccess, UpdateCount: 2,
			Conditions: []metav1.Condition{{Type: "Success", Status: metav1.ConditionTrue, LastTransitionTime: past}},
		},
	})
	f.Dataplanes = append(f.Dataplanes, v1alpha1.NodeDataplane{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: v1alpha1.NodeDataplaneStatus{Conditions: []metav1.Condition{
			{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Serving"}, {Type: "Drifted", Status: metav1.ConditionFalse, Reason: "AsAsked"},
		}},
	})
}
