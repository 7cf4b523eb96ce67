// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// helmIn runs Helm as an administrator of the cluster.
func helmIn(t *testing.T, ns, command string, flags ...string) (string, error) {
	t.Helper()
	return run(t, append(append([]string{command, "blixt"}, inCluster(ns)...), flags...)...)
}

// inCluster are the flags by which Helm is an administrator of the cluster.
func inCluster(ns string) []string { return inClusterOf(server, ns) }

func inClusterOf(s *kube.Server, ns string) []string {
	return []string{"--namespace=" + ns, "--kube-apiserver=" + s.Config.Host, "--kube-token=" + s.Config.BearerToken, "--kube-ca-file=" + s.Config.CAFile}
}

// install installs the chart in a namespace until the test ends, as a cluster can
// have one Blixt. The CRDs exist already and are left out.
func install(t *testing.T, flags ...string) string {
	t.Helper()
	ns := server.Namespace(t)
	if out, err := helmIn(t, ns, "install", append(flags, ".", values, blixtAlone+",crds.install=false")...); err != nil {
		t.Fatal(out, err)
	}
	t.Cleanup(func() {
		if out, err := helmIn(t, ns, "uninstall", "--no-hooks"); err != nil {
			t.Error(out, err)
		}
	})
	return ns
}

// older returns a chart whose CRD differs from the present one.
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

// undefine deletes the CRDs of Blixt.
func undefine(t *testing.T) {
	t.Helper()
	for _, name := range v1alpha1.CRDs {
		forget(t, &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
}

// get reads an object, or fails the test.
func get[T any, P interface {
	*T
	client.Object
}](t *testing.T, ns, name string) P {
	t.Helper()
	o := P(new(T))
	if err := server.Client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, o); err != nil {
		t.Fatal(err)
	}
	return o
}

// Helm installs everything in one step, though it defines the kinds in the same step.
func TestInstallUpgradeUninstall(t *testing.T) {
	undefine(t)
	t.Cleanup(func() { define(t, "files/crds/*.yaml") })
	ns := server.Namespace(t)
	do := func(command string, flags ...string) {
		t.Helper()
		if out, err := helmIn(t, ns, command, flags...); err != nil {
			t.Fatal(out, err)
		}
	}
	checksum := func() string {
		return get[appsv1.Deployment](t, ns, "blixt-operator").Spec.Template.Annotations["checksum/config"]
	}
	do("install", older(t), values, blixtAlone, "--set=config.addresses.source=Node")
	config, first := given(t, get[corev1.ConfigMap](t, ns, "blixt-config")), checksum()
	if err := apply(t, operator(t, ns), config); err != nil {
		t.Error(err)
	}

	do("upgrade", ".", values, blixtAlone, "--set=config.addresses.source=LoadBalancer")
	config = given(t, get[corev1.ConfigMap](t, ns, "blixt-config"))
	want := map[string]any{"addresses": map[string]any{"source": "LoadBalancer"}}
	if diff := cmp.Diff(want, config.Object["spec"]); diff != "" {
		t.Errorf("config after an upgrade (-want +got):\n%s", diff)
	}
	if second := checksum(); second == first {
		t.Errorf("nothing restarts the operator to read it: checksum/config stays %q", second)
	}
	if diff := cmp.Diff([]string{"blixt"}, get[apiextensionsv1.CustomResourceDefinition](t, "", v1alpha1.CRDs[0]).Spec.Names.Categories); diff != "" {
		t.Errorf("categories of CRD %s after an upgrade (-want +got):\n%s", v1alpha1.CRDs[0], diff)
	}

	do("uninstall", "--no-hooks") // the hook needs nodes
	kept := []string{"BlixtConfig/blixt"}
	for _, name := range v1alpha1.CRDs {
		kept = append(kept, "CustomResourceDefinition/"+name)
	}
	rendered := append(mustTemplate(t, "--set=config.addresses.source=Node"), config)
	if diff := cmp.Diff(kept, left(t, ns, rendered)); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
	forget(t, config)
}

// left returns those of the objects, installed in a namespace, that still exist.
func left(t *testing.T, ns string, objects []*unstructured.Unstructured) (all []string) {
	t.Helper()
	for _, o := range objects {
		if o.GetNamespace() == namespace {
			o.SetNamespace(ns)
		}
		err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o)
		if err == nil {
			all = append(all, o.GetKind()+"/"+o.GetName())
		} else if !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
	slices.Sort(all)
	return all
}

// forget deletes an object and waits until it is gone.
func forget(t *testing.T, o client.Object) {
	t.Helper()
	if err := server.Client.Delete(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	kube.Wait(t, 10*time.Second, o.GetName()+" is deleted", true, func() (bool, error) {
		err := server.Client.Get(context.Background(), client.ObjectKeyFromObject(o), o)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}
