// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/release/chart"
)

// A cluster that has nothing gets all from the registry by one command without values; a
// newer Helm goes on with what an older one has installed; what is kept is no obstacle to
// the next installation.
func TestInstallFromTheRegistryIntoAnEmptyCluster(t *testing.T) {
	empty, err := kube.Start(t.Context(), kube.Options{Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(empty.Stop)
	ref, _ := publish(t, packed(t))
	do := func(helm, command string, flags ...string) {
		t.Helper()
		args := slices.Concat([]string{command, "blixt"}, inClusterOf(empty, namespace), flags)
		if out, err := runHelm(t, helm, args...); err != nil {
			t.Fatal(helm, command, out, err)
		}
	}
	want, err := run(t, "template", "blixt", ref, "--plain-http", "--no-hooks", "--namespace="+namespace, oldest)
	if err != nil {
		t.Fatal(err)
	}
	missing := func() (all []string) {
		for _, o := range objectsOf(t, want) {
			if err := empty.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
				all = append(all, err.Error())
			}
		}
		return all
	}
	for _, step := range []struct {
		helm, command string
		flags         []string
	}{
		{helm3, "install", []string{ref, "--plain-http", "--create-namespace"}},
		{helm4, "upgrade", []string{ref, "--plain-http", "--reset-then-reuse-values"}},
		{helm4, "uninstall", []string{"--no-hooks"}}, // they need nodes
		{helm4, "install", []string{ref, "--plain-http"}},
	} {
		do(step.helm, step.command, step.flags...)
		if step.command == "uninstall" {
			continue
		}
		if diff := cmp.Diff([]string(nil), missing()); diff != "" {
			t.Errorf("missing after %s %s:\n%s", step.helm, step.command, diff)
		}
	}
	var secrets corev1.SecretList
	if err := empty.Client.List(t.Context(), &secrets, client.InNamespace(namespace), client.MatchingLabels{"owner": "helm"}); err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets.Items {
		t.Logf("%s takes %d of %d bytes", s.Name, len(s.Data["release"]), largestSecret)
	}
	if len(secrets.Items) != 1 {
		t.Errorf("%d releases are stored, want 1", len(secrets.Items))
	}
}

// An upgrade takes the images of the new release, and keeps what was set. With the flag that
// many are used to, Helm keeps the images as well, which nobody would notice.
func TestUpgradeTakesTheImagesOfTheNewRelease(t *testing.T) {
	next := release
	next.Version = "v1.2.4"
	next.Image = strings.ReplaceAll(release.Image, "1", "3")
	archive, err := chart.Package(next)
	if err != nil {
		t.Fatal(err)
	}
	from, to := unpackInto(t, t.TempDir(), packed(t)), unpackInto(t, t.TempDir(), archive)
	const says = "These are not the images of this release"
	for _, helm := range helms {
		t.Run(helm, func(t *testing.T) {
			ns := server.Namespace(t)
			do := func(command string, flags ...string) string {
				t.Helper()
				out, err := runHelm(t, helm, append([]string{command, "blixt"}, append(inCluster(ns), flags...)...)...)
				if err != nil {
					t.Fatal(out, err)
				}
				return out
			}
			if out := do("install", from, blixtAlone+",crds.install=false,replicas=3"); strings.Contains(out, says) {
				t.Errorf("an installation says %s", says)
			}
			t.Cleanup(func() { do("uninstall", "--no-hooks") })
			for _, c := range []struct{ flag, image string }{{"--reuse-values", release.Image}, {"--reset-then-reuse-values", next.Image}} {
				out := do("upgrade", to, c.flag)
				d := get[appsv1.Deployment](t, ns, "blixt-operator")
				if got := d.Spec.Template.Spec.Containers[0].Image; got != c.image || *d.Spec.Replicas != 3 {
					t.Errorf("%s: %d operators of image %s, want 3 of %s", c.flag, *d.Spec.Replicas, got, c.image)
				}
				if said := strings.Contains(out, says); said != (c.image == release.Image) {
					t.Errorf("%s: it says %q: %v", c.flag, says, said)
				}
			}
			do("upgrade", to, "--reset-then-reuse-values", "--set=replicas=null")
			if d := get[appsv1.Deployment](t, ns, "blixt-operator"); *d.Spec.Replicas != 2 {
				t.Errorf("with null there are %d operators, want 2, the default", *d.Spec.Replicas)
			}
		})
	}
}

// A class that an earlier chart has made is not deleted by the upgrade: with Gateways it would
// stay as one that is being deleted, and nobody could change it. Upgrades are refused until it
// is the operator's.
func TestUpgradeKeepsTheClassOfAnEarlierChart(t *testing.T) {
	from := unpackInto(t, t.TempDir(), packed(t))
	const earlier = `{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: handed-over}, spec: {controllerName: gateway.networking.k8s.io/blixt}}`
	if err := os.WriteFile(filepath.Join(from, "templates", "gatewayclass.yaml"), []byte(earlier), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, helm := range helms {
		t.Run(helm, func(t *testing.T) {
			ns := server.Namespace(t)
			do := func(command string, flags ...string) (string, error) {
				return runHelm(t, helm, append([]string{command, "blixt"}, append(inCluster(ns), flags...)...)...)
			}
			set := blixtAlone + ",crds.install=false,gatewayClass.name=handed-over"
			if out, err := do("install", from, set); err != nil {
				t.Fatal(out, err)
			}
			t.Cleanup(func() {
				if out, err := do("uninstall", "--no-hooks"); err != nil {
					t.Error(out, err)
				}
				forget(t, &gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "handed-over"}})
			})
			if out, err := do("upgrade", ".", values, set); err == nil || !strings.Contains(err.Error()+out, "kubectl label --overwrite gatewayclass handed-over app.kubernetes.io/managed-by=blixt-operator") {
				t.Fatalf("an upgrade that deletes the class: got %q, %v", out, err)
			}
			class := get[gwv1.GatewayClass](t, "", "handed-over")
			class.Annotations["helm.sh/resource-policy"] = "keep"
			class.Labels["app.kubernetes.io/managed-by"] = "blixt-operator"
			if err := server.Client.Update(t.Context(), class); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if out, err := do("upgrade", ".", values, set); err != nil {
					t.Fatal(out, err)
				}
				if class := get[gwv1.GatewayClass](t, "", "handed-over"); class.DeletionTimestamp != nil || class.Labels["app.kubernetes.io/managed-by"] != "blixt-operator" {
					t.Errorf("the class after an upgrade: %+v", class.ObjectMeta)
				}
			}
		})
	}
}
