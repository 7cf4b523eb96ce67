// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// An operator of a later version, with the same bytecode, asks for no map that the program
// may lack: bpfman's CSI driver would mount none, and no agent would start.
func TestKeepMaps(t *testing.T) {
	all := bpf.MapNames()
	var old []string
	for _, name := range all {
		if !bpf.IsOptional(name) {
			old = append(old, name)
		}
	}
	if len(old) == len(all) {
		t.Fatal("no map is optional")
	}
	set := func(names ...string) *appsv1.DaemonSet {
		d := agents(Default(&v1alpha1.Dataplane{}, Release{}, nil), Release{}, "blue")
		if names != nil {
			mapsOf(d)[mapsAttribute] = strings.Join(names, ",")
		}
		return d
	}
	for name, c := range map[string]struct {
		stored client.Object
		want   []string
	}{
		"there is none":     {nil, all},
		"of this version":   {set(all...), all},
		"earlier":           {set(old...), old},
		"between":           {set(append(slices.Clone(old), bpf.BlixtMapInterest)...), append(slices.Clone(old), bpf.BlixtMapInterest)},
		"somebody's":        {set("frontends", "x"), old},
		"without the maps":  {&appsv1.DaemonSet{}, all},
		"something else":    {&corev1.Pod{}, all},
		"emptied by a user": {set(""), all},
	} {
		wanted := set()
		KeepMaps(wanted, c.stored)
		got := strings.Split(mapsOf(wanted)[mapsAttribute], ",")
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: the maps are %v, want %v", name, got, c.want)
		}
	}
	KeepMaps(&corev1.Pod{}, set(old...))
}
