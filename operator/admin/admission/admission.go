// SPDX-License-Identifier: Apache-2.0

// Package admission knows the ValidatingAdmissionPolicies of the chart, which keep the
// maps of the data plane to Blixt's namespace. In go the policies and bindings of a
// cluster; out comes how they differ. It is pure.
package admission

import (
	"fmt"
	"io/fs"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	chart "github.com/kubernetes-sigs/blixt/charts/blixt"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// Driver is bpfman's CSI driver, by which agents get the maps.
const Driver = "csi.bpfman.io"

const (
	// mapsPolicy is the name of the policy, and of its binding, that denies pods.
	mapsPolicy = "blixt-maps"
	// Attributes of the driver's volumes name an application, and its maps.
	program = "csi.bpfman.io/program"
	maps    = "csi.bpfman.io/maps"
	// prefix of the names of Blixt's applications.
	prefix = "blixt-"
)

// Fault is a policy or a binding that does not do what the chart's does.
type Fault struct {
	// Object is kind and name.
	Object string
	// Missing: it is not there. Else it was changed.
	Missing bool
}

// Policies returns the policies of the chart.
func Policies() []admissionv1.ValidatingAdmissionPolicy {
	var all []admissionv1.ValidatingAdmissionPolicy
	files, err := fs.Glob(chart.Admission, "files/admission/*.yaml")
	if err != nil || len(files) == 0 {
		panic(fmt.Sprint("no admission policies: ", err))
	}
	for _, file := range files {
		text, err := fs.ReadFile(chart.Admission, file)
		if err != nil {
			panic(err)
		}
		var p admissionv1.ValidatingAdmissionPolicy
		if err := yaml.UnmarshalStrict(text, &p); err != nil {
			panic(fmt.Sprint(file, ": ", err))
		}
		all = append(all, p)
	}
	return all
}

// Bindings returns the bindings of the chart, for a release in a namespace.
func Bindings(namespace string) []admissionv1.ValidatingAdmissionPolicyBinding {
	var all []admissionv1.ValidatingAdmissionPolicyBinding
	for _, p := range Policies() {
		b := admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: p.Name}}
		b.Spec.PolicyName = p.Name
		b.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Deny}
		if p.Name == mapsPolicy {
			b.Spec.MatchResources = &admissionv1.MatchResources{
				MatchPolicy:    new(admissionv1.Equivalent),
				ObjectSelector: &metav1.LabelSelector{},
				NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: []string{namespace}},
				}},
			}
		}
		all = append(all, b)
	}
	return all
}

// Check compares what a cluster has with what the chart installs.
func Check(policies []admissionv1.ValidatingAdmissionPolicy, bindings []admissionv1.ValidatingAdmissionPolicyBinding, namespace string) []Fault {
	var all []Fault
	for _, want := range Policies() {
		got := kube.Named(policies, want.Name)
		if got == nil || !equality.Semantic.DeepEqual(got.Spec, want.Spec) {
			all = append(all, Fault{Object: "ValidatingAdmissionPolicy " + want.Name, Missing: got == nil})
		}
	}
	for _, want := range Bindings(namespace) {
		got := kube.Named(bindings, want.Name)
		if got == nil || !equality.Semantic.DeepEqual(got.Spec, want.Spec) {
			all = append(all, Fault{Object: "ValidatingAdmissionPolicyBinding " + want.Name, Missing: got == nil})
		}
	}
	return all
}

// Mounts returns what of Blixt's data plane a pod mounts, in words; "": nothing. It judges
// as policy blixt-maps does.
func Mounts(pod *corev1.Pod) string {
	for _, v := range pod.Spec.Volumes {
		if v.CSI == nil || !strings.EqualFold(v.CSI.Driver, Driver) {
			continue
		}
		if of := v.CSI.VolumeAttributes[program]; strings.HasPrefix(of, prefix) {
			return "maps of application " + of
		}
		if path := v.CSI.VolumeAttributes[maps]; strings.Contains(path, "/") {
			return "maps by a path, " + path
		}
	}
	return ""
}
