// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

const (
	// user of the agents, and group of the maps that bpfman's CSI driver mounts.
	user = 65532

	mapsDir     = "/maps"
	tokenDir    = "/var/run/secrets/blixt/token"
	caDir       = "/var/run/secrets/blixt/ca"
	tokenExpiry = 3600 // seconds
	metricsDir  = "/var/run/secrets/blixt/metrics"
	healthPort  = 8081
	metricsPort = 8082
)

// agents returns the DaemonSet whose pods write the maps of an application. They
// have no other rights.
func agents(spec v1alpha1.Dataplane, r Release, application string) *appsv1.DaemonSet {
	set := typedAgents(r, application)
	set.Labels = labelsOf("agent", application)
	set.OwnerReferences = r.Owners
	pod := corev1.PodSpec{
		ServiceAccountName:           r.ServiceAccount,
		AutomountServiceAccountToken: new(false),
		EnableServiceLinks:           new(false),
		SecurityContext:              podSecurity(spec.Agent.SeccompProfile),
		NodeSelector:                 spec.Nodes.MatchLabels,
		Affinity:                     affinity(spec.Nodes.MatchExpressions),
		Tolerations:                  spec.Agent.Tolerations,
		PriorityClassName:            spec.Agent.PriorityClassName,
		Containers:                   []corev1.Container{container(spec, r, application)},
		Volumes:                      volumes(r, application),
	}
	for _, name := range r.ImagePullSecrets {
		pod.ImagePullSecrets = append(pod.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	set.Spec = appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{applicationLabel: application}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: set.Labels}, Spec: pod},
		UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
			Type: appsv1.RollingUpdateDaemonSetStrategyType,
			// The kernel goes on serving meanwhile. A percentage is rounded up to one
			// pod at least.
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: new(intstr.FromString("10%"))},
		},
	}
	return set
}

// podSecurity returns the pod's security context. It leaves the seccomp profile
// unset by default: RuntimeDefault forbids bpf(2), and the agent confines itself.
func podSecurity(profile string) *corev1.PodSecurityContext {
	security := &corev1.PodSecurityContext{
		RunAsNonRoot: new(true), RunAsUser: new(int64(user)), RunAsGroup: new(int64(user)), FSGroup: new(int64(user)),
	}
	if profile != "" {
		security.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &profile}
	}
	return security
}

func container(spec v1alpha1.Dataplane, r Release, application string) corev1.Container {
	args := []string{
		"agent", "--application=" + application, "--maps=" + mapsDir, "--operator=" + r.Operator,
		"--token-file=" + tokenDir + "/token", "--ca-file=" + caDir + "/ca.crt", "--metrics-token-file=" + metricsDir + "/token",
	}
	if routes := spec.Agent.RouteMetrics; routes != "" && routes != "seen" { // the agent's default
		args = append(args, "--route-metrics="+routes)
	}
	if spec.Agent.FlowLog == "stdout" {
		args = append(args, "--flow-log=-")
	}
	if r.LogLevel != "" {
		args = append(args, "--log-level="+r.LogLevel)
	}
	return corev1.Container{
		Name: "agent", Image: r.AgentImage, ImagePullPolicy: corev1.PullIfNotPresent, Args: args,
		Env: []corev1.EnvVar{fieldEnv("NODE_NAME", "spec.nodeName"), fieldEnv("POD_NAME", "metadata.name")},
		Ports: []corev1.ContainerPort{
			{Name: "health", ContainerPort: healthPort, Protocol: corev1.ProtocolTCP},
			{Name: "metrics", ContainerPort: metricsPort, Protocol: corev1.ProtocolTCP},
		},
		Resources: spec.Agent.Resources,
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		LivenessProbe:  probe("/healthz", 10),
		ReadinessProbe: probe("/readyz", 5),
		VolumeMounts: []corev1.VolumeMount{
			{Name: "maps", MountPath: mapsDir},
			{Name: "token", MountPath: tokenDir, ReadOnly: true},
			{Name: "ca", MountPath: caDir, ReadOnly: true},
			{Name: "metrics", MountPath: metricsDir, ReadOnly: true},
		},
	}
}

func fieldEnv(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
}

func probe(path string, seconds int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("health")}},
		PeriodSeconds: seconds,
	}
}

// mapsAttribute of a volume names the maps that bpfman's CSI driver puts there. It fails
// if the program lacks one.
const mapsAttribute = "csi.bpfman.io/maps"

// KeepMaps leaves out of the agents' volume the optional maps that the stored DaemonSet
// leaves out. That was made by an operator of an earlier version for the same
// bytecode, which may lack them: then no agent of this version could start. Other
// objects stay as they are.
func KeepMaps(wanted, stored client.Object) {
	w, is := wanted.(*appsv1.DaemonSet)
	s, was := stored.(*appsv1.DaemonSet)
	if !is || !was || s == nil {
		return
	}
	attributes, before := mapsOf(w), mapsOf(s)
	if attributes == nil || before == nil {
		return
	}
	names := strings.Split(before[mapsAttribute], ",")
	attributes[mapsAttribute] = strings.Join(slices.DeleteFunc(bpf.MapNames(), func(name string) bool {
		return bpf.IsOptional(name) && !slices.Contains(names, name)
	}), ",")
}

// mapsOf returns the attributes of the volume of maps; nil: there is none.
func mapsOf(set *appsv1.DaemonSet) map[string]string {
	for _, v := range set.Spec.Template.Spec.Volumes {
		if v.CSI != nil && v.CSI.VolumeAttributes[mapsAttribute] != "" {
			return v.CSI.VolumeAttributes
		}
	}
	return nil
}

// volumes returns the maps of the application, a token that only the operator
// accepts, the certificates by which to recognise the operator, and the token that
// readers of metrics must have.
func volumes(r Release, application string) []corev1.Volume {
	return []corev1.Volume{
		{Name: "maps", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
			Driver: "csi.bpfman.io",
			VolumeAttributes: map[string]string{
				"csi.bpfman.io/program": application,
				mapsAttribute:           strings.Join(bpf.MapNames(), ","),
			},
		}}},
		{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Audience: r.Audience, ExpirationSeconds: new(int64(tokenExpiry)), Path: "token",
			}}},
		}}},
		{Name: "ca", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: r.CAConfigMap},
		}}},
		// An agent serves without it. Until it is there, nobody gets metrics.
		{Name: "metrics", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: v1alpha1.MetricsSecret, Optional: new(true),
		}}},
	}
}

// affinity returns the part of a label selector that a nodeSelector cannot
// express.
func affinity(expressions []metav1.LabelSelectorRequirement) *corev1.Affinity {
	if len(expressions) == 0 {
		return nil
	}
	var term corev1.NodeSelectorTerm
	for _, e := range expressions {
		term.MatchExpressions = append(term.MatchExpressions, corev1.NodeSelectorRequirement{
			Key: e.Key, Operator: corev1.NodeSelectorOperator(e.Operator), Values: e.Values,
		})
	}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}},
	}}
}
