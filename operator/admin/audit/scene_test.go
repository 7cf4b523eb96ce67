// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"github.com/google/go-containerregistry/pkg/registry"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/admission"
	"github.com/kubernetes-sigs/blixt/operator/admin/audit"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

var server *kube.Server

func TestMain(m *testing.M) { os.Exit(kube.Run(m, kube.Options{WideLinkIDs: true}, &server)) }

// scene is a cluster in which nodes n1 and n2 run what is declared, and the
// registry that it came from.
type scene struct {
	*testing.T
	kube    client.Client
	bpfman  *kube.Bpfman
	image   string // signed
	plain   string // another, which nobody has signed
	key     *bytecode.PublicKey
	pem     string // key
	options bytecode.Options
	asked   v1alpha1.Dataplane
}

const objects = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: blixt}
spec:
  controllerName: gateway.networking.k8s.io/blixt
  parametersRef: {group: blixt.x-k8s.io, kind: BlixtConfig, name: blixt}
---
apiVersion: v1
kind: Namespace
metadata: {name: blixt-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: blixt-operator, namespace: blixt-system}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: operator, image: blixt, args: [operator, --bytecode=IMAGE]}]}
`

func newScene(t *testing.T) *scene { return newSceneOf(t, v1alpha1.Interfaces{}) }

// newSceneOf attaches to other interfaces than the primary one.
func newSceneOf(t *testing.T, interfaces v1alpha1.Interfaces) *scene {
	t.Helper()
	s := &scene{T: t, kube: server.Client, asked: v1alpha1.Dataplane{Interfaces: interfaces}}
	s.push()
	s.asked.Bytecode = &v1alpha1.Bytecode{VerificationKeys: []string{s.pem}}
	s.clear()
	t.Cleanup(s.clear)
	for _, name := range []string{"n1", "n2"} {
		s.must(s.kube.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}))
	}
	s.must(server.ApplyYAML(t.Context(), []byte(strings.ReplaceAll(objects, "IMAGE", s.image))))
	s.must(s.kube.Create(t.Context(), &v1alpha1.BlixtConfig{
		ObjectMeta: metav1.ObjectMeta{Name: "blixt"}, Spec: v1alpha1.BlixtConfigSpec{Dataplane: &s.asked},
	}))
	for _, policy := range admission.Policies() {
		s.must(client.IgnoreAlreadyExists(s.kube.Create(t.Context(), &policy)))
	}
	for _, binding := range admission.Bindings("blixt-system") {
		s.must(client.IgnoreAlreadyExists(s.kube.Create(t.Context(), &binding)))
	}
	s.bpfman = server.PlayBpfman(t)
	s.run(s.image)
	return s
}

// push fills a registry of its own.
func (s *scene) push() {
	s.Helper()
	s.Setenv("DOCKER_CONFIG", s.TempDir()) // no credentials of whoever runs this
	s.Setenv("REGISTRY_AUTH_FILE", "")
	s.Setenv("XDG_RUNTIME_DIR", "")
	web := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	s.Cleanup(web.Close)
	dir := s.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		s.must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	s.options = bytecode.Options{CAFile: write("ca.crt", "CERTIFICATE", web.Certificate().Raw), Pause: time.Millisecond}
	object, err := bytecode.ParseObject(bpf.Object())
	s.must(err)
	names := []string{}
	for _, version := range []string{"1", "2"} {
		stored, err := bytecode.New(object, bytecode.Meta{Version: version})
		s.must(err)
		name, err := stored.Push(s.Context(), strings.TrimPrefix(web.URL, "https://")+"/bytecode:v"+version, s.options)
		s.must(err)
		names = append(names, name)
	}
	s.image, s.plain = names[0], names[1]
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	der, err := x509.MarshalECPrivateKey(secret)
	s.must(err)
	key, err := bytecode.ReadPrivateKey(write("key.pem", "EC PRIVATE KEY", der), nil)
	s.must(err)
	_, err = bytecode.Sign(s.Context(), s.image, key, s.options)
	s.must(err)
	s.key = key.Public
	public, err := x509.MarshalPKIXPublicKey(secret.Public())
	s.must(err)
	s.pem = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
}

// run does what the operator does for an image, and waits for bpfman.
func (s *scene) run(image string) {
	s.Helper()
	name := rollout.Name(image)
	spec := rollout.Default(&s.asked, rollout.Release{}, nil)
	spec.Bytecode = &v1alpha1.Bytecode{Image: image}
	apply, _ := rollout.Objects(spec, rollout.Release{}, rollout.Plan(time.Now(), spec, rollout.Cluster{}))
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(apply[0])
	s.must(err)
	u := &unstructured.Unstructured{Object: fields}
	unstructured.RemoveNestedField(u.Object, "status")
	s.must(s.kube.Apply(s.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("blixt-operator"), client.ForceOwnership))
	kube.Wait(s.T, 20*time.Second, "load "+image, 2, func() (loaded int, err error) {
		for _, state := range s.states(name) {
			if state.Status.AppLoadStatus == bpfmanv1.AppLoadSuccess && len(state.Status.Programs[0].TCX.Links) == 2 {
				loaded++
			}
		}
		return loaded, nil
	})
	for _, state := range s.states(name) {
		node := &v1alpha1.NodeDataplane{ObjectMeta: metav1.ObjectMeta{Name: state.Status.Node}}
		s.must(s.kube.Create(s.Context(), node))
		repository, digest, _ := strings.Cut(image, "@")
		contact := metav1.Now()
		node.Status = v1alpha1.NodeDataplaneStatus{
			LastContact: &contact,
			Applications: []v1alpha1.ApplicationStatus{{
				Name: name, Bytecode: v1alpha1.BytecodeStatus{Image: repository, Digest: digest}, Pod: "agent-" + node.Name,
				ProgramID: new(int64(*state.Status.Programs[0].ProgramId)), Layout: int32(bpf.Layout), Frontends: 2, Backends: 3, AckedAt: &contact,
			}},
			Conditions: []metav1.Condition{
				{Type: "Ready", Status: "True", Reason: "Serving", LastTransitionTime: contact},
				{Type: "Drifted", Status: "False", Reason: "AsAsked", LastTransitionTime: contact},
			},
		}
		s.must(s.kube.Status().Update(s.Context(), node))
	}
}

func (s *scene) states(application string) []bpfmanv1.ClusterBpfApplicationState {
	s.Helper()
	var list bpfmanv1.ClusterBpfApplicationStateList
	s.must(s.kube.List(s.Context(), &list, client.MatchingLabels{"bpfman.io/ownedByProgram": application}))
	return list.Items
}

// audit audits, with the signed image's key or without.
func (s *scene) audit(as client.Client, keys ...*bytecode.PublicKey) *audit.Report {
	s.Helper()
	f, err := audit.Read(s.Context(), as, "blixt-system")
	s.must(err)
	s.must(f.ReadImages(s.Context(), as, s.options, keys))
	return audit.Audit(f)
}

// kubectl changes an object as somebody.
func (s *scene) kubectl(object client.Object, name, patch string) {
	s.Helper()
	object.SetName(name)
	s.must(s.kube.Patch(s.Context(), object, client.RawPatch("application/merge-patch+json", []byte(patch)), client.FieldOwner("kubectl-edit")))
}

// node changes the status of a NodeDataplane.
func (s *scene) node(name string, change func(*v1alpha1.NodeDataplaneStatus)) {
	s.Helper()
	n := &v1alpha1.NodeDataplane{}
	s.must(s.kube.Get(s.Context(), client.ObjectKey{Name: name}, n))
	change(&n.Status)
	s.must(s.kube.Status().Update(s.Context(), n))
}

func (s *scene) clear() {
	server.Clear(s, &gwv1.GatewayClassList{}, &v1alpha1.BlixtConfigList{}, &v1alpha1.NodeDataplaneList{}, &appsv1.DeploymentList{},
		&bpfmanv1.ClusterBpfApplicationList{}, &bpfmanv1.ClusterBpfApplicationStateList{}, &corev1.NodeList{})
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) class() *gwv1.GatewayClass {
	return &gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "blixt"}}
}
