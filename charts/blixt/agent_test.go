// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// agent is the agents' pod as the operator creates it, with the chart's flags.
func agent(t *testing.T, seccompProfile string) corev1.PodTemplateSpec {
	t.Helper()
	release := rollout.Release{
		Namespace: namespace, AgentImage: "agent", Bytecode: "bytecode@sha256:" + strings.Repeat("2", 64),
		ServiceAccount: "blixt-agent", CAConfigMap: "blixt-ca", Operator: "blixt-operator.blixt-system.svc:8443", Audience: "blixt",
	}
	spec := rollout.Default(&v1alpha1.Dataplane{Agent: v1alpha1.Agent{SeccompProfile: seccompProfile}}, release, nil)
	apply, _ := rollout.Objects(spec, release, rollout.Desired{Applications: []rollout.Application{{Name: "blixt-1", Agents: true}}})
	for _, o := range apply {
		if set, ok := o.(*appsv1.DaemonSet); ok {
			return set.Spec.Template
		}
	}
	t.Fatalf("no DaemonSet among %v", apply)
	return corev1.PodTemplateSpec{}
}

// The operator labels the agents, and the chart selects them: both must agree.
func TestAgentsAreSelected(t *testing.T) {
	pod := agent(t, "")
	var ports []string
	for _, p := range pod.Spec.Containers[0].Ports {
		ports = append(ports, p.Name)
	}
	objects := mustTemplate(t, "--set=monitoring.podMonitor.enabled=true")
	policy := find[networkingv1.NetworkPolicy](t, objects, "NetworkPolicy", "blixt-agent")
	operator := find[networkingv1.NetworkPolicy](t, objects, "NetworkPolicy", "blixt-operator")
	for what, selector := range map[string]*metav1.LabelSelector{
		"policy of agents":              &policy.Spec.PodSelector,
		"policy of the operator, peers": operator.Spec.Ingress[0].From[0].PodSelector,
	} {
		if s, err := metav1.LabelSelectorAsSelector(selector); err != nil || s.Empty() || !s.Matches(labels.Set(pod.Labels)) {
			t.Errorf("%s selects %s (%v), agents have %v", what, s, err, pod.Labels)
		}
	}
	if s, _ := metav1.LabelSelectorAsSelector(&operator.Spec.PodSelector); s.Matches(labels.Set(pod.Labels)) {
		t.Errorf("policy of the operator selects agents: %s", s)
	}
	monitor := field(t, objects, "PodMonitor/blixt-agent", "{.spec.selector.matchLabels.app\\.kubernetes\\.io/component} {.spec.podMetricsEndpoints[0].port}")
	for _, port := range []string{policy.Spec.Ingress[0].Ports[0].Port.String(), strings.Fields(monitor)[1]} {
		if !slices.Contains(ports, port) {
			t.Errorf("no port %s among those of agents: %v", port, ports)
		}
	}
	if want := pod.Labels["app.kubernetes.io/component"]; strings.Fields(monitor)[0] != want {
		t.Errorf("the PodMonitor selects component %s, want %s", monitor, want)
	}
}

// Agents run where Pod Security is "baseline", and with a seccomp profile where
// it is "restricted".
func TestPodSecurityOfAgents(t *testing.T) {
	for _, c := range []struct {
		level, profile string
		allowed        bool
	}{
		{"baseline", "", true},
		{"restricted", "blixt-agent.json", true},
		{"restricted", "", false},
	} {
		t.Run(fmt.Sprint(c.level, " ", c.profile), func(t *testing.T) {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: c.level + "-", Labels: map[string]string{
				"pod-security.kubernetes.io/enforce": c.level, "pod-security.kubernetes.io/enforce-version": "latest",
			}}}
			if err := server.Client.Create(t.Context(), ns); err != nil {
				t.Fatal(err)
			}
			template := agent(t, c.profile)
			pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
			pod.Namespace, pod.Name, pod.Spec.PriorityClassName = ns.Name, "pod", ""
			// That of Blixt is refused by another policy.
			pod.Spec.Volumes[0].CSI.VolumeAttributes["csi.bpfman.io/program"] = "other"
			err := server.Client.Create(t.Context(), pod, client.DryRunAll)
			if c.allowed && err != nil || !c.allowed && !apierrors.IsForbidden(err) {
				t.Errorf("allowed: want %v, got %v", c.allowed, err)
			}
		})
	}
}

// Nobody reaches metrics unless the administrator names who may, and then with the
// token that the operator makes and the agents mount.
func TestMetricsAreNotForEverybody(t *testing.T) {
	ports := func(p *networkingv1.NetworkPolicy) (open, closed []string) {
		for _, rule := range p.Spec.Ingress {
			for _, port := range rule.Ports {
				if len(rule.From) == 0 {
					open = append(open, port.Port.String())
				} else {
					closed = append(closed, port.Port.String())
				}
			}
		}
		return open, closed
	}
	from := "--set=networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring"
	for _, name := range []string{"blixt-agent", "blixt-operator"} {
		open, closed := ports(find[networkingv1.NetworkPolicy](t, mustTemplate(t), "NetworkPolicy", name))
		if !slices.Equal(open, []string{"health"}) || slices.Contains(closed, "metrics") {
			t.Errorf("%s: by default everybody reaches %v, and some %v", name, open, closed)
		}
		open, closed = ports(find[networkingv1.NetworkPolicy](t, mustTemplate(t, from), "NetworkPolicy", name))
		if !slices.Equal(open, []string{"health"}) || !slices.Contains(closed, "metrics") {
			t.Errorf("%s: with metricsFrom everybody reaches %v, and some %v", name, open, closed)
		}
	}
	objects := mustTemplate(t, "--set=monitoring.podMonitor.enabled=true,monitoring.serviceMonitor.enabled=true")
	for _, got := range []string{
		field(t, objects, "PodMonitor/blixt-agent", "{.spec.podMetricsEndpoints[0].authorization.credentials}"),
		field(t, objects, "ServiceMonitor/blixt-operator", "{.spec.endpoints[0].authorization.credentials}"),
	} {
		if !strings.Contains(got, `"name":"`+v1alpha1.MetricsSecret+`"`) || !strings.Contains(got, `"key":"token"`) {
			t.Errorf("a monitor has credentials %s", got)
		}
	}
	pod := agent(t, "")
	if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Secret != nil && v.Secret.SecretName == v1alpha1.MetricsSecret && *v.Secret.Optional
	}) {
		t.Errorf("agents have volumes %+v", pod.Spec.Volumes)
	}
}
