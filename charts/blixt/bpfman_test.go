// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/bpfmanconfig"
)

// ofBpfman lists bpfman's objects in a release, without CRDs.
var ofBpfman = []string{
	"CSIDriver/csi.bpfman.io", "ClusterRole/bpfman-agent-role", "ClusterRole/bpfman-metrics-reader", "ClusterRole/bpfman-operator-role",
	"ClusterRoleBinding/bpfman-agent-rolebinding", "ClusterRoleBinding/bpfman-auth-delegator", "ClusterRoleBinding/bpfman-operator-rolebinding",
	"ConfigMap/blixt-bpfman", "ConfigMap/bpfman-config", "DaemonSet/bpfman-daemon", "Deployment/bpfman-operator", "Job/blixt-bpfman-uninstall", "Namespace/bpfman",
	"Role/bpfman-operator-role", "RoleBinding/bpfman-operator-rolebinding",
	"ServiceAccount/bpfman-daemon", "ServiceAccount/bpfman-operator",
}

// withAll undoes blixtAlone.
const withAll = "--set=bpfman.enabled=true,gatewayAPI.install=true"

// kindsOf returns the names of the CRDs in files.
func kindsOf(t *testing.T, folders ...string) (all []string) {
	t.Helper()
	for _, folder := range folders {
		entries, err := os.ReadDir("files/" + folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, readKind(t, "files/"+folder+"/"+e.Name()).Name)
		}
	}
	slices.Sort(all)
	return all
}

func readKind(t *testing.T, file string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(text, crd); err != nil {
		t.Fatal(err)
	}
	return crd
}

