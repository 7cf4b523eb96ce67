// SPDX-License-Identifier: Apache-2.0

// Package kube reads the objects of a cluster for everybody who looks at one:
// the controller and the commands for administrators. In goes a client; out come
// objects, or why they could not be read, and simple facts about a single object.
// It decides nothing, and writes nothing.
package kube

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// What the CRDs of Gateway API say of themselves, and how to get those that Blixt needs.
const (
	BundleAnnotation  = "gateway.networking.k8s.io/bundle-version"
	InstallGatewayAPI = "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.7.0/standard-install.yaml"
)

// ServedVersions returns the versions of a kind that the API server serves, in words.
// A nil CRD has none.
func ServedVersions(crd *apiextv1.CustomResourceDefinition) string {
	if crd == nil {
		return ""
	}
	var names []string
	for _, v := range crd.Spec.Versions {
		if v.Served {
			names = append(names, v.Name)
		}
	}
	text := strings.Join(names, ", ")
	if bundle := crd.Annotations[BundleAnnotation]; text != "" && bundle != "" {
		text += " of Gateway API " + bundle
	}
	return text
}

// Scheme has all kinds that Blixt reads and writes.
var Scheme = NewScheme()

// NewScheme returns a scheme with the kinds of Scheme, and with more.
func NewScheme(more ...func(*runtime.Scheme) error) *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range append([]func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextv1.AddToScheme, gwv1.Install, bpfmanv1.Install, v1alpha1.AddToScheme,
	}, more...) {
		if err := add(s); err != nil { // two kinds of one name: a mistake in the code
			panic(err)
		}
	}
	return s
}

// KindOf returns the kind of an object, or of a list's objects. It is the name of
// the Go type: clients leave TypeMeta empty.
func KindOf(object runtime.Object) string {
	return strings.TrimSuffix(reflect.TypeOf(object).Elem().Name(), "List")
}

// NameOf returns kind, namespace and name of an object, as messages name it.
func NameOf(object client.Object) string {
	return KindOf(object) + " " + strings.TrimPrefix(client.ObjectKeyFromObject(object).String(), "/")
}

// Ready reports whether the kubelet of a node says that pods can run there. A
// nil node is not ready.
func Ready(n *corev1.Node) bool {
	return n != nil && slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// NodeOf returns the node of a state. bpfman sets the label first, the status
// later.
func NodeOf(s *bpfmanv1.ClusterBpfApplicationState) string {
	return cmp.Or(s.Status.Node, s.Labels[corev1.LabelHostname])
}

// ApplicationOf returns the name of the ClusterBpfApplication of a state.
func ApplicationOf(s *bpfmanv1.ClusterBpfApplicationState) string {
	return s.Labels[v1alpha1.OwnedByLabel]
}

// ProgramOf returns Blixt's program in a state, whose TCX is not nil. It is nil if
// bpfman has not loaded the program, and for a nil state.
func ProgramOf(s *bpfmanv1.ClusterBpfApplicationState) *bpfmanv1.ClBpfApplicationProgramState {
	if s == nil || s.Status.AppLoadStatus != bpfmanv1.AppLoadSuccess {
		return nil
	}
	for i := range s.Status.Programs {
		if p := &s.Status.Programs[i]; p.Name == bpf.BlixtProgBlixt && p.ProgramId != nil && p.TCX != nil {
			return p
		}
	}
	return nil
}

// Named returns the first object of a name; nil: there is none.
func Named[T any, P interface {
	*T
	client.Object
}](all []T, name string) *T {
	i := slices.IndexFunc(all, func(o T) bool { return P(&o).GetName() == name })
	if i < 0 {
		return nil
	}
	return &all[i]
}
