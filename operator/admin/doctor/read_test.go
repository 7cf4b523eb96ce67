// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/admission"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
)

// server has the kinds of bpfman as released: link ids are int32.
var server *kube.Server

func TestMain(m *testing.M) { os.Exit(kube.Run(m, kube.Options{}, &server)) }

// patient is one whose findings are read.
type patient struct {
	*testing.T
	client client.Client
}

// want waits until a check finds something of an object.
func (p *patient) want(check string, verdict doctor.Level, object, seen string) {
	p.Helper()
	kube.Wait(p.T, 20*time.Second, check, "", func() (string, error) {
		facts, err := doctor.Read(p.Context(), p.client, "v1.37.2", "blixt-system")
		if err != nil {
			return "", err
		}
		text := ""
		for _, f := range doctor.Check(facts) {
			if f.Check == check && f.Verdict == verdict && f.Object == object && strings.Contains(f.Seen, seen) {
				return "", nil
			}
			if f.Check == check {
				text += string(f.Verdict) + " " + f.Object + ": " + f.Seen + "\n"
			}
		}
		return text + "is not " + string(verdict) + " " + object + ": " + seen, nil
	})
}

func (p *patient) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// Each defect is made in a real cluster, and mended as the remedy says.
func TestRead(t *testing.T) {
	as, err := client.New(server.Config, client.Options{Scheme: kube.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	p := &patient{t, as}
	for _, name := range []string{"blixt-system", "bpfman"} {
		p.must(as.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelHostname: "n1"}}}
	p.must(as.Create(t.Context(), node))
	node.Status = corev1.NodeStatus{
		NodeInfo:   corev1.NodeSystemInfo{KernelVersion: "6.1.0"},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	}
	p.must(as.Status().Update(t.Context(), node))

	p.want("gateway-api", doctor.OK, "", "v1.7.0 standard")
	p.want("blixt-kinds", doctor.OK, "", "")
	p.want("bpfman-kinds", doctor.OK, "", "")
	p.want("kernel", doctor.Failed, "Node n1", "6.1.0")
	p.want("bpfman-operator", doctor.Failed, "Deployment bpfman/bpfman-operator", "not there")
	p.want("bpfman-nodes", doctor.Failed, "DaemonSet bpfman/bpfman-daemon", "not there")
	p.want("bpfman-csi", doctor.Failed, "CSIDriver csi.bpfman.io", "not there")
	p.want("operator", doctor.Failed, "Deployment blixt-system/blixt-operator", "not there")
	p.want("leader", doctor.Failed, "Lease blixt-system/blixt-operator", "not there")
	p.want("classes", doctor.Warning, "GatewayClass", "")

	// Policies, with what the API server adds to them.
	p.want("admission-policies", doctor.Warning, "ValidatingAdmissionPolicy blixt-maps", "not there")
	for _, policy := range admission.Policies() {
		p.must(as.Create(t.Context(), &policy))
	}
	for _, binding := range admission.Bindings("blixt-system") {
		p.must(as.Create(t.Context(), &binding))
	}
	p.want("admission-policies", doctor.OK, "", "cannot mount")
	p.must(as.Patch(t.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "blixt-maps"}},
		client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"validationActions":["Audit"]}}`))))
	p.want("admission-policies", doctor.Failed, "ValidatingAdmissionPolicyBinding blixt-maps", "not that of the chart")

	// Link ids, and what they do to a state.
	p.want("bpfman-link-ids", doctor.Failed, "CustomResourceDefinition clusterbpfapplicationstates.bpfman.io", "format int32")
	p.linkIDs()

	// bpfman, without and with its fixes.
	objects, err := ofChart()
	p.must(err)
	for _, o := range objects {
		if name := o.GetKind() + "/" + o.GetName(); name == "Config/bpfman-config" || name == "DaemonSet/bpfman-daemon" {
			p.must(server.Client.Create(t.Context(), o.DeepCopy()))
		}
	}
	p.want("bpfman-pins", doctor.OK, "", "outlive")
	p.want("bpfman-override", doctor.OK, "", "leaves")
	p.want("bpfman-signing", doctor.OK, "", "no signatures")
	p.must(as.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bpfman", Name: "bpfman-config"},
		Data:       map[string]string{"bpfman.toml": "[signing]\nallow_unsigned = true\n"},
	}))
	p.want("bpfman-signing", doctor.Warning, "ConfigMap bpfman/bpfman-config", "sigstore")
	p.must(as.Patch(t.Context(), &bpfmanv1.Config{ObjectMeta: metav1.ObjectMeta{Name: "bpfman-config"}}, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"overrides":null}}`))))
	p.want("bpfman-override", doctor.Failed, "Config bpfman-config", "unmanaged")
	daemon := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "bpfman", Name: "bpfman-daemon"}}
	p.must(as.Get(t.Context(), client.ObjectKeyFromObject(daemon), daemon))
	for i, m := range daemon.Spec.Template.Spec.Containers[0].VolumeMounts {
		if m.MountPath == "/run/bpfman/fs" {
			daemon.Spec.Template.Spec.Containers[0].VolumeMounts[i].MountPropagation = nil
		}
	}
	p.must(as.Update(t.Context(), daemon))
	p.want("bpfman-pins", doctor.Failed, "DaemonSet bpfman/bpfman-daemon", "no mountPropagation")
	patch := regexp.MustCompile(`patch daemonset bpfman-daemon -p '([^']*)'`).FindStringSubmatch(p.remedy("bpfman-pins"))
	p.must(as.Patch(t.Context(), daemon, client.RawPatch(types.StrategicMergePatchType, []byte(patch[1]))))
	p.want("bpfman-pins", doctor.OK, "", "outlive")

	// Its pod, and its driver.
	p.want("bpfman-nodes", doctor.Failed, "Node n1", "no pod")
	running := pod("bpfman", "bpfman-daemon-1", "n1", daemon.UID, "bpfman", metav1.Now())
	running.OwnerReferences[0].APIVersion, running.OwnerReferences[0].Kind, running.OwnerReferences[0].Name = "apps/v1", "DaemonSet", daemon.Name
	running.Spec.Containers = []corev1.Container{{Name: "bpfman", Image: "bpfman"}}
	status := running.Status
	p.must(as.Create(t.Context(), &running))
	running.Status = status
	p.must(as.Status().Update(t.Context(), &running))
	p.want("bpfman-nodes", doctor.OK, "", "1 selected")
	p.must(as.Create(t.Context(), &storagev1.CSIDriver{
		ObjectMeta: metav1.ObjectMeta{Name: "csi.bpfman.io"},
		Spec:       storagev1.CSIDriverSpec{VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}},
	}))
	p.want("bpfman-csi", doctor.Failed, "CSINode n1", "")
	p.must(as.Create(t.Context(), &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "csi.bpfman.io", NodeID: "n1"}}},
	}))
	p.want("bpfman-csi", doctor.OK, "", "")

	// A pool, and what it overlaps: the API server gives itself an address.
	p.must(server.ApplyYAML(t.Context(), []byte(`
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtConfig
metadata: {name: blixt}
spec: {addresses: {source: Pool, pool: [10.96.3.0/24]}}
`)))
	p.want("pool", doctor.Failed, "BlixtConfig blixt", "10.96.0.0/16 of ServiceCIDR kubernetes")

	// kube-proxy, as kubeadm configures it.
	p.must(server.ApplyYAML(t.Context(), []byte(`
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data: {config.conf: "mode: ipvs"}
---
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtConfig
metadata: {name: blixt}
spec: {addresses: {source: Node, podTraffic: KubeProxy}}
`)))
	p.want("kube-proxy", doctor.Warning, "BlixtConfig blixt", "not obeyed")

	// Without a kind at all, and without permission.
	p.withoutKind()
	p.asNobody()
}

