// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// everything enables all that is disabled by default.
var everything = []string{
	"--set=config.addresses.source=Pool,config.addresses.pool={192.0.2.0/28},config.dataplane.priority=7",
	"--set=certManager.enabled=true,certManager.issuerRef.name=ca,certManager.issuerRef.kind=ClusterIssuer",
	"--set=registryCA=my-ca,imagePullSecrets={creds},env[0].name=HTTPS_PROXY,env[0].value=proxy:3128",
	"--set=pullSecretRoles[0].namespace=default,pullSecretRoles[0].name=creds",
	"--set=monitoring.serviceMonitor.enabled=true,monitoring.podMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.dashboards.enabled=true,monitoring.otlpEndpoint=http://collector:4317",
	"--set=page.enabled=true,page.hosts={blixt.example.com},page.tlsSecret=page-tls",
	"--set=networkPolicy.pageFrom[0].namespaceSelector.matchLabels.name=ingress",
	"--set=networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring",
	"--set=tolerations[0].operator=Exists,podLabels.a=b,podAnnotations.a=b,resources.limits.memory=1Gi",
}

// foreign defines the other projects' kinds of which the chart creates objects.
// Their CRDs come from the modules that release them, without go.mod.
func foreign(t *testing.T) {
	t.Helper()
	for module, files := range map[string][]string{
		"github.com/prometheus-operator/prometheus-operator@v0.85.0": {
			"example/prometheus-operator-crd/monitoring.coreos.com_*monitors.yaml",
			"example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
		},
		"github.com/cert-manager/cert-manager@v1.19.1": {"deploy/crds/cert-manager.io_certificates.yaml"},
	} {
		out, err := exec.Command("go", "mod", "download", "-json", module).Output()
		if err != nil {
			t.Fatalf("download %s: %v", module, err)
		}
		var found struct{ Dir string }
		if err := json.Unmarshal(out, &found); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			define(t, filepath.Join(found.Dir, file))
		}
	}
}

// define creates the CRDs in files, and waits until they are established.
func define(t *testing.T, pattern string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no kinds in %s (%v)", pattern, err)
	}
	if err := server.Apply(context.Background(), files...); err != nil {
		t.Fatal(err)
	}
	kube.Wait(t, 10*time.Second, "kinds are served", 0, func() (pending int, err error) {
		list := &apiextensionsv1.CustomResourceDefinitionList{}
		err = server.Client.List(context.Background(), list)
		for _, crd := range list.Items {
			if !slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
				return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
			}) {
				pending++
			}
		}
		return pending, err
	})
}

// A real API server accepts every object, and knows every field.
func TestAPIServerTakesAll(t *testing.T) {
	foreign(t)
	ns := server.Namespace(t)
	for name, flags := range map[string][]string{"standard": nil, "everything": everything} {
		t.Run(name, func(t *testing.T) {
			for _, o := range mustTemplate(t, flags...) {
				if o.GetNamespace() == namespace {
					o.SetNamespace(ns)
				}
				if o.GetKind() == "CustomResourceDefinition" { // that which is there; without a status
					stored := &apiextensionsv1.CustomResourceDefinition{}
					if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(o), stored); err != nil {
						t.Fatal(err)
					}
					o.SetResourceVersion(stored.ResourceVersion)
					if err := server.Client.Update(t.Context(), o, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
						t.Error(err)
					}
					continue
				}
				if err := server.Client.Create(t.Context(), o, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
					t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
				}
			}
		})
	}
}

// The pods of the chart run in namespaces that enforce Pod Security "restricted".
func TestPodSecurity(t *testing.T) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "restricted-", Labels: map[string]string{
		"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest",
	}}}
	if err := server.Client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	create := func(template corev1.PodTemplateSpec) error {
		pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
		pod.Namespace, pod.Name, pod.Spec.PriorityClassName = ns.Name, "pod", ""
		return server.Client.Create(t.Context(), pod, client.DryRunAll)
	}
	objects := mustTemplate(t, everything...)
	operator := find[appsv1.Deployment](t, objects, "Deployment", "blixt-operator").Spec.Template
	uninstall := find[batchv1.Job](t, objects, "Job", "blixt-uninstall").Spec.Template
	for name, template := range map[string]corev1.PodTemplateSpec{"operator": operator, "uninstall": uninstall} {
		if err := create(template); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s := template.Spec.Containers[0].SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
			t.Errorf("%s: its root file system can be written", name)
		}
	}
	operator.Spec.SecurityContext.RunAsNonRoot = nil
	if err := create(operator); !apierrors.IsForbidden(err) {
		t.Errorf("a pod that may be root: got %v, want that it is forbidden: else this test shows nothing", err)
	}
}

// Names of digits are text, in the whole chart.
func TestNamesOfDigits(t *testing.T) {
	text, err := run(t, "template", "123", ".", "--namespace=456", oldest, values, "--set=gatewayAPI.install=false,crds.install=false",
		"--set-string=gatewayClass.name=1,priorityClassName=1e3,registryCA=0x1,imagePullSecrets={1},bpfman.imagePullSecrets={1},pullSecretRoles[0].name=1,pullSecretRoles[0].namespace=2,page.tlsSecret=1",
		"--set=page.enabled=true")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objectsOf(t, text) {
		if !kube.Scheme.Recognizes(o.GroupVersionKind()) {
			continue
		}
		typed, err := kube.Scheme.New(o.GroupVersionKind())
		if err != nil {
			t.Fatal(err)
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, typed, true); err != nil {
			t.Errorf("%s: %v", o.GetKind(), err)
		}
	}
}
