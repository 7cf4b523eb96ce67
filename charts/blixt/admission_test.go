// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/admission"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// mounting returns a pod with volumes of CSI drivers.
func mounting(ns string, volumes ...corev1.CSIVolumeSource) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "pod"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c"}}},
	}
	for i := range volumes {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("v", i), VolumeSource: corev1.VolumeSource{CSI: &volumes[i]}})
	}
	return pod
}

// bpfmans returns a volume of bpfman's driver, with attributes as name=value.
func bpfmans(attributes ...string) corev1.CSIVolumeSource {
	v := corev1.CSIVolumeSource{Driver: "csi.bpfman.io"}
	for _, a := range attributes {
		name, value, _ := strings.Cut(a, "=")
		if v.VolumeAttributes == nil {
			v.VolumeAttributes = map[string]string{}
		}
		v.VolumeAttributes["csi.bpfman.io/"+name] = value
	}
	return v
}

func with(v corev1.CSIVolumeSource, change func(*corev1.CSIVolumeSource)) corev1.CSIVolumeSource {
	change(&v)
	return v
}

// tenant returns a namespace, and a client that may do there what role edit permits with
// pods. Nobody fills that role here.
func tenant(t *testing.T) (string, client.Client) {
	t.Helper()
	ns := server.Namespace(t)
	for _, o := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "tenant"}},
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "tenant"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "create", "update", "patch", "delete"}}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "tenant"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "tenant"},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "tenant"}},
		},
	} {
		if err := server.Client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	c := asAccount(t, ns, "tenant")
	kube.Wait(t, 10*time.Second, "the tenant may create pods", true, func() (bool, error) {
		err := c.Create(t.Context(), mounting(ns), client.DryRunAll)
		return err == nil, err
	})
	return ns, c
}

// enforced installs the chart, and waits until the API server enforces its policies.
func enforced(t *testing.T) (ns string) {
	t.Helper()
	ns, elsewhere := install(t), server.Namespace(t)
	kube.Wait(t, 30*time.Second, "answers of blixt-maps and blixt-names", [2]bool{true, true}, func() ([2]bool, error) {
		maps := server.Client.Create(t.Context(), mounting(elsewhere, bpfmans("program=blixt-1")), client.DryRunAll)
		names := server.Client.Create(t.Context(), application(elsewhere, "blixt-1", ""), client.DryRunAll)
		return [2]bool{denied(maps, "blixt-maps"), denied(names, "blixt-names")}, nil
	})
	return ns
}

// denied reports whether a policy has denied a request.
func denied(err error, policy string) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+policy+"'")
}

func application(ns, name, generate string) *bpfmanv1.BpfApplication {
	o := &bpfmanv1.BpfApplication{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, GenerateName: generate}}
	o.Spec.ByteCode.Image = &bpfmanv1.ByteCodeImage{Url: "registry.example.com/other:v1", ImagePullPolicy: "IfNotPresent"}
	o.Spec.NodeSelector = metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	o.Spec.Programs = []bpfmanv1.BpfApplicationProgram{{Name: "program", Type: "TCX", TCX: &bpfmanv1.TcxProgramInfo{}}}
	return o
}