// linkIDs has a state that bpfman cannot write, mends the kind, and has one that
// does not load.
func (p *patient) linkIDs() {
	p.Helper()
	b := server.PlayBpfman(p.T)
	b.SetLinkIDs(func() uint32 { return 1<<31 + 5 })
	app := &bpfmanv1.ClusterBpfApplication{ObjectMeta: metav1.ObjectMeta{Name: "blixt-111111111111", Labels: ours}}
	app.Spec.ByteCode.Image = &bpfmanv1.ByteCodeImage{Url: "registry.example.com/bytecode"}
	app.Spec.Programs = []bpfmanv1.ClBpfApplicationProgram{{Name: "blixt", Type: bpfmanv1.ProgTypeTCX, TCX: &bpfmanv1.ClTcxProgramInfo{
		Links: []bpfmanv1.ClTcxAttachInfo{{Direction: bpfmanv1.TCIngress, InterfaceSelector: bpfmanv1.InterfaceSelector{PrimaryNodeInterface: new(true)}}},
	}}}
	p.must(p.client.Create(p.Context(), app))
	var states bpfmanv1.ClusterBpfApplicationStateList
	kube.Wait(p.T, 10*time.Second, "state", 1, func() (int, error) {
		err := p.client.List(p.Context(), &states)
		return len(states.Items), err
	})
	name := "ClusterBpfApplicationState " + states.Items[0].Name
	facts, err := doctor.Read(p.Context(), p.client, "v1.37.2", "blixt-system")
	p.must(err)
	facts.Now = facts.Now.Add(5 * time.Minute) // nobody wants to wait
	found := false
	for _, f := range doctor.Check(facts) {
		found = found || f.Check == "programs" && f.Object == name && strings.Contains(f.Seen, "NotLoaded on node n1") && strings.Contains(f.Remedy, "bpfman-link-ids")
	}
	if !found {
		p.Errorf("five minutes later: got %+v, want that %s is stuck", doctor.Check(facts), name)
	}

	p.widen()
	p.want("bpfman-link-ids", doctor.OK, "", "room")
	b.Break("n1", kube.LoadFails)
	b.Forget("n1")
	p.must(p.client.Delete(p.Context(), app))
	kube.Wait(p.T, 10*time.Second, "unload", 0, func() (int, error) {
		err := p.client.List(p.Context(), &states)
		return len(states.Items), err
	})
	app.ResourceVersion, app.UID, app.Finalizers = "", "", nil
	p.must(p.client.Create(p.Context(), app))
	kube.Wait(p.T, 10*time.Second, "state", 1, func() (int, error) {
		err := p.client.List(p.Context(), &states)
		return len(states.Items), err
	})
	p.want("programs", doctor.Failed, "ClusterBpfApplicationState "+states.Items[0].Name, "LoadError on node n1, at attempt")
}

