// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

const (
	safeUpgrades      = "safe-upgrades.gateway.networking.k8s.io"
	bundleAnnotation  = "gateway.networking.k8s.io/bundle-version"
	channelAnnotation = "gateway.networking.k8s.io/channel"
)

// olderChart returns a copy of the chart as it was with Gateway API 1.6: without a policy.
func olderChart(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{".helmignore", "Chart.yaml", "values.yaml", "values.schema.json", "ci/values.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"templates", "files"} {
		if err := os.CopyFS(filepath.Join(dir, folder), os.DirFS(folder)); err != nil {
			t.Fatal(err)
		}
	}
	older, err := kube.Older.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range kindsOf(t, "gateway-api") {
		plural, _, _ := strings.Cut(name, ".")
		i := slices.IndexFunc(older, func(file string) bool { return strings.HasSuffix(file, "_"+plural+".yaml") })
		text, err := os.ReadFile(older[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "files/gateway-api", plural+".yaml"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	template := `{{- include "blixt.kinds" (dict "root" . "files" "files/gateway-api/*.yaml" "keep" true) }}`
	if err := os.WriteFile(filepath.Join(dir, "templates/gateway-api.yaml"), []byte(template), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// gatewayAPI returns the releases of the kinds that are there, and that of the policy; "": it
// is not there.
func (b *bare) gatewayAPI() (kinds []string, policy string) {
	b.Helper()
	for _, name := range kindsOf(b.T, "gateway-api") {
		o, _ := b.has("CustomResourceDefinition", "", name)
		if v := o.GetAnnotations()[bundleAnnotation]; !slices.Contains(kinds, v) {
			kinds = append(kinds, v)
		}
	}
	o, _ := b.has("ValidatingAdmissionPolicy", "", safeUpgrades)
	return kinds, o.GetAnnotations()[bundleAnnotation]
}

func (b *bare) wantGatewayAPI(when, policy string, kinds ...string) {
	b.Helper()
	got, gotPolicy := b.gatewayAPI()
	if diff := cmp.Diff(kinds, got); diff != "" || policy != gotPolicy {
		b.Errorf("%s: kinds (-want +got):\n%s\nthe policy is of %q, want %q", when, diff, gotPolicy, policy)
	}
}

// olderKind has others create a kind of Gateway API 1.6, and returns why they cannot.
func (b *bare) olderKind(plural string) error {
	b.Helper()
	older, err := kube.Older.Files()
	if err != nil {
		b.Fatal(err)
	}
	i := slices.IndexFunc(older, func(file string) bool { return strings.HasSuffix(file, "_"+plural+".yaml") })
	return client.IgnoreAlreadyExists(b.Client.Create(b.Context(), readKind(b.T, older[i]), client.DryRunAll))
}

const refusesOlder = "Installing CRDs with version before v1.7.0 is prohibited by default. Uninstall ValidatingAdmissionPolicy " + safeUpgrades

// refuses waits until the policy is in force.
func (b *bare) refuses() {
	b.Helper()
	kube.Wait(b.T, 30*time.Second, "older kinds are refused", true, func() (bool, error) {
		err := b.olderKind("httproutes")
		return err != nil && strings.Contains(err.Error(), refusesOlder), nil
	})
}

// A release of the chart that came with Gateway API 1.6 becomes one with 1.7, and goes back,
// without a word about the policy, unless somebody asks for older kinds where newer ones have
// come to stay.
func TestUpgradeOfGatewayAPI(t *testing.T) {
	t.Parallel()
	b, older := newBare(t), olderChart(t)
	const without = "--set=bpfman.enabled=false"
	helm := func(command string, chart string, flags ...string) (string, error) {
		b.Helper()
		args := []string{command, "blixt", "--namespace=blixt-system", "--kube-apiserver=" + b.Config.Host, "--kube-token=" + b.Config.BearerToken, "--kube-ca-file=" + b.Config.CAFile}
		if chart != "" {
			args = append(args, chart, values, without, "--no-hooks")
		}
		return run(t, append(args, flags...)...)
	}
	must := func(command, chart string, flags ...string) {
		b.Helper()
		if out, err := helm(command, chart, flags...); err != nil {
			t.Fatalf("helm %s %s: %v%s", command, chart, err, out)
		}
	}
	must("install", older, "--create-namespace")
	b.wantGatewayAPI("installed", "", "v1.6.3")

	// An upgrade that fails takes itself back, and waits in vain for that, too: nothing is
	// ever ready here.
	if out, err := helm("upgrade", ".", "--atomic", "--timeout=3s"); err == nil || strings.Contains(err.Error(), safeUpgrades) || !strings.Contains(err.Error(), "while rolling back the release. original upgrade error: context deadline exceeded: release blixt failed: context deadline exceeded") {
		t.Errorf("an upgrade that fails: %v%s", err, out)
	}
	b.wantGatewayAPI("after an upgrade that failed", "", "v1.6.3")

	must("upgrade", ".")
	b.wantGatewayAPI("upgraded", "", "v1.7.0")
	must("upgrade", ".")
	b.wantGatewayAPI("upgraded once more", "v1.7.0", "v1.7.0")
	b.refuses()

	// An older install.yaml, by kubectl.
	text, err := run(t, "template", "blixt", older, "--namespace=blixt-system", oldest, values, without, "--no-hooks")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := kube.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var refused []string
	for _, o := range objects {
		err := b.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.DryRunAll, client.ForceOwnership, client.FieldOwner("kubectl"))
		switch {
		case err != nil && strings.Contains(err.Error(), refusesOlder):
			refused = append(refused, o.GetName())
		case err != nil:
			t.Errorf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
	slices.Sort(refused)
	if diff := cmp.Diff(kindsOf(t, "gateway-api"), refused); diff != "" {
		t.Errorf("an older install.yaml is refused for (-want +got):\n%s", diff)
	}

	// Helm would restore the kinds first, and says why it cannot before it has changed anything else.
	deployment, _ := b.has("Deployment", "blixt-system", "blixt-operator")
	if _, err := helm("rollback", ""); err != nil {
		t.Errorf("rollback to a revision with the same kinds: %v", err)
	}
	if _, err := helm("rollback", "", "1"); err == nil || !strings.Contains(err.Error(), refusesOlder) {
		t.Errorf("rollback to a revision with older kinds: %v", err)
	}
	if now, _ := b.has("Deployment", "blixt-system", "blixt-operator"); now.GetGeneration() != deployment.GetGeneration() {
		t.Errorf("a rollback that was refused has changed the operator")
	}
	b.wantGatewayAPI("after a rollback that was refused", "v1.7.0", "v1.7.0")
	// The older chart itself leaves them as they are.
	must("upgrade", older)
	b.wantGatewayAPI("downgraded", "v1.7.0", "v1.7.0")
	must("upgrade", ".")
	b.wantGatewayAPI("upgraded after that", "v1.7.0", "v1.7.0")
	must("uninstall", "", "--no-hooks")
	b.wantGatewayAPI("uninstalled", "v1.7.0", "v1.7.0")
	must("install", older)
	b.wantGatewayAPI("the older chart beside what the newer one has left", "v1.7.0", "v1.7.0")

	// Whoever wants the older kinds removes the policy, as it says, and no upgrade brings it back.
	policy, _ := b.has("ValidatingAdmissionPolicy", "", safeUpgrades)
	if err := b.Client.Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	kube.Wait(t, 30*time.Second, "older kinds are taken", true, func() (bool, error) { return b.olderKind("httproutes") == nil, nil })
	b.define(annotated(bundleAnnotation, "v1.6.3"), "kinds/gateway-api/standard/gateway.networking.k8s.io_tlsroutes.yaml")
	must("upgrade", ".")
	b.wantGatewayAPI("upgraded beside older kinds of others", "", "v1.7.0")
}

func annotated(key, value string) func(*apiextensionsv1.CustomResourceDefinition) {
	return func(crd *apiextensionsv1.CustomResourceDefinition) { crd.Annotations[key] = value }
}

// The policy would forbid the owners of other kinds to change them: of those that are older,
// and of the experimental channel. Where there are any, it is not installed.
func TestOthersOwnGatewayAPI(t *testing.T) {
	t.Parallel()
	b := newBare(t)
	older, err := kube.Older.Files()
	if err != nil {
		t.Fatal(err)
	}
	b.define(nil, slices.DeleteFunc(slices.Clone(older), func(file string) bool { return strings.HasSuffix(file, "_udproutes.yaml") })...)
	b.mustHelm("install", "blixt", "blixt-system", "--set=bpfman.enabled=false")
	b.mustHelm("upgrade", "blixt", "blixt-system", "--set=bpfman.enabled=false")
	b.wantGatewayAPI("beside kinds of 1.6", "", "v1.6.3", "v1.7.0")
	route, _ := b.has("CustomResourceDefinition", "", "httproutes.gateway.networking.k8s.io")
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"example.com/owner":"somebody"}}}`))
	if err := b.Client.Patch(t.Context(), route, patch); err != nil {
		t.Errorf("the owner changes a kind: %v", err)
	}

	// They upgrade all, to the experimental channel.
	for _, file := range older {
		crd := readKind(t, file)
		patch := `{"metadata":{"annotations":{"` + bundleAnnotation + `":"v1.7.0","` + channelAnnotation + `":"experimental"}}}`
		if err := b.Client.Patch(t.Context(), crd, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
	b.mustHelm("upgrade", "blixt", "blixt-system", "--set=bpfman.enabled=false")
	b.wantGatewayAPI("beside kinds of the experimental channel", "", "v1.7.0")

	// To the standard channel, with a policy of a later release, which stays theirs.
	for _, file := range older {
		crd := readKind(t, file)
		patch := `{"metadata":{"annotations":{"` + bundleAnnotation + `":"v1.8.0","` + channelAnnotation + `":"standard"}}}`
		if err := b.Client.Patch(t.Context(), crd, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"files/safe-upgrades/policy.yaml", "files/safe-upgrades/binding.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := kube.Decode([]byte(strings.ReplaceAll(string(text), "v1.7.0", "v1.8.0")))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Client.Create(t.Context(), objects[0]); err != nil {
			t.Fatal(err)
		}
	}
	b.mustHelm("upgrade", "blixt", "blixt-system", "--set=bpfman.enabled=false")
	if _, policy := b.gatewayAPI(); policy != "v1.8.0" {
		t.Errorf("the policy of others is now of %q", policy)
	}
}
