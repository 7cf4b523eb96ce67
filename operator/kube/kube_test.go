// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"errors"
	"testing"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// answers are the errors of an API server by kind. Without one there is one object.
type answers map[string]error

func (a answers) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return nil
}

func (a answers) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	if err := a[kube.KindOf(list)]; err != nil {
		return err
	}
	if nodes, is := list.(*corev1.NodeList); is {
		nodes.Items = make([]corev1.Node, 1)
	}
	return nil
}

var (
	missing   = &meta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: "Config"}}
	forbidden = apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no role"))
	errDown   = errors.New("connection refused")
)

func TestRead(t *testing.T) {
	r := &kube.Reader{Client: answers{"Pod": forbidden, "Config": missing}, Unread: map[string]string{}, Missing: "no such kind"}
	if n := len(kube.Read[corev1.NodeList](t.Context(), r).Items); n != 1 {
		t.Errorf("read %d nodes, want 1", n)
	}
	kube.Read[corev1.PodList](t.Context(), r)
	kube.Read[bpfmanv1.ConfigList](t.Context(), r)
	if diff := cmp.Diff(map[string]string{"Pod": forbidden.Error(), "Config": "no such kind"}, r.Unread); diff != "" || r.Err != nil {
		t.Errorf("error %v, unread (-want +got):\n%s", r.Err, diff)
	}

	r = &kube.Reader{Client: answers{"Pod": errDown}, Unread: map[string]string{}}
	kube.Read[corev1.PodList](t.Context(), r)
	if n := len(kube.Read[corev1.NodeList](t.Context(), r).Items); n != 0 || !errors.Is(r.Err, errDown) {
		t.Errorf("after an error: read %d nodes, error %v, want none and %v", n, r.Err, errDown)
	}
}

func TestList(t *testing.T) {
	c := answers{"Pod": forbidden, "Config": missing}
	if err := kube.List(t.Context(), c, &bpfmanv1.ConfigList{}); err != nil {
		t.Errorf("a kind that the cluster does not have: got %v, want no error", err)
	}
	if err := kube.List(t.Context(), c, &corev1.PodList{}); !apierrors.IsForbidden(err) {
		t.Errorf("a forbidden kind: got %v, want %v", err, forbidden)
	}
}

func TestReady(t *testing.T) {
	n := &corev1.Node{}
	if kube.Ready(nil) || kube.Ready(n) {
		t.Error("a node without conditions is ready")
	}
	for status, want := range map[corev1.ConditionStatus]bool{corev1.ConditionTrue: true, corev1.ConditionFalse: false, corev1.ConditionUnknown: false} {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue}, {Type: corev1.NodeReady, Status: status}}
		if kube.Ready(n) != want {
			t.Errorf("condition Ready %s: ready is %t", status, !want)
		}
	}
}

func TestStates(t *testing.T) {
	s := &bpfmanv1.ClusterBpfApplicationState{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelHostname: "label"}}}
	if got := kube.NodeOf(s); got != "label" {
		t.Errorf("node before the status is written: %q", got)
	}
	s.Status.Node = "status"
	if got := kube.NodeOf(s); got != "status" {
		t.Errorf("node of the status: %q", got)
	}
	id := uint32(7)
	p := bpfmanv1.ClBpfApplicationProgramState{}
	p.Name, p.ProgramId, p.TCX = bpf.BlixtProgBlixt, &id, &bpfmanv1.ClTcxProgramInfoState{}
	other := p
	other.Name = "other"
	s.Status.Programs = []bpfmanv1.ClBpfApplicationProgramState{other, p}
	if kube.ProgramOf(nil) != nil || kube.ProgramOf(s) != nil {
		t.Error("got a program that bpfman has not loaded")
	}
	s.Status.AppLoadStatus = bpfmanv1.AppLoadSuccess
	if got := kube.ProgramOf(s); got == nil || got.Name != bpf.BlixtProgBlixt {
		t.Errorf("got program %v, want Blixt's", got)
	}
}

func TestNames(t *testing.T) {
	for want, object := range map[string]client.Object{
		"Node n1":         &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}},
		"Pod default/web": &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}},
	} {
		if got := kube.NameOf(object); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