func TestBpfmanIsRendered(t *testing.T) {
	objects := mustTemplate(t, withAll, "--set=bpfman.images.daemon.digest=sha256:"+strings.Repeat("3", 64)+",global.imageRegistry=mirror.example.com/x")
	want := slices.Concat(standard, ofBpfman, []string{"ValidatingAdmissionPolicy/" + safeUpgrades, "ValidatingAdmissionPolicyBinding/" + safeUpgrades})
	slices.Sort(want)
	if diff := cmp.Diff(want, names(objects)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	var kinds []string
	for _, o := range objects {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		kinds = append(kinds, o.GetName())
		if o.GetAnnotations()["helm.sh/resource-policy"] != "keep" || o.GetAnnotations()["blixt.x-k8s.io/chart"] == "" {
			t.Errorf("CRD %s has annotations %v", o.GetName(), o.GetAnnotations())
		}
	}
	slices.Sort(kinds)
	if diff := cmp.Diff(kindsOf(t, "bpfman", "crds", "gateway-api"), kinds); diff != "" {
		t.Errorf("CRDs (-want +got):\n%s", diff)
	}
	for _, name := range []string{"DaemonSet/bpfman-daemon", "Deployment/bpfman-operator", "Job/blixt-bpfman-uninstall"} {
		for _, image := range strings.Fields(field(t, objects, name, "{..image}")) {
			if !strings.HasPrefix(image, "mirror.example.com/x/") {
				t.Errorf("%s has image %s", name, image)
			}
		}
	}
	if got, want := field(t, objects, "DaemonSet/bpfman-daemon", "{.spec.template.spec.containers[0].image}"), "mirror.example.com/x/bpfman/bpfman:v0.6.0@sha256:"+strings.Repeat("3", 64); got != want {
		t.Errorf("bpfman's image is %s, want %s", got, want)
	}
}

// Container runtimes make what is not there. Where a node's system is read-only, as on Talos,
// they cannot, and start nothing.
func TestBpfmanNeedsNoWritableSystem(t *testing.T) {
	objects := mustTemplate(t, withAll)
	paths := strings.Fields(field(t, objects, "DaemonSet/bpfman-daemon", "{.spec.template.spec.volumes[*].hostPath.path}"))
	if len(paths) < 10 {
		t.Errorf("found only %q", paths)
	}
	for _, path := range paths {
		if top := strings.Split(path, "/")[1]; !slices.Contains([]string{"proc", "run", "sys", "tmp", "var"}, top) {
			t.Errorf("%s is in a folder that may be read-only", path)
		}
	}
}

func TestSwitchesOfBpfman(t *testing.T) {
	const daemon, operator = "DaemonSet/bpfman-daemon", "Deployment/bpfman-operator"
	for _, c := range []struct{ set, object, path, want string }{
		{"bpfman.images.daemon.tag=v9", daemon, "{.spec.template.spec.containers[0].image}", "quay.io/bpfman/bpfman:v9"},
		{"bpfman.imagePullSecrets={a,b}", daemon, "{.spec.template.spec.imagePullSecrets[*].name}", "a b"},
		{"bpfman.imagePullSecrets={a,b}", operator, "{.spec.template.spec.imagePullSecrets[*].name}", "a b"},
		{"bpfman.imagePullSecrets={a,b}", "Job/blixt-bpfman-uninstall", "{.spec.template.spec.imagePullSecrets[*].name}", "a b"},
		{"bpfman.nodeSelector.role=edge", daemon, "{.spec.template.spec.nodeSelector.role}", "edge"},
		{"bpfman.tolerations=null", daemon, "{.spec.template.spec.tolerations}", ""},
		{"tolerations[0].operator=Exists", operator, "{.spec.template.spec.tolerations[0].operator}", "Exists"},
		{"nodeSelector.role=infra", operator, "{.spec.template.spec.nodeSelector.role}", "infra"},
		{"bpfman.logLevel=debug", "ConfigMap/bpfman-config", `{.data.bpfman\.log\.level} {.data.bpfman\.agent\.log\.level}`, "debug debug"},
		{"bpfman.kubeletDir=/var/lib/k0s/kubelet", daemon, "{.spec.template.spec.volumes[?(@.name=='socket-dir')].hostPath.path}", "/var/lib/k0s/kubelet/plugins/csi-bpfman"},
		{"bpfman.configuration=[signing]", "ConfigMap/bpfman-config", `{.data.bpfman\.toml}`, "[signing]\n"},
	} {
		t.Run(c.set, func(t *testing.T) {
			t.Parallel()
			objects := mustTemplate(t, "--set=bpfman.enabled=true,"+c.set)
			if got := field(t, objects, c.object, c.path); got != c.want {
				t.Errorf("%s of %s is %q, want %q", c.path, c.object, got, c.want)
			}
		})
	}
	// A change of bpfman's configuration restarts its pods, one of Blixt does not.
	pods := func(flags ...string) string {
		return field(t, mustTemplate(t, append(flags, "--set=bpfman.enabled=true")...), daemon, "{.spec.template}")
	}
	before := pods()
	if pods("--set=bpfman.configuration=[signing]") == before {
		t.Error("another configuration does not restart bpfman")
	}
	if pods("--set=image.digest=sha256:"+strings.Repeat("4", 64), "--set=replicas=3", "--set=config.addresses.source=Node") != before {
		t.Error("another Blixt restarts bpfman")
	}
}

// bare is a cluster in which nobody has installed anything.
type bare struct {
	*testing.T
	*kube.Server
}

func newBare(t *testing.T) *bare {
	t.Helper()
	s, err := kube.Start(t.Context(), kube.Options{Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return &bare{t, s}
}

// helm runs Helm for a release as an administrator.
func (b *bare) helm(command, release, ns string, flags ...string) (string, error) {
	b.Helper()
	args := []string{command, release, "--namespace=" + ns, "--kube-apiserver=" + b.Config.Host, "--kube-token=" + b.Config.BearerToken, "--kube-ca-file=" + b.Config.CAFile}
	if command == "install" || command == "upgrade" {
		args = append(args, ".", values)
	}
	if command == "install" {
		args = append(args, "--create-namespace")
	}
	return run(b.T, append(args, flags...)...)
}

func (b *bare) mustHelm(command, release, ns string, flags ...string) string {
	b.Helper()
	out, err := b.helm(command, release, ns, flags...)
	if err != nil {
		b.Fatalf("helm %s %s: %v%s", command, release, err, out)
	}
	return out
}

// has tells whether an object exists, and returns it.
func (b *bare) has(kind, ns, name string) (*unstructured.Unstructured, bool) {
	b.Helper()
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(map[string]string{
		"CustomResourceDefinition": "apiextensions.k8s.io/v1", "Deployment": "apps/v1", "DaemonSet": "apps/v1", "CSIDriver": "storage.k8s.io/v1",
		"ClusterRole": "rbac.authorization.k8s.io/v1", "Namespace": "v1", "ConfigMap": "v1", "ValidatingAdmissionPolicy": "admissionregistration.k8s.io/v1",
	}[kind])
	o.SetKind(kind)
	err := b.Client.Get(b.Context(), client.ObjectKey{Namespace: ns, Name: name}, o)
	if client.IgnoreNotFound(err) != nil {
		b.Fatal(err)
	}
	return o, err == nil
}

// want wants objects of bpfman to be there, or none.
func (b *bare) want(there bool) {
	b.Helper()
	for _, o := range [][]string{{"Deployment", "bpfman", "bpfman-operator"}, {"DaemonSet", "bpfman", "bpfman-daemon"}, {"CSIDriver", "", "csi.bpfman.io"}, {"ClusterRole", "", "bpfman-operator-role"}} {
		if _, is := b.has(o[0], o[1], o[2]); is != there {
			b.Errorf("%s: it is there: %v, want %v", o, is, there)
		}
	}
}

// define creates CRDs that somebody else has installed, after change.
func (b *bare) define(change func(*apiextensionsv1.CustomResourceDefinition), files ...string) {
	b.Helper()
	for _, file := range files {
		crd := readKind(b.T, file)
		if change != nil {
			change(crd)
		}
		if err := b.Client.Create(b.Context(), crd); err != nil {
			b.Fatal(err)
		}
		kube.Wait(b.T, 10*time.Second, crd.Name+" is served", true, func() (bool, error) {
			err := b.Client.Get(b.Context(), client.ObjectKeyFromObject(crd), crd)
			return slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
				return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
			}), err
		})
	}
}

// owner returns the release that a CRD is of.
func (b *bare) owner(name string) string {
	b.Helper()
	o, _ := b.has("CustomResourceDefinition", "", name)
	return o.GetAnnotations()["meta.helm.sh/release-namespace"] + "/" + o.GetAnnotations()["meta.helm.sh/release-name"]
}

// One command installs everything into an empty cluster; what outlives the release does
// not stand in the way of the next one, whatever its name.
func TestIntoAnEmptyCluster(t *testing.T) {
	t.Parallel()
	b := newBare(t)
	out := b.mustHelm("install", "blixt", "first")
	b.want(true)
	for _, name := range kindsOf(t, "bpfman", "crds", "gateway-api") {
		if got := b.owner(name); got != "first/blixt" {
			t.Errorf("CRD %s is of release %s", name, got)
		}
	}
	if strings.Contains(out, "another bpfman") || strings.Contains(out, "no bpfman") || strings.Contains(out, "kubectl annotate") {
		t.Errorf("notes:\n%s", out)
	}
	b.appliesConfig()

	// Not by mistake.
	_, err := b.helm("upgrade", "blixt", "first", "--set=bpfman.enabled=false")
	if err == nil || !strings.Contains(err.Error(), "bpfman.enabled=false would remove bpfman from nodes that serve") {
		t.Errorf("upgrade without bpfman: got %v", err)
	}
	b.want(true)
	b.mustHelm("upgrade", "blixt", "first", "--set=replicas=3", "--no-hooks")
	b.want(true)
	b.mustHelm("upgrade", "blixt", "first", "--set=bpfman.enabled=false,bpfman.allowRemoval=true", "--no-hooks")
	b.want(false)
	hooks, err := run(t, "get", "hooks", "blixt", "--namespace=first", "--kube-apiserver="+b.Config.Host, "--kube-token="+b.Config.BearerToken, "--kube-ca-file="+b.Config.CAFile)
	if err != nil || !strings.Contains(hooks, "name: blixt-bpfman-uninstall") || !strings.Contains(hooks, "helm.sh/hook: pre-upgrade") {
		t.Errorf("no hook removes the Config: %v\n%s", err, hooks)
	}
	b.mustHelm("upgrade", "blixt", "first", "--set=bpfman.enabled=true")
	b.want(true)

	b.mustHelm("uninstall", "blixt", "first", "--no-hooks")
	b.want(false)
	if _, there := b.has("Namespace", "", "bpfman"); !there {
		t.Error("namespace bpfman is gone, with people's pull secrets")
	}
	unlabelled, _ := b.has("CustomResourceDefinition", "", "gateways.gateway.networking.k8s.io") // as install.yaml has them
	if err := b.Client.Patch(t.Context(), unlabelled, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"app.kubernetes.io/managed-by":null}}}`))); err != nil {
		t.Fatal(err)
	}
	out = b.mustHelm("install", "lb", "second")
	b.want(true)
	before, _ := b.has("CustomResourceDefinition", "", "configs.bpfman.io")
	if got := b.owner("gateways.gateway.networking.k8s.io"); got != "first/blixt" {
		t.Errorf("CRD of Gateways is of release %s", got)
	}
	// What the notes say hands the kinds over.
	_, command, found := strings.Cut(out, "kubectl annotate --overwrite crd ")
	command, _, ends := strings.Cut(command, "\n     kubectl label --overwrite crd gateways.gateway.networking.k8s.io \\\n       app.kubernetes.io/managed-by=Helm\n")
	if !found || !ends {
		t.Fatalf("the notes do not say whose kinds these are:\n%s", out)
	}
	words := strings.Fields(strings.ReplaceAll(command, "\\\n", " "))
	if want := []string{"meta.helm.sh/release-name=lb", "meta.helm.sh/release-namespace=second"}; len(words) != 17 || !slices.Equal(words[15:], want) {
		t.Fatalf("%d words: %v", len(words), words)
	}
	for _, name := range words[:15] {
		o, _ := b.has("CustomResourceDefinition", "", name)
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"lb",%q:"second"}}}`, "meta.helm.sh/release-name", "meta.helm.sh/release-namespace")
		if err := b.Client.Patch(t.Context(), o, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Client.Patch(t.Context(), unlabelled, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"app.kubernetes.io/managed-by":"Helm"}}}`))); err != nil {
		t.Fatal(err)
	}
	if out = b.mustHelm("upgrade", "lb", "second"); strings.Contains(out, "kubectl annotate") || strings.Contains(out, "kubectl label") {
		t.Errorf("notes:\n%s", out)
	}
	after, _ := b.has("CustomResourceDefinition", "", "configs.bpfman.io")
	if after.GetUID() != before.GetUID() {
		t.Error("the kind was deleted, with all objects")
	}
}

// appliesConfig applies the Config as the init container of bpfman's operator does, and
// removes it as the uninstallation does: with that account.
func (b *bare) appliesConfig() {
	b.Helper()
	var stored corev1.ConfigMap
	if err := b.Client.Get(b.Context(), client.ObjectKey{Namespace: "bpfman", Name: "blixt-bpfman"}, &stored); err != nil {
		b.Fatal(err)
	}
	config, err := b.AsServiceAccount(b.Context(), "bpfman", "bpfman-operator")
	if err != nil {
		b.Fatal(err)
	}
	as, err := client.New(config, client.Options{Scheme: kube.Scheme})
	if err != nil {
		b.Fatal(err)
	}
	o := bpfmanconfig.Options{Timeout: 20 * time.Second, Pause: 50 * time.Millisecond, Out: b.Output()}
	for _, do := range []func(context.Context) error{
		func(ctx context.Context) error {
			return bpfmanconfig.Apply(ctx, as, []byte(stored.Data["config.yaml"]), o)
		},
		func(ctx context.Context) error {
			return bpfmanconfig.Apply(ctx, as, []byte(stored.Data["config.yaml"]), o)
		},
		func(ctx context.Context) error { return bpfmanconfig.Remove(ctx, as, o) },
	} {
		if err := do(b.Context()); err != nil {
			b.Error(err)
		}
	}
}

// A bpfman that others have installed stays as it is, and none comes beside it.
func TestBesideAnotherBpfman(t *testing.T) {
	t.Parallel()
	b := newBare(t)
	b.define(nil, "files/bpfman/configs.yaml", "files/bpfman/clusterbpfapplications.yaml")
	out := b.mustHelm("install", "blixt", "blixt-system")
	b.want(false)
	if !strings.Contains(out, "another bpfman (CustomResourceDefinition clusterbpfapplications.bpfman.io, which is not of Blixt's chart)") || strings.Contains(out, "kubectl annotate") {
		t.Errorf("notes:\n%s", out)
	}
	if got := b.owner("configs.bpfman.io"); got != "/" {
		t.Errorf("CRD configs.bpfman.io is of release %s", got)
	}
	if _, there := b.has("CustomResourceDefinition", "", "bpfapplications.bpfman.io"); there {
		t.Error("the chart has added a kind of bpfman")
	}
	b.mustHelm("uninstall", "blixt", "blixt-system", "--no-hooks")

	// Only its operator.
	for _, name := range []string{"configs.bpfman.io", "clusterbpfapplications.bpfman.io"} {
		o, _ := b.has("CustomResourceDefinition", "", name)
		if err := b.Client.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		kube.Wait(t, 10*time.Second, name+" is gone", false, func() (bool, error) {
			_, there := b.has("CustomResourceDefinition", "", name)
			return there, nil
		})
	}
	if err := b.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bpfman"}}); err != nil {
		t.Fatal(err)
	}
	foreign := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "bpfman", Name: "bpfman-operator"}}
	foreign.Spec = find[appsv1.Deployment](t, mustTemplate(t, withAll), "Deployment", "bpfman-operator").Spec
	if err := b.Client.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	out = b.mustHelm("install", "blixt", "blixt-system")
	if _, there := b.has("DaemonSet", "bpfman", "bpfman-daemon"); there || !strings.Contains(out, "another bpfman (Deployment bpfman/bpfman-operator, which is not of this release)") {
		t.Errorf("DaemonSet: %v; notes:\n%s", there, out)
	}
	// It goes away: the next upgrade installs one, into the namespace that people have made.
	if err := b.Client.Delete(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	b.mustHelm("upgrade", "blixt", "blixt-system")
	b.want(true)

	// OLM's comes later: this release does not remove its own.
	olm := b.olm()
	out = b.mustHelm("upgrade", "blixt", "blixt-system")
	b.want(true)
	if strings.Contains(out, "another bpfman") {
		t.Errorf("notes:\n%s", out)
	}
	b.mustHelm("uninstall", "blixt", "blixt-system", "--no-hooks")
	// And with OLM's there already, no other comes.
	out = b.mustHelm("install", "blixt", "blixt-system")
	b.want(false)
	if !strings.Contains(out, "another bpfman (ClusterServiceVersion openshift-bpfman/"+olm+" of OLM)") {
		t.Errorf("notes:\n%s", out)
	}
}

// olm installs what tells that OLM has installed bpfman's operator, and returns its name.
func (b *bare) olm() string {
	b.Helper()
	const name = "bpfman-operator.v0.5.8"
	for _, text := range []string{`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: clusterserviceversions.operators.coreos.com}
