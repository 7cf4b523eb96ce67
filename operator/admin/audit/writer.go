// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"slices"
	"strings"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// Writer is somebody who may change, by RBAC, what runs on nodes. In addition the API
// server permits everything to the group system:masters.
type Writer struct {
	// Subject is its kind and name.
	Subject string `json:"subject"`
	// Namespace of a RoleBinding; "": it is a ClusterRoleBinding.
	Namespace string `json:"namespace,omitempty"`
	// Binding and Role are the names of the binding, and of the ClusterRole or Role.
	Binding string `json:"binding"`
	Role    string `json:"role"`
	// Resources that it may change.
	Resources []string `json:"resources"`
}

// right is one to change a resource.
type right struct {
	group, resource string
	verbs           []string
}

var write = []string{"create", "update", "patch", "delete", "deletecollection"}

// clusterWide are the rights that decide what runs: bpfman loads what a
// ClusterBpfApplication names, the operator derives that from the BlixtConfig, and the
// policies keep the maps to Blixt's namespace. They have no namespace, so only
// ClusterRoleBindings count.
var clusterWide = []right{
	{v1alpha1.GroupVersion.Group, "blixtconfigs", write},
	{bpfmanv1.SchemeGroupVersion.Group, "clusterbpfapplications", write},
	{"admissionregistration.k8s.io", "validatingadmissionpolicies", write},
	{"admissionregistration.k8s.io", "validatingadmissionpolicybindings", write},
}

// inNamespace are the rights that, in a namespace whose pods may mount the maps, lead to
// them: by a pod, which may also use any ServiceAccount of the namespace; by a command in
// a pod; by the operator's token; or by its certificate, which agents believe.
var inNamespace = append(slices.Clone(makePods),
	right{"", "pods/exec", []string{"create", "get"}},
	right{"", "pods/attach", []string{"create", "get"}},
	right{"", "pods/ephemeralcontainers", []string{"update", "patch"}},
	right{"", "serviceaccounts/token", []string{"create"}},
	right{"", "secrets", []string{"get", "list", "watch", "create", "update", "patch"}},
)

// makePods are the rights to have a pod created.
var makePods = []right{
	{"", "pods", []string{"create"}},
	{"", "replicationcontrollers", []string{"create", "update", "patch"}},
	{"apps", "deployments", []string{"create", "update", "patch"}},
	{"apps", "daemonsets", []string{"create", "update", "patch"}},
	{"apps", "replicasets", []string{"create", "update", "patch"}},
	{"apps", "statefulsets", []string{"create", "update", "patch"}},
	{"batch", "jobs", []string{"create", "update", "patch"}},
	{"batch", "cronjobs", []string{"create", "update", "patch"}},
}

// writers returns who may change what runs, sorted by subject. The controllers of
// Kubernetes, and Blixt's own accounts, do what others ask them for: they are left out.
func writers(f *Facts) []Writer {
	return f.holders(func(namespace string) []right {
		switch namespace {
		case "":
			return slices.Concat(clusterWide, inNamespace)
		case f.Namespace:
			return inNamespace
		}
		return nil
	})
}

// podMakers returns who can have a pod created in any namespace, once each.
func podMakers(f *Facts) []string {
	var names []string
	for _, w := range f.holders(func(string) []right { return makePods }) {
		names = append(names, w.Subject)
	}
	return slices.Compact(names)
}

// holders returns the subjects that have one of some rights by a binding in a namespace,
// "": in the cluster.
func (f *Facts) holders(rights func(namespace string) []right) []Writer {
	var all []Writer
	add := func(namespace, binding, role string, rules []rbacv1.PolicyRule, subjects []rbacv1.Subject) {
		may := permitted(rules, rights(namespace))
		if len(may) == 0 {
			return
		}
		for _, s := range subjects {
			name := s.Name
			if s.Namespace != "" {
				name = s.Namespace + "/" + name
			}
			if !f.controller(namespace, role, s) {
				all = append(all, Writer{Subject: s.Kind + " " + name, Namespace: namespace, Binding: binding, Role: role, Resources: may})
			}
		}
	}
	clusterRoles := map[string][]rbacv1.PolicyRule{}
	for i := range f.ClusterRoles {
		clusterRoles[f.ClusterRoles[i].Name] = f.ClusterRoles[i].Rules
	}
	roles := map[string][]rbacv1.PolicyRule{}
	for i := range f.Roles {
		roles[f.Roles[i].Namespace+"/"+f.Roles[i].Name] = f.Roles[i].Rules
	}
	for i := range f.ClusterBindings {
		b := &f.ClusterBindings[i]
		if b.RoleRef.Kind == "ClusterRole" {
			add("", b.Name, b.RoleRef.Name, clusterRoles[b.RoleRef.Name], b.Subjects)
		}
	}
	for i := range f.Bindings {
		b := &f.Bindings[i]
		rules := roles[b.Namespace+"/"+b.RoleRef.Name]
		if b.RoleRef.Kind == "ClusterRole" {
			rules = clusterRoles[b.RoleRef.Name]
		}
		add(b.Namespace, b.Name, b.RoleRef.Name, rules, b.Subjects)
	}
	slices.SortFunc(all, func(a, b Writer) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Binding, b.Binding))
	})
	return all
}

// controller reports whether a subject is part of Kubernetes or of Blixt, and has a role
// for that.
func (f *Facts) controller(namespace, role string, s rbacv1.Subject) bool {
	if s.Kind != rbacv1.ServiceAccountKind {
		return false
	}
	return s.Namespace == "kube-system" && strings.HasPrefix(role, "system:controller:") ||
		s.Namespace == f.Namespace && s.Name == v1alpha1.Operator && namespace == f.Namespace
}

// permitted returns the resources of those rights that rules grant.
func permitted(rules []rbacv1.PolicyRule, rights []right) (resources []string) {
	for _, w := range rights {
		if slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool {
			return has(r.APIGroups, w.group) && grants(r.Resources, w.resource) &&
				slices.ContainsFunc(w.verbs, func(verb string) bool { return has(r.Verbs, verb) })
		}) {
			resources = append(resources, w.resource)
		}
	}
	return resources
}

// grants reports whether the resources of a rule include one. RBAC knows "*/scale" as
// well as "*".
func grants(all []string, resource string) bool {
	_, sub, found := strings.Cut(resource, "/")
	return has(all, resource) || found && slices.Contains(all, "*/"+sub)
}

func has(all []string, one string) bool {
	return slices.Contains(all, one) || slices.Contains(all, "*")
}