// Whoever mounts the maps of the data plane can send everybody's traffic elsewhere.
func TestOnlyBlixtMountsItsMaps(t *testing.T) {
	blixt := enforced(t)
	ns, c := tenant(t)
	ours := "program=" + rollout.Name("registry.example.com/b@sha256:"+strings.Repeat("0123456789abcdef", 4))
	own := agent(t, "").Spec
	own.PriorityClassName = ""
	pods := map[string]*corev1.Pod{
		"as the agents do":             {ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "pod"}, Spec: own},
		"one map":                      mounting(ns, bpfmans(ours, "maps=frontends")),
		"no map":                       mounting(ns, bpfmans(ours)),
		"an application that will be":  mounting(ns, bpfmans("program=blixt-"+strings.Repeat("0", 64), "maps=frontends")),
		"read-only":                    mounting(ns, with(bpfmans(ours, "maps=frontends"), func(v *corev1.CSIVolumeSource) { v.ReadOnly = new(true) })),
		"the driver in capitals":       mounting(ns, with(bpfmans(ours, "maps=frontends"), func(v *corev1.CSIVolumeSource) { v.Driver = "CSI.Bpfman.IO" })),
		"behind others":                mounting(ns, bpfmans("program=other", "maps=m"), corev1.CSIVolumeSource{Driver: "other.example.com"}, bpfmans(ours, "maps=frontends")),
		"before one without":           mounting(ns, bpfmans(ours, "maps=frontends"), bpfmans()),
		"behind one without":           mounting(ns, bpfmans(), bpfmans(ours, "maps=frontends")),
		"a path from another program":  mounting(ns, bpfmans("program=other", "maps=m,../../../csi/fs/1/link/frontends")),
		"an absolute path":             mounting(ns, bpfmans("program=other", "maps=/run/bpfman/fs/maps/1/frontends")),
		"a path, with no program":      mounting(ns, bpfmans("maps=../1/frontends")),
		"the name of a pod by pattern": {ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "pod-"}, Spec: mounting(ns, bpfmans(ours, "maps=frontends")).Spec},
		"among thousands":              mounting(ns, slices.Repeat([]corev1.CSIVolumeSource{bpfmans(ours, "maps=frontends")}, 3000)...),
	}
	for _, name := range slices.Sorted(maps.Keys(pods)) {
		if admission.Mounts(pods[name]) == "" {
			t.Errorf("%s: blixt audit would not list the pod", name)
		}
		for who, c := range map[string]client.Client{"tenant": c, "administrator": server.Client} {
			if err := c.Create(t.Context(), pods[name].DeepCopy(), client.DryRunAll); !denied(err, "blixt-maps") {
				t.Errorf("%s, by the %s: got %v, want that policy blixt-maps denies it", name, who, err)
			}
		}
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pods["one map"].DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	applied := &unstructured.Unstructured{Object: fields}
	applied.SetAPIVersion("v1")
	applied.SetKind("Pod")
	unstructured.RemoveNestedField(applied.Object, "status")
	if err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(applied), client.FieldOwner("t"), client.DryRunAll); !denied(err, "blixt-maps") {
		t.Errorf("by server-side apply: got %v, want that it is denied", err)
	}

	for name, pod := range map[string]*corev1.Pod{
		"no volume":             mounting(ns),
		"another driver":        mounting(ns, with(bpfmans(ours, "maps=a/b"), func(v *corev1.CSIVolumeSource) { v.Driver = "other.example.com" })),
		"another program":       mounting(ns, bpfmans("program=other", "maps=m,n")),
		"a program named blixt": mounting(ns, bpfmans("program=blixt", "maps=m")),
		"no attributes":         mounting(ns, bpfmans()),
		"thousands of others":   mounting(ns, slices.Repeat([]corev1.CSIVolumeSource{bpfmans("program=other", "maps=m")}, 3000)...),
		"Blixt's own agents":    {ObjectMeta: metav1.ObjectMeta{Namespace: blixt, Name: "pod"}, Spec: own},
		"its next one":          mounting(blixt, bpfmans("program=blixt-2", "maps=frontends")),
	} {
		if err := server.Client.Create(t.Context(), pod, client.DryRunAll); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := admission.Mounts(pod); pod.Namespace == ns && got != "" {
			t.Errorf("%s: blixt audit would list the pod: %s", name, got)
		}
	}
}

