// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// dropCRD removes one.
func dropCRD(f *doctor.Facts, name string) {
	f.CRDs = slices.DeleteFunc(f.CRDs, func(c apiextv1.CustomResourceDefinition) bool { return c.Name == name })
}

func crd(f *doctor.Facts, name string) *apiextv1.CustomResourceDefinition {
	return &f.CRDs[slices.IndexFunc(f.CRDs, func(c apiextv1.CustomResourceDefinition) bool { return c.Name == name })]
}

// mounts are those of container bpfman.
func mounts(f *doctor.Facts) *[]corev1.VolumeMount {
	return &f.DaemonSets[0].Spec.Template.Spec.Containers[0].VolumeMounts
}

func mountAt(f *doctor.Facts, path string) *corev1.VolumeMount {
	return &(*mounts(f))[slices.IndexFunc(*mounts(f), func(m corev1.VolumeMount) bool { return m.MountPath == path })]
}

func bidirectional() *corev1.MountPropagationMode { return new(corev1.MountPropagationBidirectional) }

// defects each have one check find one thing, whatever the others say.
var defects = []struct {
	name    string
	change  func(*doctor.Facts)
	check   string
	verdict doctor.Level
	object  string
	seen    string // a part of it
	remedy  string // a part of it
}{
	{"Kubernetes is old", func(f *doctor.Facts) { f.Version = "v1.31.9" }, "kubernetes", doctor.Failed, "", "v1.31.9", "Upgrade"},
	{"Kubernetes of a vendor", func(f *doctor.Facts) { f.Version = "v1.33.1-gke.200" }, "kubernetes", doctor.OK, "", "v1.33.1-gke.200", ""},
	{"kernel without TCX", func(f *doctor.Facts) { f.Nodes[1].Status.NodeInfo.KernelVersion = "6.1.0-18-amd64" }, "kernel", doctor.Failed, "Node n2", "no TCX", "6.6"},
	{"kernel without unprivileged bpf", func(f *doctor.Facts) { f.Nodes[1].Status.NodeInfo.KernelVersion = "5.15.0" }, "kernel", doctor.Failed, "Node n2", "without privileges", "6.6"},
	{"kernel without TCX, where it is not needed", func(f *doctor.Facts) {
		f.Nodes[1].Status.NodeInfo.KernelVersion = "5.15.0"
		f.Configs[0].Spec.Dataplane.Nodes.MatchLabels = map[string]string{corev1.LabelHostname: "n1"}
	}, "kernel", doctor.OK, "", "1 nodes", ""},
	{"node with Windows", func(f *doctor.Facts) { f.Nodes[1].Status.NodeInfo.OperatingSystem = "windows" }, "kernel", doctor.Failed, "Node n2", "windows", "kubernetes.io/os: linux"},
	{"disk is full", func(f *doctor.Facts) { f.Nodes[0].Status.Conditions[1].Status = corev1.ConditionTrue }, "disk", doctor.Warning, "Node n1", "DiskPressure", "delete pod"},
	{"no TCPRoutes", func(f *doctor.Facts) { dropCRD(f, "tcproutes.gateway.networking.k8s.io") }, "gateway-api", doctor.Failed, "CustomResourceDefinition tcproutes.gateway.networking.k8s.io", "TCP is not served", "standard-install.yaml"},
	{"UDPRoutes of an old version", func(f *doctor.Facts) {
		crd(f, "udproutes.gateway.networking.k8s.io").Spec.Versions[0].Name = "v1alpha2"
	}, "gateway-api", doctor.Failed, "CustomResourceDefinition udproutes.gateway.networking.k8s.io", "does not serve version v1", "standard-install.yaml"},
	{"no ListenerSets", func(f *doctor.Facts) { dropCRD(f, "listenersets.gateway.networking.k8s.io") }, "gateway-api", doctor.Warning, "CustomResourceDefinition listenersets.gateway.networking.k8s.io", "no ListenerSets", "standard-install.yaml"},
	{"old Gateway API", func(f *doctor.Facts) {
		crd(f, "gateways.gateway.networking.k8s.io").Annotations["gateway.networking.k8s.io/bundle-version"] = "v1.4.0"
	}, "gateway-api", doctor.Warning, "CustomResourceDefinition gateways.gateway.networking.k8s.io", "v1.4.0, older than", "standard-install.yaml"},
	{"old Gateway API of the experimental channel", func(f *doctor.Facts) {
		crd(f, "gateways.gateway.networking.k8s.io").Annotations["gateway.networking.k8s.io/bundle-version"] = "v1.4.0"
		crd(f, "gateways.gateway.networking.k8s.io").Annotations["gateway.networking.k8s.io/channel"] = "experimental"
	}, "gateway-api", doctor.Warning, "CustomResourceDefinition gateways.gateway.networking.k8s.io", "v1.4.0, older than", "v1.7.0/experimental-install.yaml"},
	{"Gateway API 1.6", func(f *doctor.Facts) {
		for i := range f.CRDs {
			f.CRDs[i].Annotations["gateway.networking.k8s.io/bundle-version"] = "v1.6.0"
		}
	}, "gateway-api", doctor.OK, "", "Gateway API is v1.6.0 standard", ""},
	{"a patch of the newest Gateway API", func(f *doctor.Facts) {
		for i := range f.CRDs {
			f.CRDs[i].Annotations["gateway.networking.k8s.io/bundle-version"] = "v1.7.9"
		}
	}, "gateway-api", doctor.OK, "", "Gateway API is v1.7.9 standard", ""},
	{"newer Gateway API", func(f *doctor.Facts) {
		crd(f, "gateways.gateway.networking.k8s.io").Annotations["gateway.networking.k8s.io/bundle-version"] = "v1.8.0"
	}, "gateway-api", doctor.Warning, "CustomResourceDefinition gateways.gateway.networking.k8s.io", "v1.8.0, newer than v1.7.0", "Upgrade Blixt"},
	{"fields of the experimental channel", func(f *doctor.Facts) {
		f.Ignored = map[string][]string{"Gateway default/web": {"spec.addresses[0].routability"}}
	}, "gateway-api", doctor.Warning, "Gateway default/web", "ignores spec.addresses[0].routability", "Remove"},
	{"channels of Gateway API are mixed", func(f *doctor.Facts) {
		crd(f, "tcproutes.gateway.networking.k8s.io").Annotations["gateway.networking.k8s.io/channel"] = "experimental"
	}, "gateway-api", doctor.Warning, "", "v1.7.0 experimental and v1.7.0 standard", "standard-install.yaml"},
	{"no BlixtConfigs", func(f *doctor.Facts) { dropCRD(f, "blixtconfigs.blixt.x-k8s.io") }, "blixt-kinds", doctor.Failed, "CustomResourceDefinition blixtconfigs.blixt.x-k8s.io", "is not there", "charts/blixt/files/crds"},
	{"no kinds of bpfman", func(f *doctor.Facts) { dropCRD(f, "clusterbpfapplications.bpfman.io") }, "bpfman-kinds", doctor.Failed, "CustomResourceDefinition clusterbpfapplications.bpfman.io", "no program", "bpfman.enabled=true"},
	{"link ids are int32", func(f *doctor.Facts) { shrink(&crd(f, "clusterbpfapplicationstates.bpfman.io").Spec) }, "bpfman-link-ids", doctor.Failed, "CustomResourceDefinition clusterbpfapplicationstates.bpfman.io", "format int32", "format: int64"},
	{"kinds of another release", func(f *doctor.Facts) {
		for i := range f.Deployments[:2] {
			f.Deployments[i].Annotations = map[string]string{"meta.helm.sh/release-name": "blixt", "meta.helm.sh/release-namespace": "blixt-system"}
		}
		crd(f, "configs.bpfman.io").Annotations["meta.helm.sh/release-name"] = "former"
		crd(f, "configs.bpfman.io").Annotations["meta.helm.sh/release-namespace"] = "other"
		for _, kind := range []string{"clusterbpfapplications", "clusterbpfapplicationstates", "bpfapplicationstates"} {
			delete(crd(f, kind+".bpfman.io").Annotations, "blixt.x-k8s.io/chart")
		}
	}, "kinds-release", doctor.Warning, "CustomResourceDefinition configs.bpfman.io", "upgrades of release blixt-system/blixt do not reach them", "kubectl annotate --overwrite crd configs.bpfman.io meta.helm.sh/release-name=blixt meta.helm.sh/release-namespace=blixt-system && kubectl label --overwrite crd configs.bpfman.io app.kubernetes.io/managed-by=Helm"},
	{"bpfman by manifests of the chart, beside a release", func(f *doctor.Facts) {
		f.Deployments[0].Annotations = map[string]string{"meta.helm.sh/release-name": "blixt", "meta.helm.sh/release-namespace": "blixt-system"}
		for i := range f.CRDs {
			if !strings.HasSuffix(f.CRDs[i].Name, ".bpfman.io") {
				delete(f.CRDs[i].Annotations, "blixt.x-k8s.io/chart")
			}
		}
	}, "kinds-release", doctor.OK, "", "the kinds of Blixt's chart are those of release blixt-system/blixt", ""},
	{"bpfman of OLM", func(f *doctor.Facts) {
		f.Deployments[1].Labels = map[string]string{"olm.owner": "bpfman-operator.v0.5.8", "olm.owner.kind": "ClusterServiceVersion"}
	}, "bpfman-source", doctor.Warning, "Deployment bpfman/bpfman-operator", "OLM has installed it (bpfman-operator.v0.5.8)", "Remove the eBPF Manager Operator"},
	{"bpfman of the release", func(f *doctor.Facts) {
		f.Deployments[1].Annotations = map[string]string{"meta.helm.sh/release-name": "blixt", "meta.helm.sh/release-namespace": "blixt-system"}
	}, "bpfman-source", doctor.OK, "", "is of Helm's release blixt-system/blixt", ""},
	{"bpfman of manifests", func(*doctor.Facts) {}, "bpfman-source", doctor.OK, "", "is of manifests, not of Blixt's chart", ""},
	{"bpfman is not installed", func(f *doctor.Facts) { f.Deployments = f.Deployments[:1] }, "bpfman-operator", doctor.Failed, "Deployment bpfman/bpfman-operator", "not there", "bpfman.enabled=true"},
	{"bpfman's operator does not run", func(f *doctor.Facts) { f.Deployments[1].Status.ReadyReplicas = 0 }, "bpfman-operator", doctor.Failed, "Deployment bpfman/bpfman-operator", "readyReplicas is 0", "kubectl -n bpfman"},
	{"no DaemonSet of bpfman", func(f *doctor.Facts) { f.DaemonSets = f.DaemonSets[1:] }, "bpfman-nodes", doctor.Failed, "DaemonSet bpfman/bpfman-daemon", "not there", "bpfman.enabled=true"},
	{"a taint keeps bpfman off a node", func(f *doctor.Facts) { f.Pods = f.Pods[2:] }, "bpfman-nodes", doctor.Failed, "Node n1", "no pod of", "tolerations"},
	{"bpfman-agent crashes", func(f *doctor.Facts) {
		f.Pods[0].Status.ContainerStatuses = append(f.Pods[0].Status.ContainerStatuses, corev1.ContainerStatus{
			Name: "bpfman-agent", RestartCount: 9, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		})
	}, "bpfman-nodes", doctor.Failed, "Pod bpfman/bpfman-daemon-n1", "bpfman-agent waits (CrashLoopBackOff, 9 restarts)", "logs"},
	{"the data plane leaves nodes out", func(f *doctor.Facts) {
		f.Configs[0].Spec.Dataplane.Nodes.MatchLabels = map[string]string{corev1.LabelHostname: "n1"}
	}, "bpfman-selector", doctor.Warning, "BlixtConfig", "leaves out n2", "nodeSelector"},
	{"bpfman is kept off the nodes that are left out", func(f *doctor.Facts) {
		f.Configs[0].Spec.Dataplane.Nodes.MatchLabels = map[string]string{corev1.LabelHostname: "n1"}
		f.Pods = f.Pods[:2]
	}, "bpfman-selector", doctor.OK, "", "all nodes that bpfman is on", ""},
	{"pins as released", func(f *doctor.Facts) {
		*mounts(f) = slices.DeleteFunc(*mounts(f), func(m corev1.VolumeMount) bool { return m.MountPath == "/run/bpfman/fs" })
	}, "bpfman-pins", doctor.Failed, "DaemonSet bpfman/bpfman-daemon", "no volumeMount at /run/bpfman/fs", "patch daemonset bpfman-daemon"},
	{"pins do not propagate", func(f *doctor.Facts) { mountAt(f, "/run/bpfman/fs").MountPropagation = nil }, "bpfman-pins", doctor.Failed, "DaemonSet bpfman/bpfman-daemon", "no mountPropagation", "patch daemonset bpfman-daemon"},
	{"pins in a volume of the pod", func(f *doctor.Facts) { mountAt(f, "/run/bpfman/fs").Name = "bpfman-sock" }, "bpfman-pins", doctor.Failed, "DaemonSet bpfman/bpfman-daemon", "is not hostPath", "patch daemonset bpfman-daemon"},
	{"all of /run/bpfman propagates", func(f *doctor.Facts) { mountAt(f, "/run/bpfman").MountPropagation = bidirectional() }, "bpfman-pins", doctor.Warning, "DaemonSet bpfman/bpfman-daemon", "doubles the mounts", "mountPropagation"},
	{"no pins to look at", func(f *doctor.Facts) { f.DaemonSets = f.DaemonSets[1:] }, "bpfman-pins", doctor.Unknown, "", "no DaemonSet", "bpfman-nodes"},
	{"no override to look at", func(f *doctor.Facts) { f.DaemonSets = f.DaemonSets[1:] }, "bpfman-override", doctor.Unknown, "", "no DaemonSet", "bpfman-nodes"},
	{"no configuration to look at", func(f *doctor.Facts) { f.BpfmanConfigs = nil }, "bpfman-signing", doctor.Unknown, "ConfigMap bpfman/bpfman-config", "no configuration", "bpfman-nodes"},
	{"the operator undoes the pins", func(f *doctor.Facts) { f.BpfmanConfigs[0].Spec.Overrides[0].Unmanaged = false }, "bpfman-override", doctor.Failed, "Config bpfman-config", "unmanaged", `kubectl patch configs.bpfman.io bpfman-config --type=merge -p '{"spec":{"overrides":[{`},
	{"bpfman verifies signatures", func(f *doctor.Facts) {
		f.BpfmanConfigs[0].Spec.Configuration = "[database]\nverify_enabled = false\n[signing]\nallow_unsigned = true\n# verify_enabled = false"
	}, "bpfman-signing", doctor.Warning, "Config bpfman-config", "tuf-repo-cdn.sigstore.dev", "verify_enabled = false"},
	{"bpfman's pods read another configuration", func(f *doctor.Facts) { f.Configuration = "[signing]\nverify_enabled = true" }, "bpfman-signing", doctor.Warning, "ConfigMap bpfman/bpfman-config", "tuf-repo-cdn.sigstore.dev", "rollout restart"},
	{"no CSI driver", func(f *doctor.Facts) { f.CSIDrivers = nil }, "bpfman-csi", doctor.Failed, "CSIDriver csi.bpfman.io", "not there", "bpfman.enabled=true"},
	{"no ephemeral volumes", func(f *doctor.Facts) { f.CSIDrivers[0].Spec.VolumeLifecycleModes = nil }, "bpfman-csi", doctor.Failed, "CSIDriver csi.bpfman.io", "Ephemeral", "kubectl delete csidriver"},
	{"CSI driver is not registered", func(f *doctor.Facts) { f.CSINodes[1].Spec.Drivers = nil }, "bpfman-csi", doctor.Failed, "CSINode n2", "csi.bpfman.io", "node-driver-registrar"},
	{"program does not load", func(f *doctor.Facts) {
		f.States[0].Status.AppLoadStatus, f.States[0].Status.UpdateCount = bpfmanv1.AppLoadError, 4711
	}, "programs", doctor.Failed, "ClusterBpfApplicationState blixt-111111111111-n1", "LoadError on node n1, at attempt 4711", "bpfman-agent"},
	{"program of others does not load", func(f *doctor.Facts) {
		f.Applications[0].Labels, f.States[0].Status.AppLoadStatus = nil, bpfmanv1.AppLoadError
	}, "programs", doctor.Warning, "ClusterBpfApplicationState blixt-111111111111-n1", "LoadError", "bpfman-agent"},
	{"state is stuck", func(f *doctor.Facts) {
		f.States[0].Status.AppLoadStatus, f.States[0].Status.UpdateCount = bpfmanv1.AppLoadNotLoaded, 1
	}, "programs", doctor.Failed, "ClusterBpfApplicationState blixt-111111111111-n1", "with updateCount 1", "bpfman-link-ids"},
	{"state is young", func(f *doctor.Facts) {
		f.States[0].Status.AppLoadStatus, f.States[0].CreationTimestamp = bpfmanv1.AppLoadNotLoaded, metav1.NewTime(now)
	}, "programs", doctor.OK, "", "", ""},
	{"state of no application", func(f *doctor.Facts) { f.States[0].Labels["bpfman.io/ownedByProgram"] = "gone" }, "programs", doctor.Failed, "ClusterBpfApplicationState blixt-111111111111-n1", "gone is not there", "finalizers"},
	{"state of no node", func(f *doctor.Facts) { f.States[0].Status.Node = "n9" }, "programs", doctor.Warning, "ClusterBpfApplicationState blixt-111111111111-n1", "n9 is not in the cluster", "finalizers"},
	{"state was deleted by hand", func(f *doctor.Facts) { f.States[0].DeletionTimestamp = &past }, "programs", doctor.Failed, "ClusterBpfApplicationState blixt-111111111111-n1", "somebody has deleted it", "Restart node n1"},
	{"programs were changed", func(f *doctor.Facts) { f.States[0].Status.AppLoadStatus = bpfmanv1.ProgListChangedError }, "programs", doctor.Failed, "ClusterBpfApplicationState blixt-111111111111-n1", "ProgramListChangedError", "kubectl delete clusterbpfapplication"},
	{"program is not unloaded", func(f *doctor.Facts) { f.States[0].Status.AppLoadStatus = bpfmanv1.AppUnloadError }, "programs", doctor.Failed, "ClusterBpfApplicationState blixt-111111111111-n1", "UnloadError", "bpfman-agent"},
	{"application is not deleted", func(f *doctor.Facts) { f.Applications[0].DeletionTimestamp = &past }, "programs", doctor.Failed, "ClusterBpfApplication blixt-111111111111", "being deleted since", "finalizers"},
	{"a restart ended the program", func(f *doctor.Facts) {
		mountAt(f, "/run/bpfman/fs").MountPropagation = nil
		f.Pods[0].Status.ContainerStatuses[0].State.Running.StartedAt = metav1.NewTime(now)
	}, "programs-dead", doctor.Failed, "ClusterBpfApplicationState blixt-111111111111-n1", "on node n1 is gone", "/run/bpfman/db"},
	{"a restart did not end the program", func(f *doctor.Facts) {
		f.Pods[0].Status.ContainerStatuses[0].State.Running.StartedAt = metav1.NewTime(now)
	}, "programs-dead", doctor.OK, "", "outlive", ""},
	{"operator is not installed", func(f *doctor.Facts) { f.Deployments = f.Deployments[1:] }, "operator", doctor.Failed, "Deployment blixt-system/blixt-operator", "not there", "helm install"},
	{"operator is elsewhere", func(f *doctor.Facts) { f.Namespace = "default" }, "operator", doctor.Failed, "Deployment default/blixt-operator", "not there", "--namespace blixt-system"},
	{"operator does not run", func(f *doctor.Facts) { f.Deployments[0].Status.ReadyReplicas = 0 }, "operator", doctor.Failed, "Deployment blixt-system/blixt-operator", "0 of 2", "logs"},
	{"operator runs once", func(f *doctor.Facts) { f.Deployments[0].Status.ReadyReplicas = 1 }, "operator", doctor.Warning, "Deployment blixt-system/blixt-operator", "1 of 2", "describe"},
	{"operator is stopped", func(f *doctor.Facts) { f.Deployments[0].Spec.Replicas = new(int32) }, "operator", doctor.Failed, "Deployment blixt-system/blixt-operator", "spec.replicas is 0", "scale"},
	{"nobody leads", func(f *doctor.Facts) { f.Leases = nil }, "leader", doctor.Failed, "Lease blixt-system/blixt-operator", "not there", "logs"},
	{"the leader is gone", func(f *doctor.Facts) { f.Leases[0].Spec.HolderIdentity = nil }, "leader", doctor.Failed, "Lease blixt-system/blixt-operator", "empty", "logs"},
	{"the lease is old", func(f *doctor.Facts) { f.Leases[0].Spec.RenewTime.Time = now.Add(-time.Minute) }, "leader", doctor.Failed, "Lease blixt-system/blixt-operator", "1m0s old", "logs"},
	{"an agent waits", func(f *doctor.Facts) {
		f.DaemonSets[1].Status.NumberReady = 1
		f.Pods[1].Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerError", Message: "no such profile"}}
	}, "agents", doctor.Failed, "DaemonSet blixt-system/blixt-agent-111111111111", "1 of 2; pod blixt-agent-n1 on node n1: container agent waits (CreateContainerError: no such profile", "describe"},
	{"agents are refused", func(f *doctor.Facts) {
		f.DaemonSets[1].Status.NumberReady, f.DaemonSets[1].Status.CurrentNumberScheduled = 0, 0
	}, "agents", doctor.Failed, "DaemonSet blixt-system/blixt-agent-111111111111", "only 0 pods are made", "events"},
	{"no agents", func(f *doctor.Facts) { f.DaemonSets = f.DaemonSets[:1] }, "agents", doctor.Warning, "DaemonSet blixt-system/blixt-agent-…", "no agents yet", ""},
	{"restricted without a profile", func(f *doctor.Facts) { f.Namespaces[0].Labels["pod-security.kubernetes.io/enforce"] = "restricted" }, "pod-security", doctor.Failed, "Namespace blixt-system", "seccompProfile", "blixt-agent.json"},
	{"restricted with a profile", func(f *doctor.Facts) {
		f.Namespaces[0].Labels["pod-security.kubernetes.io/enforce"] = "restricted"
		f.Configs[0].Spec.Dataplane.Agent.SeccompProfile = "profiles/blixt-agent.json"
	}, "pod-security", doctor.OK, "", "restricted", ""},
	{"bpfman may not be privileged", func(f *doctor.Facts) { f.Namespaces[1].Labels["pod-security.kubernetes.io/enforce"] = "baseline" }, "pod-security", doctor.Failed, "Namespace bpfman", "baseline", "privileged"},
	{"a NetworkPolicy of others", func(f *doctor.Facts) {
		f.NetworkPolicies = append(f.NetworkPolicies, networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "deny"}})
	}, "network-policy", doctor.Warning, "NetworkPolicy blixt-system/deny", "not of Blixt's chart", "8443"},
	{"no admission policies", func(f *doctor.Facts) { f.Policies = nil }, "admission-policies", doctor.Warning, "ValidatingAdmissionPolicy blixt-maps", "every pod of every namespace can mount", "admissionPolicy.enabled=true"},
	{"a policy without its binding", func(f *doctor.Facts) { f.PolicyBindings = f.PolicyBindings[1:] }, "admission-policies", doctor.Warning, "ValidatingAdmissionPolicyBinding blixt-maps", "not there", "helm upgrade"},
	{"a policy that permits everything", func(f *doctor.Facts) { f.Policies[0].Spec.Validations[0].Expression = "true" }, "admission-policies", doctor.Failed, "ValidatingAdmissionPolicy blixt-maps", "not that of the chart", "helm upgrade"},
	{"a policy that lets others through when it fails", func(f *doctor.Facts) { f.Policies[1].Spec.FailurePolicy = new(admissionv1.Ignore) }, "admission-policies", doctor.Failed, "ValidatingAdmissionPolicy blixt-names", "not that of the chart", "helm upgrade"},
	{"a policy that only warns", func(f *doctor.Facts) {
		f.PolicyBindings[0].Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Warn, admissionv1.Audit}
	}, "admission-policies", doctor.Failed, "ValidatingAdmissionPolicyBinding blixt-maps", "not that of the chart", "helm upgrade"},
	{"a policy that leaves another namespace out", func(f *doctor.Facts) {
		e := &f.PolicyBindings[0].Spec.MatchResources.NamespaceSelector.MatchExpressions[0]
		e.Values = append(e.Values, "tenant")
	}, "admission-policies", doctor.Failed, "ValidatingAdmissionPolicyBinding blixt-maps", "not that of the chart", "helm upgrade"},
	{"no keys", func(f *doctor.Facts) { f.Configs[0].Spec.Dataplane.Bytecode = nil }, "signatures", doctor.Warning, "BlixtConfig", "NOT VERIFIED", "SIGN_KEY"},
	{"no class", func(f *doctor.Facts) { f.Classes = nil }, "classes", doctor.Warning, "GatewayClass", "no Gateway is Blixt's", "gatewayClass.create"},
	{"class names a BlixtConfig that is not there", func(f *doctor.Facts) { f.Configs = nil }, "classes", doctor.Failed, "GatewayClass blixt", "does not exist", "parametersRef"},
	{"nobody accepted the class", func(f *doctor.Facts) { f.Classes[0].Status.Conditions = nil }, "classes", doctor.Failed, "GatewayClass blixt", "no operator has accepted it", "leader"},
	{"class with every default", func(f *doctor.Facts) { f.Classes[0].Spec.ParametersRef = nil }, "classes", doctor.OK, "", "1 classes", ""},
	{"nobody gives addresses", func(f *doctor.Facts) { f.Services[0].Status.LoadBalancer.Ingress = nil }, "addresses", doctor.Failed, "Service default/blixt-web", "empty for 1h0m0s", "MetalLB"},
	{"nobody of a class gives addresses", func(f *doctor.Facts) {
		f.Services[0].Status.LoadBalancer.Ingress = nil
		f.Services[0].Spec.LoadBalancerClass = new("example.com/x")
	}, "addresses", doctor.Failed, "Service default/blixt-web", "loadBalancerClass example.com/x", "spec.addresses.source"},
	{"address is awaited", func(f *doctor.Facts) {
		f.Services[0].Status.LoadBalancer.Ingress, f.Services[0].CreationTimestamp = nil, metav1.NewTime(now)
	}, "addresses", doctor.OK, "", "", ""},
	{"ports are node ports", func(f *doctor.Facts) {
		f.Configs[0].Spec.Dataplane.SNATPorts = v1alpha1.PortRange{First: 20000, Last: 30000}
	}, "snat-ports", doctor.Failed, "BlixtConfig", "20000-30000 overlap 30000-32767, the cluster's node ports", "snatPorts"},
	{"ports are those of nodes, as the operator was told", func(f *doctor.Facts) {
		f.Deployments[0].Spec.Template.Spec.Containers = []corev1.Container{{Args: []string{"operator", "--ephemeral-ports=15000-60999"}}}
	}, "snat-ports", doctor.Failed, "BlixtConfig", "11000-29999 overlap 15000-60999, the ports of nodes", "ephemeral-ports"},
	{"flannel's tunnels are left out", func(f *doctor.Facts) {
		f.Nodes[1].Annotations = map[string]string{
			"flannel.alpha.coreos.com/backend-type":    "vxlan",
			"flannel.alpha.coreos.com/backend-data":    `{"VNI":1,"VtepMAC":"be:03:96:b1:c4:2b"}`,
			"flannel.alpha.coreos.com/backend-v6-data": `{"VNI":4096,"VtepMAC":"be:03:96:b1:c4:2c"}`,
		}
		f.Configs[0].Spec.Dataplane.Interfaces = v1alpha1.Interfaces{Names: []string{"eth0"}}
	}, "tunnels", doctor.Failed, "BlixtConfig", "leaves out flannel-v6.4096, flannel.1, by which pods of other nodes are reached, as annotation flannel.alpha.coreos.com/backend-type of Node n2", "{names: [eth0, flannel-v6.4096, flannel.1]}"},
	{"tunnel goes with the primary interface", func(f *doctor.Facts) {
		f.Nodes[1].Annotations = map[string]string{"projectcalico.org/IPv4VXLANTunnelAddr": "10.1.70.0"}
		f.Configs[0].Spec.Dataplane.Interfaces = v1alpha1.Interfaces{Primary: new(true)}
	}, "tunnels", doctor.OK, "", "", ""},
	{"tunnel of Calico is not among those that are discovered", func(f *doctor.Facts) {
		f.Nodes[0].Annotations = map[string]string{"projectcalico.org/IPv4VXLANTunnelAddr": "10.1.70.0"}
		f.Configs[0].Spec.Dataplane.Interfaces = v1alpha1.Interfaces{Discover: &v1alpha1.Discover{Allow: []string{"/eth.*/"}}}
	}, "tunnels", doctor.Failed, "BlixtConfig", "leaves out vxlan.calico", "[eth0, vxlan.calico]"},
	{"tunnel of Calico is discovered", func(f *doctor.Facts) {
		f.Nodes[0].Annotations = map[string]string{"projectcalico.org/IPv4IPIPTunnelAddr": "10.1.70.0"}
		f.Configs[0].Spec.Dataplane.Interfaces = v1alpha1.Interfaces{Discover: &v1alpha1.Discover{Allow: []string{"/eth.*/", "/^tunl/"}}}
	}, "tunnels", doctor.OK, "", "", ""},
	{"tunnel is excluded", func(f *doctor.Facts) {
		f.Nodes[0].Annotations = map[string]string{"projectcalico.org/IPv4IPIPTunnelAddr": "10.1.70.0"}
		f.Configs[0].Spec.Dataplane.Interfaces = v1alpha1.Interfaces{Discover: &v1alpha1.Discover{Exclude: []string{"lo", "tunl0"}}}
	}, "tunnels", doctor.Failed, "BlixtConfig", "leaves out tunl0", "[eth0, tunl0]"},
	{"answers leave by an interface without the program", func(f *doctor.Facts) {
		f.Dataplanes[1].Status.Applications = []v1alpha1.ApplicationStatus{{
			Name: "blixt-111111111111", AnsweredElsewhereAt: &metav1.Time{Time: now.Add(-time.Minute)},
			Links: []v1alpha1.LinkStatus{{Interface: "eth0", Direction: "Ingress"}, {Interface: "eth0", Direction: "Egress"}},
		}}
	}, "answers", doctor.Warning, "NodeDataplane n2", "by another interface than eth0", "spec.dataplane.interfaces.names"},
	{"answers left by an interface without the program", func(f *doctor.Facts) {
		f.Dataplanes[1].Status.Applications = []v1alpha1.ApplicationStatus{{Name: "blixt-111111111111", AnsweredElsewhereAt: &metav1.Time{Time: now.Add(-2 * time.Hour)}}}
	}, "answers", doctor.OK, "", "", ""},
	{"pool has an address of a node", func(f *doctor.Facts) { f.Configs[0].Spec.Addresses.Pool[0] = "192.0.2.0/24" }, "pool", doctor.Failed, "BlixtConfig blixt", "spec.addresses.pool[0] 192.0.2.0/24 overlaps 192.0.2.11 of node n1 and 192.0.2.11 of node n2", "kubectl edit"},
	{"pool has addresses of pods", func(f *doctor.Facts) { f.Configs[0].Spec.Addresses.Pool[1] = "2001:db8:1::5" }, "pool", doctor.Failed, "BlixtConfig blixt", "2001:db8:1::/64 of pods of node n1", "kubectl edit"},
	{"pool has the address of a pod", func(f *doctor.Facts) {
		f.Pods[1].Status.PodIPs = []corev1.PodIP{{IP: "198.51.100.7"}}
	}, "pool", doctor.Failed, "BlixtConfig blixt", "198.51.100.7 of Pod blixt-system/blixt-agent-n1", "kubectl edit"},
	{"pool has addresses of Services", func(f *doctor.Facts) { f.Configs[0].Spec.Addresses.Pool[0] = "10.96.255.250-10.97.0.9" }, "pool", doctor.Failed, "BlixtConfig blixt", "10.96.0.0/16 of ServiceCIDR kubernetes", "kubectl edit"},
	{"pool has the address of a Service", func(f *doctor.Facts) {
		f.ServiceCIDRs, f.Configs[0].Spec.Addresses.Pool[0] = nil, "10.96.0.7"
	}, "pool", doctor.Failed, "BlixtConfig blixt", "10.96.0.7 of Service default/blixt-web", "kubectl edit"},
	{"Cilium encrypts by IPsec", func(f *doctor.Facts) { f.CiliumIPsec = true }, "ipsec", doctor.Warning, "BlixtConfig", "redirected past its policies", "path: Stack"},
	{"Cilium's IPsec is obeyed", func(f *doctor.Facts) {
		f.CiliumIPsec = true
		f.Configs[0].Spec.Dataplane = &v1alpha1.Dataplane{RemoteBackends: v1alpha1.RemoteBackends{Path: v1alpha1.RemotePathStack}}
	}, "ipsec", doctor.OK, "", "", ""},
	{"kube-proxy serves it", func(f *doctor.Facts) { delete(f.Services[0].Labels, "service.kubernetes.io/service-proxy-name") }, "kube-proxy", doctor.Warning, "Service default/blixt-web", "no label service.kubernetes.io/service-proxy-name", "managed-fields"},
	{"kube-proxy serves it as asked", func(f *doctor.Facts) {
		delete(f.Services[0].Labels, "service.kubernetes.io/service-proxy-name")
		f.Services[0].Annotations = map[string]string{v1alpha1.PodTrafficAnnotation: string(v1alpha1.PodTrafficKubeProxy)}
	}, "kube-proxy", doctor.OK, "", "", ""},
	{"kube-proxy is asked for in mode ipvs", func(f *doctor.Facts) {
		f.ProxyMode, f.Configs[0].Spec.Addresses.AlsoSources = "ipvs", []v1alpha1.AddressSource{v1alpha1.SourceNode}
		f.Configs[0].Spec.Addresses.PodTraffic = v1alpha1.PodTrafficKubeProxy
	}, "kube-proxy", doctor.Warning, "BlixtConfig blixt", "KubeProxy is not obeyed for source Node", "nftables"},
	{"kube-proxy binds an address of a node", func(f *doctor.Facts) {
		f.ProxyMode, f.Services[0].Status.LoadBalancer.Ingress[0].IP = "ipvs", "192.0.2.11"
		delete(f.Services[0].Labels, "service.kubernetes.io/service-proxy-name")
	}, "kube-proxy", doctor.Failed, "Service default/blixt-web", "192.0.2.11 of node n1", "service.kubernetes.io/service-proxy-name=blixt"},
	{"kube-proxy binds no address of a node", func(f *doctor.Facts) {
		f.ProxyMode = "ipvs"
		f.Services[0].Status.LoadBalancer.Ingress[0] = corev1.LoadBalancerIngress{IP: "192.0.2.11", IPMode: new(corev1.LoadBalancerIPModeProxy)}
		delete(f.Services[0].Labels, "service.kubernetes.io/service-proxy-name")
	}, "kube-proxy", doctor.Warning, "Service default/blixt-web", "no label", "managed-fields"},
	{"node does not serve", func(f *doctor.Facts) {
		f.Dataplanes[1].Status.Conditions[0] = metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "LoadFailed", Message: "bpfman could not."}
	}, "nodes", doctor.Failed, "NodeDataplane n2", "condition Ready is False, LoadFailed: bpfman could not.", "kubectl describe nodedataplane n2"},
	{"port that is not allowed any more", func(f *doctor.Facts) {
		f.Gateways = []gwv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Status: gwv1.GatewayStatus{Listeners: []gwv1.ListenerStatus{{
			Name: "smtp", Conditions: []metav1.Condition{{Type: v1alpha1.ListenerPortWarning, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonPortNotAllowed, Message: "TCP port 25."}},
		}}}}}
	}, "listener-ports", doctor.Warning, "Gateway shop/web", "listener smtp: PortNotAllowed: TCP port 25.", "allowedPorts"},
	{"a policy lets in nodes alone", func(f *doctor.Facts) { guard(f, "Preserved", "192.0.2.11/32", "10.9.0.0/16") }, "client-policies", doctor.Warning,
		"NetworkPolicy shop/web", "it lets in 192.0.2.11/32, where nodes are, but not every client, to pods of Service shop/web: clients of Gateway shop/web", "ipBlock"},
	{"a policy lets in a bridge of nodes alone", func(f *doctor.Facts) { guard(f, "PartlyPreserved", "10.244.1.1/32") }, "client-policies", doctor.Warning, "NetworkPolicy shop/web", "10.244.1.1/32", "clientAddress Node"},
	{"a policy lets in a tunnel's end of nodes alone", func(f *doctor.Facts) {
		guard(f, "Preserved", "10.7.0.1/32")
		f.Nodes[0].Annotations = map[string]string{"projectcalico.org/IPv4VXLANTunnelAddr": "10.7.0.1"}
	}, "client-policies", doctor.Warning, "NetworkPolicy shop/web", "10.7.0.1/32", "ipBlock"},
	{"a policy lets in nodes alone, as one of several", func(f *doctor.Facts) {
		guard(f, "Preserved")
		guard(f, "Preserved", "192.0.2.0/24")
		f.NetworkPolicies[len(f.NetworkPolicies)-1].Name = "more"
	}, "client-policies", doctor.Warning, "NetworkPolicy shop/more", "192.0.2.0/24", "ipBlock"},
	{"a policy lets in all to another port", func(f *doctor.Facts) {
		guard(f, "Preserved").Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{
			{Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromString("metrics"))}}},
			{Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(8000)), EndPort: new(int32(8100))}}, From: blocks("192.0.2.0/24")},
		}
	}, "client-policies", doctor.Warning, "NetworkPolicy shop/web", "192.0.2.0/24", "ipBlock"},
	{"a policy lets in nodes alone, which backends see still", func(f *doctor.Facts) { guard(f, "NodeKept", "192.0.2.0/24") }, "client-policies", doctor.OK,
		"NetworkPolicy shop/web", "backends of Gateway shop/web see the addresses of nodes", "Before clientAddress Preserve is set"},
	{"a policy lets in all", func(f *doctor.Facts) { guard(f, "Preserved", "192.0.2.0/24", "0.0.0.0/0") }, "client-policies", doctor.OK, "", "no NetworkPolicy", ""},
	{"a policy lets in pods alone", func(f *doctor.Facts) { guard(f, "Preserved") }, "client-policies", doctor.OK, "", "no NetworkPolicy", ""},
	{"a policy is about egress", func(f *doctor.Facts) {
		guard(f, "Preserved", "192.0.2.0/24").Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	}, "client-policies", doctor.OK, "", "no NetworkPolicy", ""},
	{"a policy is about other pods", func(f *doctor.Facts) {
		guard(f, "Preserved", "192.0.2.0/24").Spec.PodSelector.MatchLabels = map[string]string{"app": "db"}
	}, "client-policies", doctor.OK, "", "no NetworkPolicy", ""},
	{"no policy applies to the network of nodes", func(f *doctor.Facts) {
		guard(f, "Preserved", "192.0.2.0/24")
		f.Backends[0].Spec.HostNetwork = true
	}, "client-policies", doctor.OK, "", "no NetworkPolicy", ""},
	{"backends see nodes", func(f *doctor.Facts) { guard(f, "PartlyPreserved") }, "client-addresses", doctor.Warning, "Gateway shop/web", "1 of 2 backends", "docs/client-address.md"},
	{"a node of an earlier version", func(f *doctor.Facts) {
		guard(f, "Preserved")
		f.Dataplanes[1].Status.Applications = []v1alpha1.ApplicationStatus{{Name: "blixt-111111111111"}}
	}, "client-addresses", doctor.Warning, "NodeDataplane n2", "status.clientAddress is not there", "upgrade"},
	{"a node of an earlier version, and nobody wants more", func(f *doctor.Facts) {
		guard(f, "NodeKept")
		f.Dataplanes[1].Status.Applications = []v1alpha1.ApplicationStatus{{Name: "blixt-111111111111"}}
	}, "client-addresses", doctor.OK, "", "1 Gateways do not", ""},
	{"a node has not taken the key", func(f *doctor.Facts) {
		guard(f, "Preserved")
		f.Dataplanes[1].Status.ClientAddress = &v1alpha1.ClientAddressStatus{Reason: "NotAcked", Message: "No key."}
	}, "client-addresses", doctor.Warning, "NodeDataplane n2", "announced is false, NotAcked: No key.", "agent on node n2"},
	{"a firewall drops SYNs with data, and what it does not know of UDP", func(f *doctor.Facts) {
		guard(f, "Preserved")
		f.Dataplanes[0].Status.ClientAddress = &v1alpha1.ClientAddressStatus{Announced: true, Pairs: []v1alpha1.PairStatus{{Node: "n2", Unanswered: "TCP/IPv4, UDP/IPv6 alone"}}}
	}, "client-addresses", doctor.Warning, "NodeDataplane n1", "node n2 does not answer messages of this node by TCP/IPv4, UDP/IPv6 alone", "Let pass between the nodes SYNs with 42 bytes of data and the same of empty datagrams."},
	{"a firewall normalizes TCP", func(f *doctor.Facts) {
		guard(f, "Preserved")
		f.Dataplanes[0].Status.ClientAddress = &v1alpha1.ClientAddressStatus{Announced: true, Pairs: []v1alpha1.PairStatus{{Node: "n2", Unanswered: "TCP/IPv4 alone, TCP/IPv6 alone"}}}
	}, "client-addresses", doctor.Warning, "NodeDataplane n1", "TCP/IPv4 alone, TCP/IPv6 alone", "Let pass between the nodes TCP option 253."},
	{"addresses of a node that nobody believes", func(f *doctor.Facts) {
		guard(f, "Preserved")
		f.Dataplanes[0].Status.ClientAddress = &v1alpha1.ClientAddressStatus{Announced: true, IgnoredAddresses: []string{"10.7.0.1"}}
	}, "client-addresses", doctor.Warning, "NodeDataplane n1", "10.7.0.1", "status.addresses"},
	{"backends see nodes, as they always have", func(f *doctor.Facts) { guard(f, "NodeKept") }, "client-addresses", doctor.OK, "", "1 Gateways do not", ""},
	{"kernel with ring buffers that a reader can break", func(f *doctor.Facts) { f.Nodes[1].Status.NodeInfo.KernelVersion = "6.6.36" }, "ring-buffer", doctor.Warning, "Node n2", "CVE-2024-41009", "6.6.37"},
	{"a later one", func(f *doctor.Facts) { f.Nodes[1].Status.NodeInfo.KernelVersion = "6.8.12-arch" }, "ring-buffer", doctor.Warning, "Node n2", "CVE-2024-41009", "6.9.8"},
	{"one that is mended", func(f *doctor.Facts) { f.Nodes[1].Status.NodeInfo.KernelVersion = "6.6.37" }, "ring-buffer", doctor.OK, "", "2 nodes", ""},
	{"node has drifted", func(f *doctor.Facts) { f.Dataplanes[1].Status.Conditions[1].Status = metav1.ConditionTrue }, "nodes", doctor.Failed, "NodeDataplane n2", "Drifted is True", ""},
	{"agent is not heard of", func(f *doctor.Facts) { f.Dataplanes[1].Status.Conditions[0].Status = metav1.ConditionUnknown }, "nodes", doctor.Warning, "NodeDataplane n2", "Ready is Unknown", ""},
	{"node is left out, and has its program still", func(f *doctor.Facts) {
		f.Dataplanes[1].Status.Conditions[0] = metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "NotSelected", Message: "It goes."}
	}, "nodes", doctor.Warning, "NodeDataplane n2", "Ready is False, NotSelected: It goes.", ""},
	{"nobody looks after a node", func(f *doctor.Facts) { f.Dataplanes = f.Dataplanes[:1] }, "nodes", doctor.Failed, "Node n2", "no NodeDataplane", ""},
	{"nodes may not be listed", func(f *doctor.Facts) { f.Unread["Node"] = "nodes is forbidden" }, "kernel", doctor.Unknown, "Node", "forbidden", "kubectl auth can-i list nodes"},
}

