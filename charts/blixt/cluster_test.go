// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// everything switches on what is off.
var everything = []string{
	"--set=config.addresses.source=Pool,config.addresses.pool={192.0.2.0/28},config.dataplane.priority=7",
	"--set=certManager.enabled=true,certManager.issuerRef.name=ca,certManager.issuerRef.kind=ClusterIssuer",
	"--set=registryCA=my-ca,imagePullSecrets={creds},env[0].name=HTTPS_PROXY,env[0].value=proxy:3128",
	"--set=pullSecretRoles[0].namespace=default,pullSecretRoles[0].name=creds",
	"--set=monitoring.serviceMonitor.enabled=true,monitoring.podMonitor.enabled=true,monitoring.prometheusRule.enabled=true",
	"--set=networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring",
	"--set=tolerations[0].operator=Exists,podLabels.a=b,podAnnotations.a=b,resources.limits.memory=1Gi",
}

// foreign makes the server know the kinds of others that the chart has objects
// of. They come from the modules that release them, which go.mod need not know.
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

// define makes the server know the kinds in files, and waits until it does.
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

// undefine makes the server forget Blixt's kinds.
func undefine(t *testing.T) {
	t.Helper()
	for _, name := range crds {
		crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := server.Client.Delete(t.Context(), crd); err != nil {
			t.Fatal(err)
		}
		kube.Wait(t, 10*time.Second, "CRD "+name+" is deleted", true, func() (bool, error) {
			err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(crd), crd)
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		})
	}
}

// A real API server takes every object, and knows every field of it.
func TestAPIServerTakesAll(t *testing.T) {
	foreign(t)
	ns := server.Namespace(t)
	for name, flags := range map[string][]string{"standard": nil, "everything": append(everything, hasKinds)} {
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

// helmIn runs Helm as an administrator of the cluster.
func helmIn(t *testing.T, ns, command string, flags ...string) (string, error) {
	t.Helper()
	args := []string{command, "blixt", "--namespace=" + ns, "--kube-apiserver=" + server.Config.Host,
		"--kube-token=" + server.Config.BearerToken, "--kube-ca-file=" + server.Config.CAFile}
	return run(t, append(args, flags...)...)
}

// install installs the chart in a namespace, without the CRDs, which are there,
// until the test ends: a cluster has one Blixt.
func install(t *testing.T) string {
	t.Helper()
	ns := server.Namespace(t)
	if out, err := helmIn(t, ns, "install", ".", values, "--set=crds.install=false"); err != nil {
		t.Fatal(out, err)
	}
	t.Cleanup(func() {
		if out, err := helmIn(t, ns, "uninstall", "--no-hooks"); err != nil {
			t.Error(out, err)
		}
	})
	return ns
}

// older returns a chart with a CRD that is not as it is now.
func older(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "blixt")
	if err := os.CopyFS(dir, os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "files/crds/blixt.x-k8s.io_blixtconfigs.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "    categories:\n    - blixt\n", "    categories:\n    - older\n", 1)
	if changed == string(text) {
		t.Fatalf("no category blixt in %s", file)
	}
	if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInstallUpgradeUninstall(t *testing.T) {
	undefine(t)
	t.Cleanup(func() { define(t, "files/crds/*.yaml") })
	wanted := "--set=config.addresses.source=Node"
	ns := server.Namespace(t)
	out, err := helmIn(t, ns, "install", older(t), values, wanted)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "ONE MORE STEP") {
		t.Errorf("the notes of an installation without its BlixtConfig do not say so:\n%s", out)
	}
	class := &gatewayv1.GatewayClass{}
	get := func(o client.Object, name string) error {
		return server.Client.Get(t.Context(), client.ObjectKey{Name: name}, o)
	}
	if err := get(class, "blixt"); err != nil {
		t.Fatal(err)
	}
	if class.Spec.ParametersRef == nil {
		t.Error("the GatewayClass does not wait for its BlixtConfig")
	}

	if out, err = helmIn(t, ns, "upgrade", ".", values, wanted); err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := get(crd, crds[0]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"blixt"}, crd.Spec.Names.Categories); diff != "" {
		t.Errorf("categories of CRD %s after an upgrade (-want +got):\n%s", crd.Name, diff)
	}
	if strings.Contains(out, "ONE MORE STEP") {
		t.Errorf("the notes want one more step after the last:\n%s", out)
	}
	config := &v1alpha1.BlixtConfig{}
	if err := get(config, "blixt"); err != nil {
		t.Fatal(err)
	}
	if config.Spec.Addresses.Source != v1alpha1.SourceNode {
		t.Errorf("source of addresses is %s, want %s", config.Spec.Addresses.Source, v1alpha1.SourceNode)
	}

	// The hook needs nodes.
	if out, err := helmIn(t, ns, "uninstall", "--no-hooks"); err != nil {
		t.Fatal(out, err)
	}
	if err := get(config, "blixt"); err != nil {
		t.Errorf("BlixtConfig after uninstalling, which must not delete what owns the data plane: %v", err)
	}
	if err := server.Client.Delete(t.Context(), config); err != nil {
		t.Error(err)
	}
	var left []string
	for _, o := range mustTemplate(t) {
		if o.GetNamespace() == namespace {
			o.SetNamespace(ns)
		}
		if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err == nil {
			left = append(left, o.GetKind()+"/"+o.GetName())
		}
	}
	want := []string{}
	for _, name := range crds {
		want = append(want, "CustomResourceDefinition/"+name)
	}
	slices.Sort(left)
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
}
