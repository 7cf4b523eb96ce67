// SPDX-License-Identifier: Apache-2.0

package audit

import (
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
	// Binding and Role are the names of the ClusterRoleBinding and ClusterRole.
	Binding string `json:"binding"`
	Role    string `json:"role"`
	// Resources that it may change.
	Resources []string `json:"resources"`
}

// writable are the resources that decide what runs: bpfman loads what the second names,
// and the operator derives that from the first. They have no namespace, so only
// ClusterRoleBindings count.
var writable = []struct{ group, resource string }{
	{v1alpha1.GroupVersion.Group, "blixtconfigs"},
	{bpfmanv1.SchemeGroupVersion.Group, "clusterbpfapplications"},
}

// writers returns who may write such a resource, sorted by subject.
func writers(f *Facts) []Writer {
	roles := map[string][]string{}
	for i := range f.Roles {
		if may := mayWrite(f.Roles[i].Rules); len(may) > 0 {
			roles[f.Roles[i].Name] = may
		}
	}
	var all []Writer
	for i := range f.Bindings {
		b := &f.Bindings[i]
		may := roles[b.RoleRef.Name]
		if b.RoleRef.Kind != "ClusterRole" || len(may) == 0 {
			continue
		}
		for _, s := range b.Subjects {
			name := s.Name
			if s.Namespace != "" {
				name = s.Namespace + "/" + name
			}
			all = append(all, Writer{Subject: s.Kind + " " + name, Binding: b.Name, Role: b.RoleRef.Name, Resources: may})
		}
	}
	slices.SortFunc(all, func(a, b Writer) int {
		return strings.Compare(a.Subject+" "+a.Binding, b.Subject+" "+b.Binding)
	})
	return all
}

// mayWrite returns the resources that rules permit to write.
func mayWrite(rules []rbacv1.PolicyRule) (resources []string) {
	for _, w := range writable {
		if slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool {
			return has(r.APIGroups, w.group) && has(r.Resources, w.resource) &&
				slices.ContainsFunc([]string{"create", "update", "patch", "delete", "deletecollection"}, func(verb string) bool { return has(r.Verbs, verb) })
		}) {
			resources = append(resources, w.resource)
		}
	}
	return resources
}

func has(all []string, one string) bool {
	return slices.Contains(all, one) || slices.Contains(all, "*")
}