// shrink makes link ids what bpfman's release says.
func shrink(spec *apiextv1.CustomResourceDefinitionSpec) {
	for i := range spec.Versions {
		shrinkSchema(spec.Versions[i].Schema.OpenAPIV3Schema)
	}
}

func shrinkSchema(s *apiextv1.JSONSchemaProps) {
	for name, p := range s.Properties {
		if name == "linkId" {
			p.Format = "int32"
		}
		shrinkSchema(&p)
		s.Properties[name] = p
	}
	if s.Items != nil && s.Items.Schema != nil {
		shrinkSchema(s.Items.Schema)
	}
}

func TestHealthy(t *testing.T) {
	for _, f := range doctor.Check(healthy(t)) {
		if f.Verdict != doctor.OK || f.Seen == "" || f.Remedy != "" {
			t.Errorf("in a healthy cluster: got %+v, want ok, with what was seen", f)
		}
	}
}

func TestDefects(t *testing.T) {
	found := map[string]bool{}
	for _, c := range defects {
		found[c.check] = found[c.check] || c.verdict == doctor.Failed || c.verdict == doctor.Warning
		t.Run(c.name, func(t *testing.T) {
			f := healthy(t)
			c.change(f)
			var of []doctor.Finding
			for _, finding := range doctor.Check(f) {
				if finding.Check == c.check {
					of = append(of, finding)
				}
			}
			if len(of) == 0 || of[0].Verdict != c.verdict || of[0].Object != c.object || !strings.Contains(of[0].Seen, c.seen) || !strings.Contains(of[0].Remedy, c.remedy) {
				t.Errorf("check %s: got %+v, want %s of %q with %q, and the remedy %q first", c.check, of, c.verdict, c.object, c.seen, c.remedy)
			}
			for _, finding := range of {
				if finding.Verdict != doctor.OK && finding.Remedy == "" {
					t.Errorf("%+v says no remedy", finding)
				}
			}
		})
	}
	for _, f := range doctor.Check(healthy(t)) {
		if !found[f.Check] {
			t.Errorf("no case has check %s find anything", f.Check)
		}
	}
}