// What is admitted cannot turn into what is denied.
func TestMapsDoNotComeLater(t *testing.T) {
	enforced(t)
	ns, c := tenant(t)
	ours := bpfmans("program=blixt-111111111111", "maps=frontends")
	for name, first := range map[string]*corev1.Pod{"no volume": mounting(ns), "another volume": mounting(ns, bpfmans("program=other", "maps=m"))} {
		first.Name = strings.ReplaceAll(name, " ", "-")
		if err := c.Create(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		changed := first.DeepCopy()
		changed.Spec.Volumes = mounting(ns, ours).Spec.Volumes
		if err := c.Update(t.Context(), changed); !apierrors.IsInvalid(err) {
			t.Errorf("%s, updated: got %v, want that volumes cannot change", name, err)
		}
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"volumes":[{"name":"v0","csi":{"driver":"csi.bpfman.io","volumeAttributes":{"csi.bpfman.io/program":"blixt-1"}}}]}}`))
		if err := c.Patch(t.Context(), first.DeepCopy(), patch); !apierrors.IsInvalid(err) {
			t.Errorf("%s, patched: got %v, want that volumes cannot change", name, err)
		}
		debugged := first.DeepCopy()
		debugged.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debug", Image: "c", TerminationMessagePolicy: "File", ImagePullPolicy: "Always", VolumeMounts: []corev1.VolumeMount{{Name: "maps", MountPath: "/maps"}},
		}}}
		if err := server.Client.SubResource("ephemeralcontainers").Update(t.Context(), debugged); !apierrors.IsInvalid(err) {
			t.Errorf("%s, with an ephemeral container: got %v, want that it has the pod's volumes only", name, err)
		}
	}
	// The binding knows Blixt's namespace by this label.
	forged := &corev1.Namespace{}
	if err := server.Client.Get(t.Context(), client.ObjectKey{Name: ns}, forged); err != nil {
		t.Fatal(err)
	}
	forged.Labels["kubernetes.io/metadata.name"] = "blixt-system"
	err := server.Client.Update(t.Context(), forged)
	if err == nil && forged.Labels["kubernetes.io/metadata.name"] != ns {
		t.Error("a namespace can have the name of another as its label")
	}
}

// bpfman's driver knows programs by the name of their application alone.
func TestNamesOfApplicationsAreReserved(t *testing.T) {
	enforced(t)
	ns := server.Namespace(t)
	for _, c := range []struct {
		name, generate string
		denied         bool
	}{
		{"blixt-111111111111", "", true},
		{"blixt-x", "", true},
		{"", "blixt-", true},
		{"", "blixt", false},
		{"blixt", "", false},
		{"other", "", false},
		{"my-blixt-1", "", false},
	} {
		err := server.Client.Create(context.Background(), application(ns, c.name, c.generate), client.DryRunAll)
		if got := denied(err, "blixt-names"); got != c.denied || !got && err != nil {
			t.Errorf("BpfApplication %s%s: denied is %v (%v), want %v", c.name, c.generate, got, err, c.denied)
		}
	}
	of := &bpfmanv1.ClusterBpfApplication{ObjectMeta: metav1.ObjectMeta{Name: "blixt-111111111111"}}
	of.Spec.BpfAppCommon = application("", "", "").Spec.BpfAppCommon
	of.Spec.Programs = []bpfmanv1.ClBpfApplicationProgram{{Name: "program", Type: "TCX", TCX: &bpfmanv1.ClTcxProgramInfo{}}}
	if err := server.Client.Create(t.Context(), of, client.DryRunAll); err != nil {
		t.Errorf("the operator's: %v", err)
	}
}

// What the chart installs is what doctor and audit look for.
func TestInstalledPoliciesAreKnown(t *testing.T) {
	ns := install(t)
	var policies admissionv1.ValidatingAdmissionPolicyList
	var bindings admissionv1.ValidatingAdmissionPolicyBindingList
	for _, list := range []client.ObjectList{&policies, &bindings} {
		if err := server.Client.List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	if faults := admission.Check(policies.Items, bindings.Items, ns); len(faults) > 0 {
		t.Errorf("got %v, want none", faults)
	}
	if faults := admission.Check(policies.Items, bindings.Items, "other"); len(faults) != 1 {
		t.Errorf("of a release elsewhere: got %v, want the binding that leaves its namespace out", faults)
	}
}
