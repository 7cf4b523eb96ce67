// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"slices"
	"testing"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// A tunnel that a node tells of has the program as long as it does.
func TestTunnelOfNode(t *testing.T) {
	o := start(t)
	o.serve()
	attachesTo := func(want ...string) {
		t.Helper()
		application := named[bpfmanv1.ClusterBpfApplication]("", rollout.Name(firstCode))
		o.eventually("links", func() error {
			if err := o.kube.Get(o.Context(), client.ObjectKeyFromObject(application), application); err != nil {
				return err
			}
			got := []string{}
			for _, l := range application.Spec.Programs[0].TCX.Links {
				got = append(got, l.InterfaceSelector.Interfaces...)
			}
			if diff := cmp.Diff(slices.Repeat(want, 2), got); diff != "" {
				return fmt.Errorf("interfaces that are named, for each direction (-want +got):\n%s", diff)
			}
			return nil
		})
	}
	annotate := func(backend string) {
		t.Helper()
		patch := fmt.Sprintf(`{"metadata": {"annotations": {"flannel.alpha.coreos.com/backend-type": %q, "flannel.alpha.coreos.com/backend-data": "{\"VNI\":7}"}}}`, backend)
		o.must(o.kube.Patch(o.Context(), named[corev1.Node]("", "n1"), client.RawPatch(types.MergePatchType, []byte(patch))))
	}
	attachesTo()
	annotate("vxlan")
	attachesTo("flannel.7")
	annotate("host-gw")
	attachesTo()
}
