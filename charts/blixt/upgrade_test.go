// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

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
		})
	}
}
