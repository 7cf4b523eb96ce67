// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// An operator of a later version, with the bytecode that is there, gives the agents its own
// image, and no maps that the program may lack.
func TestLaterOperatorWithTheSameBytecode(t *testing.T) {
	o := start(t)
	o.serve()
	o.stop()
	const attribute = "csi.bpfman.io/maps"
	set := named[appsv1.DaemonSet](namespace, rollout.AgentsName(rollout.Name(firstCode)))
	get := func() map[string]string {
		t.Helper()
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(set), set))
		for _, v := range set.Spec.Template.Spec.Volumes {
			if v.CSI != nil {
				return v.CSI.VolumeAttributes
			}
		}
		t.Fatal("there is no volume of maps")
		return nil
	}
	all := get()[attribute]
	earlier, _, found := strings.Cut(all, ","+bpf.BlixtMapAnnouncing)
	if !found {
		t.Fatalf("the maps are %s", all)
	}
	get()[attribute] = earlier
	set.Spec.Template.Spec.Containers[0].Image = "registry.example.com/blixt@sha256:earlier"
	o.must(o.kube.Update(t.Context(), set))
	o.run()
	o.eventually("agents of the later version", func() error {
		if got := get()[attribute]; set.Spec.Template.Spec.Containers[0].Image != "registry.example.com/blixt@sha256:0" || got != earlier {
			return fmt.Errorf("image %s, maps %s, want %s", set.Spec.Template.Spec.Containers[0].Image, got, earlier)
		}
		return nil
	})
}
