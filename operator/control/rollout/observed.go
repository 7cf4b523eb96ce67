// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// instanceKey is an application on a node.
type instanceKey struct{ application, node string }

// observed is a Cluster at a time, indexed.
type observed struct {
	now      time.Time
	c        *Cluster
	selector labels.Selector
	nodes    map[string]*corev1.Node
	created  map[string]time.Time // applications
	states   map[instanceKey]*bpfmanv1.ClusterBpfApplicationState
	pods     map[instanceKey]*corev1.Pod
	reports  map[instanceKey]*lb.Report
	before   map[string]*v1alpha1.NodeDataplaneStatus
}

func observe(now time.Time, spec v1alpha1.Dataplane, c *Cluster) *observed {
	s := &observed{
		now: now, c: c, selector: Selector(spec), nodes: map[string]*corev1.Node{}, created: map[string]time.Time{}, states: map[instanceKey]*bpfmanv1.ClusterBpfApplicationState{},
		pods: map[instanceKey]*corev1.Pod{}, reports: map[instanceKey]*lb.Report{}, before: map[string]*v1alpha1.NodeDataplaneStatus{},
	}
	for i := range c.Nodes {
		s.nodes[c.Nodes[i].Name] = &c.Nodes[i]
	}
	for i := range c.Applications {
		s.created[c.Applications[i].Name] = c.Applications[i].CreationTimestamp.Time
	}
	for i := range c.States {
		state := &c.States[i]
		s.states[instanceKey{state.Labels[v1alpha1.OwnedByLabel], state.Labels[corev1.LabelHostname]}] = state
	}
	for i := range c.Pods {
		pod := &c.Pods[i]
		at := instanceKey{pod.Labels[applicationLabel], pod.Spec.NodeName}
		if other := s.pods[at]; other == nil || newer(pod, other) {
			s.pods[at] = pod
		}
	}
	for i := range c.Reports {
		r := &c.Reports[i]
		at := instanceKey{r.Application, r.Node}
		if other := s.reports[at]; other == nil || r.LastContact.After(other.LastContact) {
			s.reports[at] = r
		}
	}
	for i := range c.Dataplanes {
		s.before[c.Dataplanes[i].Name] = &c.Dataplanes[i].Status
	}
	return s
}

// newer prefers the pod that stays.
func newer(a, b *corev1.Pod) bool {
	if (a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) {
		return a.DeletionTimestamp == nil
	}
	return a.CreationTimestamp.After(b.CreationTimestamp.Time)
}

// selected tells whether a node is there and is to take part.
func (s *observed) selected(node string) bool {
	n := s.nodes[node]
	return n != nil && s.selector.Matches(labels.Set(n.Labels))
}

// ready tells whether Kubernetes has a node do work.
func (s *observed) ready(node string) bool {
	if n := s.nodes[node]; n != nil {
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status == corev1.ConditionTrue
			}
		}
	}
	return false
}

// age is how long ago an application was created, 0 if it is yet to be.
func (s *observed) age(application string) time.Duration {
	if t := s.created[application]; !t.IsZero() {
		return s.now.Sub(t)
	}
	return 0
}

// program is what bpfman says of the program at a place; nil: nothing.
func (s *observed) program(at instanceKey) *bpfmanv1.ClBpfApplicationProgramState {
	state := s.states[at]
	if state == nil || state.Status.AppLoadStatus != bpfmanv1.AppLoadSuccess {
		return nil
	}
	for i := range state.Status.Programs {
		if p := &state.Status.Programs[i]; p.Name == bpf.BlixtProgBlixt && p.ProgramId != nil {
			return p
		}
	}
	return nil
}

// stored is what was last written about a place; nil: nothing.
func (s *observed) stored(at instanceKey) *v1alpha1.ApplicationStatus {
	if before := s.before[at.node]; before != nil {
		for i := range before.Applications {
			if before.Applications[i].Name == at.application {
				return &before.Applications[i]
			}
		}
	}
	return nil
}

// layout is that of an application's maps, as its agents say or have said; 0:
// none could open them yet.
func (s *observed) layout(application string) int {
	for node := range s.nodes {
		at := instanceKey{application, node}
		if report := s.reports[at]; report != nil && report.Layout != 0 {
			return report.Layout
		}
		if stored := s.stored(at); stored != nil && stored.Layout != 0 {
			return int(stored.Layout)
		}
	}
	return 0
}

// acked tells whether somebody has filled the maps of a program.
func (s *observed) acked(at instanceKey) bool {
	if report := s.reports[at]; report != nil {
		return report.Version != (lb.Version{}) || report.Error != "" // which may have kept it from reading them
	}
	stored := s.stored(at)
	return stored != nil && stored.AckedAt != nil
}

// starting tells whether agents may not have found this operator yet.
func (s *observed) starting() bool { return s.now.Before(s.c.Started.Add(contactGrace)) }

// runs tells whether a program is in the kernel, by anybody's word.
func (s *observed) runs(at instanceKey) bool {
	if s.nodes[at.node] == nil {
		return false
	}
	if report := s.reports[at]; report != nil {
		return report.Connected || s.now.Sub(report.LastContact) <= contactGrace || s.program(at) != nil
	}
	stored := s.stored(at)
	return s.program(at) != nil || s.starting() && stored != nil && stored.AckedAt != nil
}

// drains tells whether a program serves only the connections that it has, as
// far as anybody knows.
func (s *observed) drains(at instanceKey) bool {
	if report := s.reports[at]; report != nil {
		return report.Draining
	}
	stored := s.stored(at)
	return stored != nil && stored.Draining
}
