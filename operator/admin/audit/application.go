// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"
	"strings"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// applications compares the ClusterBpfApplications, on which bpfman acts.
func (a *auditor) applications() {
	for i := range a.Applications {
		o := &a.Applications[i]
		object := "ClusterBpfApplication " + o.Name
		switch {
		case !v1alpha1.Managed(o) && o.Name == a.wanted:
			a.failed(AnotherSpec, object, "", "label app.kubernetes.io/managed-by is not %s: somebody has changed the label, or created the object instead of the operator", v1alpha1.Manager)
		case !v1alpha1.Managed(o):
			continue
		}
		for _, who := range foreign(o.ManagedFields) {
			a.failed(ForeignManager, object, "", "%s. The operator resets the fields that it sets itself; find out who this is: kubectl get clusterbpfapplication %s -o yaml --show-managed-fields", who, o.Name)
		}
		url := ""
		if o.Spec.ByteCode.Image != nil {
			url = o.Spec.ByteCode.Image.Url
		}
		if rollout.Name(url) != o.Name {
			a.failed(AnotherDigest, object, "", "spec.byteCode.image.url is %q, which is not the image that it was made for. bpfman still runs what it loaded before; delete the object, and the operator creates it again.", url)
		}
		if o.Name == a.wanted {
			a.compare(object, o)
		} else {
			a.previous(object, o)
		}
	}
}

// compare finds fields that are not as declared. It leaves out priorities, which change
// during an upgrade.
func (a *auditor) compare(object string, o *bpfmanv1.ClusterBpfApplication) {
	if !equality.Semantic.DeepEqual(o.Spec.NodeSelector, a.spec.Nodes) {
		a.failed(AnotherSpec, object, "", "spec.nodeSelector is not spec.dataplane.nodes of the BlixtConfig")
	}
	if len(o.Spec.GlobalData) > 0 {
		a.failed(AnotherSpec, object, "", "spec.globalData is set, which changes what the program does")
	}
	desired := rollout.Desired{Applications: []rollout.Application{{Name: o.Name}}}
	apply, _ := rollout.Objects(a.spec, rollout.Release{}, desired)
	want := apply[0].(*bpfmanv1.ClusterBpfApplication).Spec.Programs
	if !equality.Semantic.DeepEqual(withoutPriority(want), withoutPriority(o.Spec.Programs)) {
		a.failed(AnotherSpec, object, "", "spec.programs is not Blixt's program at the interfaces of the BlixtConfig")
	}
}

// withoutPriority returns a copy of programs, without the priorities of their links.
func withoutPriority(programs []bpfmanv1.ClBpfApplicationProgram) []bpfmanv1.ClBpfApplicationProgram {
	all := make([]bpfmanv1.ClBpfApplicationProgram, len(programs))
	for i := range programs {
		all[i] = *programs[i].DeepCopy()
		if all[i].TCX != nil {
			for j := range all[i].TCX.Links {
				all[i].TCX.Links[j].Priority = nil
			}
		}
	}
	return all
}

// previous examines an application whose image is not the declared one: during an
// upgrade it drains.
func (a *auditor) previous(object string, o *bpfmanv1.ClusterBpfApplication) {
	serves := []string{}
	for i := range a.States {
		s := &a.States[i]
		if kube.ApplicationOf(s) != o.Name || kube.ProgramOf(s) == nil {
			continue
		}
		if known := a.stored(kube.NodeOf(s), o.Name); known == nil || !known.Draining {
			serves = append(serves, kube.NodeOf(s))
		}
	}
	slices.Sort(serves)
	switch {
	case a.wanted == "":
		a.failed(OldGeneration, object, "", "it exists, but nothing declares it: there is no GatewayClass of Blixt. blixt uninstall unloads it.")
	case len(serves) > 0:
		a.failed(OldGeneration, object, "", "it takes new connections on %s, as far as is known, while %s is declared: the upgrade is not complete. kubectl describe nodedataplanes says why.", strings.Join(serves, ", "), a.wanted)
	case a.application(a.wanted) == nil:
		a.failed(OldGeneration, object, "", "it exists, but %s, which is declared, does not", a.wanted)
	default:
		a.warn(OldGeneration, object, "", "another application is declared: this one serves its remaining connections until they end or the BlixtConfig's drainTimeout is over")
	}
}

// foreign lists who, besides the operator, has written an application's spec, or
// metadata that the operator keeps on it.
func foreign(fields []metav1.ManagedFieldsEntry) (who []string) {
	for _, f := range fields {
		if f.Manager == v1alpha1.Manager || f.Subresource != "" || f.FieldsV1 == nil {
			continue
		}
		raw := f.FieldsV1.GetRawString()
		// bpfman's operator sets finalizers, and kubectl may set annotations of its own.
		touches := slices.ContainsFunc([]string{`"f:spec"`, `"f:app.kubernetes.io/managed-by"`, `"f:blixt.x-k8s.io/`, `"f:ownerReferences"`}, func(field string) bool {
			return strings.Contains(raw, field)
		})
		if touches {
			when := ""
			if f.Time != nil {
				when = " at " + f.Time.UTC().Format("2006-01-02 15:04:05")
			}
			who = append(who, "field manager "+f.Manager+" has written it by "+string(f.Operation)+when)
		}
	}
	return who
}
