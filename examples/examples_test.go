// SPDX-License-Identifier: Apache-2.0

// Package examples_test checks the examples for Kubernetes.
package examples_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
)

// frontends are those that each example declares: port, Services, weights.
var frontends = map[string][]string{
	"tcproute":        {"80/tcp web:1"},
	"udproute":        {"53/tcp dns:1", "53/udp dns:1"},
	"listenerset":     {"80/tcp web:1", "8443/tcp admin:1"},
	"cross-namespace": {"80/tcp web:1"},
	"weights":         {"80/tcp stable:90 canary:10"},
}

var server *kube.Server

func TestMain(m *testing.M) { os.Exit(kube.Run(m, kube.Options{}, &server)) }

func decode(t *testing.T, name string) []*unstructured.Unstructured {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(name, name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := kube.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// A real API server accepts every object, knows every field, and admits the pods
// to a namespace that enforces Pod Security "restricted".
func TestAPIServerTakesAll(t *testing.T) {
	for name := range frontends {
		t.Run(name, func(t *testing.T) {
			restricted := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Labels: map[string]string{
				"pod-security.kubernetes.io/enforce": "restricted",
			}}}
			if err := server.Client.Create(t.Context(), restricted); err != nil {
				t.Fatal(err)
			}
			for _, o := range decode(t, name) {
				if o.GetKind() != "Namespace" {
					o.SetNamespace(restricted.Name)
				}
				if err := server.Client.Create(t.Context(), o.DeepCopy(), client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
					t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
				}
				if o.GetKind() != "Deployment" {
					continue
				}
				var d appsv1.Deployment
				if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
					t.Fatal(err)
				}
				pod := &corev1.Pod{ObjectMeta: d.Spec.Template.ObjectMeta, Spec: d.Spec.Template.Spec}
				pod.Namespace, pod.Name = restricted.Name, d.Name
				if err := server.Client.Create(t.Context(), pod, client.DryRunAll); err != nil {
					t.Errorf("pod of Deployment %s: %v", d.Name, err)
				}
			}
		})
	}
}

// Translated as by `blixt run`, the routes attach and lead to the Services that the example is about.
func TestRoutesLeadToServices(t *testing.T) {
	for name, want := range frontends {
		t.Run(name, func(t *testing.T) {
			set, err := manifest.Read(name)
			if err != nil {
				t.Fatal(err)
			}
			set.Objects.GatewayClasses = []gatewayv1.GatewayClass{{
				ObjectMeta: metav1.ObjectMeta{Name: "blixt"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: gateway.ControllerName},
			}}
			for i := range set.Objects.Gateways { // which the cluster would assign
				set.Objects.Gateways[i].Spec.Addresses = []gatewayv1.GatewaySpecAddress{{Value: "192.0.2.1"}}
			}
			translation := gateway.Translate(set.Objects, gateway.Options{})
			for _, r := range translation.Routes {
				if len(r.Status.Parents) == 0 {
					t.Errorf("%s is attached to nothing", r.Name)
				}
				for _, p := range r.Status.Parents {
					for _, c := range []string{"Accepted", "ResolvedRefs"} {
						if !meta.IsStatusConditionTrue(p.Conditions, c) {
							t.Errorf("%s: condition %s: %+v", r.Name, c, meta.FindStatusCondition(p.Conditions, c))
						}
					}
				}
			}
			var got []string
			for _, f := range translation.Frontends {
				_, at, _ := strings.Cut(f.Key.String(), ":")
				for _, ref := range f.Refs {
					at += fmt.Sprintf(" %s:%d", ref.Service.Name, ref.Weight)
				}
				got = append(got, at)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("frontends (-want +got):\n%s", diff)
			}
		})
	}
}

// The commands of a README name objects that its YAML has.
func TestReadmesNameWhatThereIs(t *testing.T) {
	named := regexp.MustCompile(`\b(gateway|listenerset|tcproute|udproute|deployment|referencegrant|namespace)[/ ]([a-z][a-z-]*)`)
	for name := range frontends {
		blocks, err := document.Read(filepath.Join(name, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		for _, o := range decode(t, name) {
			there[strings.ToLower(o.GetKind())+" "+o.GetName()] = true
		}
		var commands []string
		for _, b := range blocks {
			commands = append(commands, regexp.MustCompile(`(?m)^.*kubectl.*$`).FindAllString(b.Text, -1)...)
		}
		if len(commands) < 4 {
			t.Errorf("%s: only these commands: %q", name, commands)
		}
		for _, command := range commands {
			command = strings.ReplaceAll(command, "examples/"+name+"/"+name+".yaml", "FILE")
			for _, m := range named.FindAllStringSubmatch(command, -1) {
				if !there[m[1]+" "+m[2]] {
					t.Errorf("%s: there is no %s %s: %s", name, m[1], m[2], command)
				}
			}
		}
	}
}
