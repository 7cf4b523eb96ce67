// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// Problem is what is wrong with an object, in words that say how to fix it.
type Problem struct {
	// Object is its kind and name.
	Object  string `json:"object"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Event is to be emitted once.
type Event struct {
	// Kind and Name are those of the object that it is about, which is
	// cluster-scoped.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Type is Normal or Warning.
	Type    string `json:"type"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// reportStuck adds a problem if bpfman cannot delete an application.
func (p *planner) reportStuck(a *Application) {
	if meta.FindStatusCondition(a.stored.Status.Conditions, string(bpfmanv1.BpfAppCondDeleteError)) != nil {
		p.problem(a.Name, DeleteFailed, "bpfman cannot delete it. The logs of bpfman-agent say on which node and why; "+
			"it is always so when somebody has deleted a ClusterBpfApplicationState by hand. Restart that node, or unload the program there with the bpfman command, and then remove the finalizers of "+a.Name+" and of its states.")
	}
}

func (p *planner) delete(name, kind, reason, message string) {
	p.out.Delete = append(p.out.Delete, name)
	p.event(name, kind, reason, message)
}

func (p *planner) problem(application, reason, message string) {
	p.out.Problems = append(p.out.Problems, Problem{"ClusterBpfApplication " + application, reason, message})
}

func (p *planner) event(application, kind, reason, message string) {
	p.out.Events = append(p.out.Events, Event{"ClusterBpfApplication", application, kind, reason, message})
}
