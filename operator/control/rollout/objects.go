// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// applicationLabel of an agent's pod names its ClusterBpfApplication.
const applicationLabel = "blixt.x-k8s.io/application"

// Objects returns the objects to apply, complete, and those to delete. Previous
// applications are among neither: they stay as they were made, with the agents
// that know their layout.
func Objects(spec v1alpha1.Dataplane, r Release, rollout Desired) (apply, remove []client.Object) {
	if len(rollout.Applications) > 0 {
		current := &rollout.Applications[0]
		apply = append(apply, application(spec, r, current, &rollout))
		if current.Agents {
			apply = append(apply, agents(spec, r, current.Name))
		}
	}
	for _, name := range rollout.Delete {
		a, d := typedApplication(name), typedAgents(r, name)
		remove = append(remove, a, d)
	}
	return apply, remove
}

func typedApplication(name string) *bpfmanv1.ClusterBpfApplication {
	return &bpfmanv1.ClusterBpfApplication{
		TypeMeta:   metav1.TypeMeta{APIVersion: bpfmanv1.SchemeGroupVersion.String(), Kind: "ClusterBpfApplication"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
	}
}

func typedAgents(r Release, application string) *appsv1.DaemonSet {
	return &appsv1.DaemonSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "DaemonSet"},
		ObjectMeta: metav1.ObjectMeta{Name: AgentsName(application), Namespace: r.Namespace},
	}
}

func application(spec v1alpha1.Dataplane, r Release, a *Application, rollout *Desired) *bpfmanv1.ClusterBpfApplication {
	object := typedApplication(a.Name)
	object.Labels = labelsOf("dataplane", a.Name)
	object.Annotations = a.annotations(rollout.DrainingSince, rollout.Applications[1:])
	object.OwnerReferences = r.Owners
	image := a.Bytecode
	object.Spec.NodeSelector = spec.Nodes
	object.Spec.ByteCode.Image = &image
	object.Spec.Programs = []bpfmanv1.ClBpfApplicationProgram{{
		Name: bpf.BlixtProgBlixt, Type: bpfmanv1.ProgTypeTCX,
		TCX: &bpfmanv1.ClTcxProgramInfo{Links: links(spec, a.Priority)},
	}}
	return object
}

// links returns the attachments to ask for: ingress and egress of the same
// interfaces.
func links(spec v1alpha1.Dataplane, priority int32) []bpfmanv1.ClTcxAttachInfo {
	var selectors []bpfmanv1.InterfaceSelector // bpfman accepts one way of selecting in each
	if spec.Interfaces.Primary != nil {
		selectors = append(selectors, bpfmanv1.InterfaceSelector{PrimaryNodeInterface: spec.Interfaces.Primary})
	}
	if spec.Interfaces.Names != nil {
		selectors = append(selectors, bpfmanv1.InterfaceSelector{Interfaces: spec.Interfaces.Names})
	}
	if d := spec.Interfaces.Discover; d != nil {
		selectors = append(selectors, bpfmanv1.InterfaceSelector{InterfacesDiscoveryConfig: &bpfmanv1.InterfaceDiscovery{
			InterfaceAutoDiscovery: new(true), AllowedInterfaces: d.Allow, ExcludeInterfaces: d.Exclude,
		}})
	}
	var all []bpfmanv1.ClTcxAttachInfo
	for _, selector := range selectors {
		for _, direction := range []bpfmanv1.TCDirectionType{bpfmanv1.TCIngress, bpfmanv1.TCEgress} {
			all = append(all, bpfmanv1.ClTcxAttachInfo{
				InterfaceSelector: selector, Direction: direction, Priority: &priority,
			})
		}
	}
	return all
}

func labelsOf(component, application string) map[string]string {
	return map[string]string{
		"app.kubernetes.io/name": "blixt", "app.kubernetes.io/component": component,
		v1alpha1.ManagedByLabel: v1alpha1.Manager, applicationLabel: application,
	}
}