// remedy returns that of a check.
func (p *patient) remedy(check string) string {
	p.Helper()
	facts, err := doctor.Read(p.Context(), p.client, "v1.37.2", "blixt-system")
	p.must(err)
	for _, f := range doctor.Check(facts) {
		if f.Check == check && f.Remedy != "" {
			return f.Remedy
		}
	}
	p.Fatalf("%s has no remedy", check)
	return ""
}

// widen does what the remedy of bpfman-link-ids says, by its own sed.
func (p *patient) widen() {
	p.Helper()
	script := regexp.MustCompile(`sed '([^']*)'`).FindStringSubmatch(p.remedy("bpfman-link-ids"))
	for _, plural := range []string{"bpfapplicationstates", "clusterbpfapplicationstates"} {
		crd := &unstructured.Unstructured{}
		crd.SetAPIVersion("apiextensions.k8s.io/v1")
		crd.SetKind("CustomResourceDefinition")
		p.must(server.Client.Get(p.Context(), client.ObjectKey{Name: plural + ".bpfman.io"}, crd))
		text, err := yaml.Marshal(crd)
		p.must(err)
		sed := exec.CommandContext(p.Context(), "sed", script[1])
		sed.Stdin = bytes.NewReader(text)
		text, err = sed.Output()
		p.must(err)
		p.must(yaml.Unmarshal(text, &crd.Object))
		p.must(server.Client.Update(p.Context(), crd))
	}
}

func (p *patient) withoutKind() {
	p.Helper()
	c := &apiextv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "udproutes.gateway.networking.k8s.io"}}
	p.must(p.client.Delete(p.Context(), c))
	p.want("gateway-api", doctor.Failed, "CustomResourceDefinition udproutes.gateway.networking.k8s.io", "UDP is not served")
}

func (p *patient) asNobody() {
	p.Helper()
	p.must(p.client.Create(p.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "nobody"}}))
	config, err := server.AsServiceAccount(p.Context(), "blixt-system", "nobody")
	p.must(err)
	nobody, err := client.New(config, client.Options{Scheme: kube.Scheme})
	p.must(err)
	p.client = nobody
	p.want("kernel", doctor.Unknown, "Node", "forbidden")
	p.want("bpfman-pins", doctor.Unknown, "DaemonSet", "forbidden")
}
