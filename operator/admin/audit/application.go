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

// applications compares the objects that bpfman acts on.
func (a *auditor) applications() {
	for i := range a.Applications {
		o := &a.Applications[i]
		object := "ClusterBpfApplication " + o.Name
		switch {
		case !v1alpha1.Managed(o) && o.Name == a.wanted:
			a.failed(AnotherSpec, object, "", "label app.kubernetes.io/managed-by is not %s: somebody has changed it, or made the object in place of the operator", v1alpha1.Manager)
		case !v1alpha1.Managed(o):
			continue
		}
		for _, who := range foreign(o.ManagedFields) {
			a.failed(ForeignManager, object, "", "%s. The operator sets back what it sets itself; find out who this is: kubectl get clusterbpfapplication %s -o yaml --show-managed-fields", who, o.Name)
		}
		url := ""
		if o.Spec.ByteCode.Image != nil {
			url = o.Spec.ByteCode.Image.Url
		}
		if rollout.Name(url) != o.Name {
			a.failed(AnotherDigest, object, "", "spec.byteCode.image.url is %q, which is not the image that it was made for. bpfman runs what it has loaded before; delete the object, and the operator makes it anew.", url)
		}
		if o.Name == a.wanted {
			a.compare(object, o)
		} else {
			a.former(object, o)
		}
	}
}

// compare finds fields that are not what is declared. Where several priorities
// are possible, as during an upgrade, they have to be the same for all links.
func (a *auditor) compare(object string, o *bpfmanv1.ClusterBpfApplication) {
	if !equality.Semantic.DeepEqual(o.Spec.NodeSelector, a.spec.Nodes) {
		a.failed(AnotherSpec, object, "", "spec.nodeSelector is not what the BlixtConfig says in spec.dataplane.nodes")
	}
	if len(o.Spec.GlobalData) > 0 {
		a.failed(AnotherSpec, object, "", "spec.globalData is set, which changes what the program does")
	}
	desired := rollout.Desired{Applications: []rollout.Application{{Name: o.Name}}}
	apply, _ := rollout.Objects(a.spec, rollout.Release{}, desired)
	want := apply[0].(*bpfmanv1.ClusterBpfApplication).Spec.Programs
	if !equality.Semantic.DeepEqual(withoutPriority(want), withoutPriority(o.Spec.Programs)) {
		a.failed(AnotherSpec, object, "", "spec.programs is not the program of Blixt at the interfaces that the BlixtConfig says")
	}
}

// withoutPriority returns programs whose links do not say theirs.
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

// former is an application of another image than declared: during an upgrade
// it drains.
func (a *auditor) former(object string, o *bpfmanv1.ClusterBpfApplication) {
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
		a.failed(OldGeneration, object, "", "it is there, and nothing declares it: there is no GatewayClass of Blixt. blixt uninstall takes it off the nodes.")
	case len(serves) > 0:
		a.failed(OldGeneration, object, "", "it takes new connections on %s, as far as is known, while %s is declared: the upgrade is not through. kubectl describe nodedataplanes says why.", strings.Join(serves, ", "), a.wanted)
	case a.application(a.wanted) == nil:
		a.failed(OldGeneration, object, "", "it is there, but not %s, which is declared", a.wanted)
	default:
		a.warn(OldGeneration, object, "", "it serves the connections that it has, since another is declared, until they end or the BlixtConfig's drainTimeout is over")
	}
}

// foreign names who has set fields of an application's spec, or of what the
// operator notes about it, besides the operator.
func foreign(fields []metav1.ManagedFieldsEntry) (who []string) {
	for _, f := range fields {
		if f.Manager == v1alpha1.Manager || f.Subresource != "" || f.FieldsV1 == nil {
			continue
		}
		raw := f.FieldsV1.GetRawString()
		// bpfman's operator sets finalizers, and kubectl may set notes of its own.
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
