// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/kubernetes-sigs/blixt/operator/release/chart"
)

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