spec:
  group: operators.coreos.com
  scope: Namespaced
  names: {kind: ClusterServiceVersion, listKind: ClusterServiceVersionList, plural: clusterserviceversions, singular: clusterserviceversion}
  versions: [{name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`, `
apiVersion: v1
kind: Namespace
metadata: {name: openshift-bpfman}
`, `
apiVersion: operators.coreos.com/v1alpha1
kind: ClusterServiceVersion
metadata: {name: other.v1.0.0, namespace: openshift-bpfman}
`, `
apiVersion: operators.coreos.com/v1alpha1
kind: ClusterServiceVersion
metadata: {name: ` + name + `, namespace: openshift-bpfman}
`} {
		kube.Wait(b.T, 10*time.Second, "what OLM has is there", "", func() (string, error) {
			if err := b.ApplyYAML(b.Context(), []byte(text)); err != nil {
				return err.Error(), nil
			}
			return "", nil
		})
	}
	return name
}

// Kinds of Gateway API that exist stay as they are: whatever installed them, a newer
// bundle, the experimental channel.
func TestBesideAnotherGatewayAPI(t *testing.T) {
	t.Parallel()
	b := newBare(t)
	const bundle, channel = "gateway.networking.k8s.io/bundle-version", "gateway.networking.k8s.io/channel"
	annotate := func(key, value string) func(*apiextensionsv1.CustomResourceDefinition) {
		return func(crd *apiextensionsv1.CustomResourceDefinition) { crd.Annotations[key] = value }
	}
	b.define(annotate(bundle, "v1.5.0"), "files/gateway-api/gateways.yaml")
	b.define(annotate(channel, "experimental"), "files/gateway-api/tcproutes.yaml")
	b.mustHelm("install", "blixt", "blixt-system", "--set=bpfman.enabled=false")
	got := map[string]string{}
	read := func() {
		for _, name := range kindsOf(t, "gateway-api") {
			o, _ := b.has("CustomResourceDefinition", "", name)
			got[strings.TrimSuffix(name, ".gateway.networking.k8s.io")] = strings.Join([]string{b.owner(name), o.GetAnnotations()[bundle], o.GetAnnotations()[channel]}, " ")
		}
	}
	read()
	const ours = "blixt-system/blixt v1.7.0 standard"
	want := map[string]string{"gatewayclasses": ours, "gateways": "/ v1.5.0 standard", "listenersets": ours, "referencegrants": ours, "tcproutes": "/ v1.7.0 experimental", "udproutes": ours}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
	// Somebody upgrades those of this release.
	for name, patch := range map[string]string{
		"listenersets": `{"metadata":{"annotations":{"` + bundle + `":"v1.8.0"}}}`, "udproutes": `{"metadata":{"annotations":{"` + channel + `":"experimental"}}}`,
		"referencegrants": `{"metadata":{"annotations":{"` + bundle + `":"v1.6.3"}}}`, "gatewayclasses": `{"metadata":{"annotations":{"` + bundle + `":"dev"}}}`,
	} {
		o, _ := b.has("CustomResourceDefinition", "", name+".gateway.networking.k8s.io")
		if err := b.Client.Patch(t.Context(), o, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
	b.mustHelm("upgrade", "blixt", "blixt-system", "--set=bpfman.enabled=false")
	read()
	want["listenersets"], want["udproutes"], want["gatewayclasses"] = "blixt-system/blixt v1.8.0 standard", "blixt-system/blixt v1.7.0 experimental", "blixt-system/blixt dev standard"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds after an upgrade (-want +got):\n%s", diff)
	}
	b.mustHelm("uninstall", "blixt", "blixt-system", "--no-hooks")
	read()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds after an uninstallation (-want +got):\n%s", diff)
	}
}
