// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"slices"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// instanceKey is an application on a node.
type instanceKey struct{ application, node string }

// observed is a Cluster at a time, indexed, and what follows from it for each
// application on each node.
type observed struct {
	now      time.Time
	c        *Cluster
	selector labels.Selector
	nodes    map[string]*corev1.Node
	names    []string             // of nodes, sorted
	created  map[string]time.Time // by application
	states   map[instanceKey]*bpfmanv1.ClusterBpfApplicationState
	pods     map[instanceKey]*corev1.Pod
	reports  map[instanceKey]*lb.Report
	before   map[string]*v1alpha1.NodeDataplaneStatus // as stored, by node

	// live are the applications of Blixt, in the order in which they receive
	// packets; leaving are those that are being deleted.
	live, leaving []Application
	// instances has each of them, and the application that is asked for, on each
	// node.
	instances map[instanceKey]*instance
}

func observe(now time.Time, spec v1alpha1.Dataplane, c *Cluster) *observed {
	s := &observed{
		now: now, c: c, selector: Selector(spec), nodes: map[string]*corev1.Node{}, created: map[string]time.Time{}, states: map[instanceKey]*bpfmanv1.ClusterBpfApplicationState{},
		pods: map[instanceKey]*corev1.Pod{}, reports: map[instanceKey]*lb.Report{}, before: map[string]*v1alpha1.NodeDataplaneStatus{}, instances: map[instanceKey]*instance{},
	}
	for i := range c.Nodes {
		s.nodes[c.Nodes[i].Name] = &c.Nodes[i]
		s.names = append(s.names, c.Nodes[i].Name)
	}
	slices.Sort(s.names)
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
	s.live, s.leaving = applications(c.Applications)
	wanted := Application{Name: Name(spec.Bytecode.Image)} // overridden below, if it is there
	for _, a := range slices.Concat([]Application{wanted}, s.live, s.leaving) {
		for _, node := range s.names {
			s.instances[instanceKey{a.Name, node}] = s.instance(&a, node)
		}
	}
	return s
}

// on returns the instances of an application, sorted by node.
func (s *observed) on(application string) []*instance {
	var all []*instance
	for _, node := range s.names {
		all = append(all, s.instances[instanceKey{application, node}])
	}
	return all
}

// mayHoldFlows reports whether an application may have flows on any node.
func (s *observed) mayHoldFlows(a *Application) bool {
	return slices.ContainsFunc(s.on(a.Name), func(i *instance) bool { return i.mayHoldFlows })
}

// newer reports whether pod a is preferred to b: one that is being deleted comes
// last, and the younger comes first.
func newer(a, b *corev1.Pod) bool {
	if (a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) {
		return a.DeletionTimestamp == nil
	}
	return a.CreationTimestamp.After(b.CreationTimestamp.Time)
}

// selected reports whether a node exists and is to take part.
func (s *observed) selected(node string) bool {
	n := s.nodes[node]
	return n != nil && s.selector.Matches(labels.Set(n.Labels))
}

// ready reports whether Kubernetes says that a node can run pods.
func (s *observed) ready(node string) bool { return kube.Ready(s.nodes[node]) }

// age returns how long ago an application was created, 0 if it is yet to be.
func (s *observed) age(application string) time.Duration {
	if t := s.created[application]; !t.IsZero() {
		return s.now.Sub(t)
	}
	return 0
}

// program returns the program that bpfman has loaded for an instance; nil: none.
func (s *observed) program(at instanceKey) *bpfmanv1.ClBpfApplicationProgramState {
	return kube.ProgramOf(s.states[at])
}

// stored returns what was last written about an instance; nil: nothing.
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

// layout returns that of an application's maps, as most of its agents report or
// have reported; 0: none has opened them yet. One agent may say anything.
func (s *observed) layout(application string) int {
	agents, most := map[int]int{}, 0
	for _, node := range s.names {
		at, layout := instanceKey{application, node}, 0
		if report := s.reports[at]; report != nil && report.Layout != 0 {
			layout = report.Layout
		} else if stored := s.stored(at); stored != nil {
			layout = int(stored.Layout)
		}
		if layout == 0 {
			continue
		}
		agents[layout]++
		if most == 0 || agents[layout] > agents[most] || agents[layout] == agents[most] && layout == bpf.Layout {
			most = layout
		}
	}
	return most
}

// starting reports whether agents may not have found this operator yet.
func (s *observed) starting() bool { return s.now.Before(s.c.Started.Add(contactGrace)) }
