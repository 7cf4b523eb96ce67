// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/admin/admission"
	"github.com/kubernetes-sigs/blixt/operator/admin/audit"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// binding returns a RoleBinding, or the parts of a ClusterRoleBinding if it has no
// namespace.
func binding(namespace, name, kind, role string, subjects ...rbacv1.Subject) rbacv1.RoleBinding {
	return rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role},
	}
}

func rule(group, resource string, verbs ...string) []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}}
}

// tenants is a cluster in which subjects have all kinds of rights.
func tenants() *audit.Facts {
	user := func(name string) rbacv1.Subject { return rbacv1.Subject{Kind: "User", Name: name} }
	account := func(ns, name string) rbacv1.Subject {
		return rbacv1.Subject{Kind: "ServiceAccount", Namespace: ns, Name: name}
	}
	clusterRole := func(name string, rules []rbacv1.PolicyRule) rbacv1.ClusterRole {
		return rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	}
	cluster := func(b rbacv1.RoleBinding) rbacv1.ClusterRoleBinding {
		return rbacv1.ClusterRoleBinding{ObjectMeta: b.ObjectMeta, Subjects: b.Subjects, RoleRef: b.RoleRef}
	}
	return &audit.Facts{
		Namespace: "blixt-system",
		Policies:  admission.Policies(), PolicyBindings: admission.Bindings("blixt-system"),
		ClusterRoles: []rbacv1.ClusterRole{
			clusterRole("edit", rule("apps", "deployments", "create", "get")),
			clusterRole("view", rule("*", "*", "get", "list", "watch")),
			clusterRole("policies", rule("admissionregistration.k8s.io", "validatingadmissionpolicybindings", "delete")),
			clusterRole("system:controller:job-controller", rule("", "pods", "create")),
			clusterRole("debugger", rule("", "*/ephemeralcontainers", "patch")),
		},
		ClusterBindings: []rbacv1.ClusterRoleBinding{
			cluster(binding("", "policies", "ClusterRole", "policies", user("pol"))),
			cluster(binding("", "jobs", "ClusterRole", "system:controller:job-controller", account("kube-system", "job-controller"))),
			cluster(binding("", "fake", "ClusterRole", "system:controller:job-controller", account("team", "job-controller"))),
		},
		Roles: []rbacv1.Role{
			{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "edit"}, Rules: rule("", "pods", "get")}, // no namesake's rights
			{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "shell"}, Rules: rule("", "pods/exec", "create")},
			{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "blixt-operator"}, Rules: rule("apps", "daemonsets", "create")},
		},
		Bindings: []rbacv1.RoleBinding{
			binding("team", "edit", "ClusterRole", "edit", user("ann"), user("ann")),
			binding("more", "edit", "ClusterRole", "edit", user("ann")),
			binding("blixt-system", "edit", "ClusterRole", "edit", user("bob")),
			binding("blixt-system", "edit2", "Role", "edit", user("cid")),
			binding("blixt-system", "shell", "Role", "shell", user("dan")),
			binding("blixt-system", "debug", "ClusterRole", "debugger", user("eve")),
			binding("team", "debug", "ClusterRole", "debugger", user("fay")),
			binding("blixt-system", "view", "ClusterRole", "view", user("gus")),
			binding("blixt-system", "blixt-operator", "Role", "blixt-operator", account("blixt-system", "blixt-operator")),
		},
	}
}

func TestWhoMayReachTheMaps(t *testing.T) {
	f := tenants()
	var got []string
	for _, w := range audit.Audit(f).Writers {
		got = append(got, fmt.Sprintf("%s: %s, by %s/%s of %s", w.Subject, strings.Join(w.Resources, " "), w.Namespace, w.Binding, w.Role))
	}
	want := []string{
		"ServiceAccount team/job-controller: pods, by /fake of system:controller:job-controller",
		"User bob: deployments, by blixt-system/edit of edit",
		"User dan: pods/exec, by blixt-system/shell of shell",
		"User eve: pods/ephemeralcontainers, by blixt-system/debug of debugger",
		"User gus: pods/exec pods/attach secrets, by blixt-system/view of view",
		"User pol: validatingadmissionpolicybindings, by /policies of policies",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("writers (-want +got):\n%s", diff)
	}
}