// guard adds a Gateway, a Service behind it, a pod of that, and a NetworkPolicy that lets
// in pods and these blocks. reason is why backends see the client's address, or do not.
func guard(f *doctor.Facts, reason string, cidrs ...string) *networkingv1.NetworkPolicy {
	web, app := metav1.ObjectMeta{Namespace: "shop", Name: "web"}, map[string]string{"app": "web"}
	preserved := metav1.Condition{Type: gateway.GatewayConditionClientAddressPreserved, Status: metav1.ConditionFalse, Reason: reason, Message: "1 of 2 backends."}
	if reason == "Preserved" {
		preserved.Status = metav1.ConditionTrue
	}
	f.Gateways = []gwv1.Gateway{{ObjectMeta: web, Status: gwv1.GatewayStatus{Conditions: []metav1.Condition{preserved}}}}
	f.ListenerSets = []gwv1.ListenerSet{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "more"}, Spec: gwv1.ListenerSetSpec{ParentRef: gwv1.ParentGatewayReference{Name: "web"}}}}
	f.TCPRoutes = []gwv1.TCPRoute{{
		ObjectMeta: web,
		Spec:       gwv1.TCPRouteSpec{Rules: []gwv1.TCPRouteRule{{BackendRefs: []gwv1.BackendRef{{BackendObjectReference: gwv1.BackendObjectReference{Name: "web"}}}}}},
		Status: gwv1.TCPRouteStatus{RouteStatus: gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{{
			ControllerName: gateway.ControllerName, ParentRef: gwv1.ParentReference{Kind: new(gwv1.Kind("ListenerSet")), Name: "more"},
			Conditions: []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionTrue}},
		}}}},
	}}
	f.Services = append(f.Services, corev1.Service{ObjectMeta: web, Spec: corev1.ServiceSpec{Selector: app, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}})
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1", Labels: app}}
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "metrics", ContainerPort: 9090}}}}
	f.Backends = []corev1.Pod{pod}
	rule := networkingv1.NetworkPolicyIngressRule{From: append(blocks(cidrs...), networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}})}
	f.NetworkPolicies = append(f.NetworkPolicies, networkingv1.NetworkPolicy{ObjectMeta: web, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: app}, Ingress: []networkingv1.NetworkPolicyIngressRule{rule},
	}})
	return &f.NetworkPolicies[len(f.NetworkPolicies)-1]
}

func blocks(cidrs ...string) (all []networkingv1.NetworkPolicyPeer) {
	for _, cidr := range cidrs {
		all = append(all, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}})
	}
	return all
}