func TestOpenMapsAreCounted(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(f *audit.Facts)
		want   []string
	}{
		{"the chart's policies", func(*audit.Facts) {}, nil},
		{"no policy", func(f *audit.Facts) { f.Policies = f.Policies[1:] }, []string{"warning MapsOpen ValidatingAdmissionPolicy blixt-maps"}},
		{"a policy that only warns", func(f *audit.Facts) {
			f.PolicyBindings[0].Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Warn}
		}, []string{"failed MapsOpen ValidatingAdmissionPolicyBinding blixt-maps"}},
		{"policies that nobody may read", func(f *audit.Facts) {
			f.Policies, f.Unread = nil, map[string]string{"ValidatingAdmissionPolicy": "forbidden"}
		}, []string{"failed Unread ValidatingAdmissionPolicy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := tenants()
			c.change(f)
			var got []string
			for _, p := range audit.Audit(f).Problems {
				got = append(got, fmt.Sprint(p.Severity, " ", p.Reason, " ", p.Object))
				if p.Reason == audit.MapsOpen && !strings.Contains(p.Message, "3 subjects who can have pods created can mount the maps of the data plane, and send the traffic of all Gateways elsewhere: ServiceAccount team/job-controller, User ann and User bob") {
					t.Errorf("message: %s", p.Message)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestForeignMountsAreListed(t *testing.T) {
	pod := func(ns, name, driver string, attributes map[string]string) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.PodSpec{NodeName: "n1", Volumes: []corev1.Volume{
			{Name: "other"}, {Name: "v", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: driver, VolumeAttributes: attributes}}},
		}}}
	}
	ours := map[string]string{"csi.bpfman.io/program": "blixt-111111111111", "csi.bpfman.io/maps": "frontends"}
	f := tenants()
	f.Pods = []corev1.Pod{
		pod("blixt-system", "agent", "csi.bpfman.io", ours),
		pod("team", "thief", "csi.bpfman.io", ours),
		pod("team", "climber", "csi.bpfman.io", map[string]string{"csi.bpfman.io/program": "mine", "csi.bpfman.io/maps": "../1/frontends"}),
		pod("team", "honest", "csi.bpfman.io", map[string]string{"csi.bpfman.io/program": "mine", "csi.bpfman.io/maps": "frontends"}),
		pod("team", "database", "disk.example.com", ours),
	}
	var got []string
	for _, p := range audit.Audit(f).Problems {
		message, _, _ := strings.Cut(p.Message, ", and can")
		got = append(got, fmt.Sprint(p.Severity, " ", p.Reason, " ", p.Object, " on ", p.Node, ": ", message))
	}
	want := []string{
		"failed ForeignMount Pod team/climber on n1: it mounts maps by a path, ../1/frontends",
		"failed ForeignMount Pod team/thief on n1: it mounts maps of application blixt-111111111111",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// Without keys nobody verifies anything: that is a problem, not a footnote.
func TestNoKeysIsAProblem(t *testing.T) {
	s := newScene(t)
	s.kubectl(&v1alpha1.BlixtConfig{}, "blixt", `{"spec":{"dataplane":{"bytecode":{"verificationKeys":null}}}}`)
	r := s.audit(s.kube, s.key)
	if len(r.Problems) != 1 || r.Problems[0].Reason != audit.NoKeys || r.Problems[0].Severity != audit.Warning || !strings.Contains(r.Problems[0].Message, "NOT VERIFIED") {
		t.Errorf("problems: got %+v, want %s", r.Problems, audit.NoKeys)
	}
}
