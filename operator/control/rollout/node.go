// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// NodeStatus is the status of a node, and what is to be done about it.
type NodeStatus struct {
	Node string `json:"node"`
	// Status is that of the node's NodeDataplane. It equals the stored one if
	// there is nothing worth writing.
	Status v1alpha1.NodeDataplaneStatus `json:"status"`
	// Counted reports whether Gateways wait for the node: it is selected, and
	// Kubernetes calls it ready.
	Counted bool `json:"counted,omitempty"`
	// Restart names the agents' pods to delete: they have maps that no program
	// reads.
	Restart []string `json:"restart,omitempty"`
	// Events report what has changed.
	Events []Event `json:"events,omitempty"`
}

// Judge returns the status of each node that is selected or still runs a program
// of Blixt, sorted by node. NodeDataplanes of other nodes are to be deleted.
// rollout must be what Plan returned for the same cluster.
func Judge(now time.Time, spec v1alpha1.Dataplane, rollout Desired, c Cluster) []NodeStatus {
	s := observe(now, spec, &c)
	var all []NodeStatus
	for _, node := range s.names {
		j := judge{observed: s, node: node, wanted: Name(spec.Bytecode.Image), rollout: &rollout}
		for i := range rollout.Applications {
			a := &rollout.Applications[i]
			there := *s.instances[instanceKey{a.Name, node}]
			if there.runs || i == 0 && s.selected(node) {
				if drain, told := a.Drain[node]; told {
					there.drains = drain
				}
				j.instances = append(j.instances, planned{a, there})
			}
		}
		if s.selected(node) || len(j.instances) > 0 {
			all = append(all, j.nodeStatus())
		}
	}
	return all
}

// judge derives the status of one node.
type judge struct {
	*observed
	node      string
	wanted    string // application
	rollout   *Desired
	instances []planned // the one that accepts new connections first
}

// planned is an instance that drains as its agent is told, or else as it last
// reported.
type planned struct {
	*Application
	instance
}

// unstarted reports whether a pod's containers are yet to start, as after a
// power cut: its volumes are then mounted anew. If it was deleted before, bpfman's
// CSI driver would try for ever to unmount what is not mounted.
func unstarted(pod *corev1.Pod) bool {
	all := pod.Status.ContainerStatuses
	return len(all) > 0 && !slices.ContainsFunc(all, func(s corev1.ContainerStatus) bool {
		return s.State.Running != nil || s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff"
	})
}

// nodeStatus returns the status of the node, with a condition's time of
// transition and an event where its reason has changed.
func (j *judge) nodeStatus() NodeStatus {
	v := NodeStatus{Node: j.node, Counted: j.selected(j.node) && j.ready(j.node)}
	before := j.before[j.node]
	v.Status = v1alpha1.NodeDataplaneStatus{Kernel: j.nodes[j.node].Status.NodeInfo.KernelVersion}
	if before != nil {
		v.Status.Conditions = slices.Clone(before.Conditions)
		v.Status.LastContact, v.Status.Boot = before.LastContact, before.Boot
	}
	// The one that accepts new connections comes first. Where that is unknown,
	// the stored order stays.
	slices.SortStableFunc(j.instances, func(a, b planned) int {
		return cmp.Or(rank(a)-rank(b), j.order(a.at)-j.order(b.at))
	})
	for _, i := range j.instances {
		v.Status.Applications = append(v.Status.Applications, j.status(i))
		if report := j.reports[i.at]; report != nil {
			v.Status.LastContact = later(v.Status.LastContact, report.LastContact)
			if report.Boot.Number != 0 {
				v.Status.Boot = bootStatus(report.Boot)
			}
		}
		stale, _, _ := j.reloaded(i.at)
		if pod := j.pods[i.at]; pod != nil && pod.Name == stale && pod.DeletionTimestamp == nil && !unstarted(pod) {
			v.Restart = append(v.Restart, stale)
		}
	}
	if before != nil {
		v.Status.ClientAddress = j.clientAddress(before.ClientAddress)
	} else {
		v.Status.ClientAddress = j.clientAddress(nil)
	}
	for _, c := range []metav1.Condition{j.serves(), j.drifted()} {
		c.LastTransitionTime = metav1.NewTime(j.now.UTC().Truncate(time.Second))
		if c.Reason == "" { // the stored one stands
			continue
		}
		old := meta.FindStatusCondition(v.Status.Conditions, c.Type)
		reported := slices.ContainsFunc(v.Events, func(e Event) bool { return e.Reason == c.Reason })
		if (old == nil || old.Status != c.Status || old.Reason != c.Reason) && !reported {
			v.Events = append(v.Events, j.event(c, old)...)
		}
		meta.SetStatusCondition(&v.Status.Conditions, c)
	}
	if before != nil {
		v.Status = keepStored(j.now, before, v.Status)
	}
	return v
}

// order returns the place of an application among the stored ones of its node.
func (j *judge) order(at instanceKey) int {
	before := j.before[at.node]
	if before == nil {
		return 0
	}
	i := slices.IndexFunc(before.Applications, func(a v1alpha1.ApplicationStatus) bool { return a.Name == at.application })
	if i < 0 {
		return len(before.Applications)
	}
	return i
}

// rank orders instances by how likely they are to accept new connections: 0
// surely does.
func rank(i planned) int {
	switch {
	case i.drains:
		return 3
	case i.fault == nil:
		return 0
	case i.fault.phase == serving:
		return 1
	}
	return 2
}

// current returns the instance of the current application; nil: there is none.
func (j *judge) current() *planned {
	for i := range j.instances {
		if j.instances[i].Name == j.rollout.Applications[0].Name {
			return &j.instances[i]
		}
	}
	return nil
}

// serves returns the condition Ready, without a reason if nothing is known yet
// and the stored one stands.
func (j *judge) serves() metav1.Condition {
	condition := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.NodeReady, Status: status, Reason: reason, Message: message}
	}
	if !j.selected(j.node) {
		return condition(metav1.ConditionFalse, NotSelected, "The node is not selected any more: its program is unloaded. During an upgrade that waits until its connections have ended.")
	}
	current := j.current()
	switch {
	case current == nil:
		message := "There is no ClusterBpfApplication."
		for _, p := range j.rollout.Problems {
			message += " " + p.Object + ": " + p.Message
		}
		return condition(metav1.ConditionFalse, NotLoaded, message)
	case current.fault == nil && !current.drains:
		return condition(metav1.ConditionTrue, Serving, "The node serves what it should.")
	case j.instances[0].fault == nil && !j.instances[0].drains:
		reason, message := ServingPrevious, current.Name+" is about to take over."
		if current.fault != nil {
			message = current.fault.message
		}
		if j.isPermanent(&current.instance) {
			reason = UpgradeBlocked
		}
		return condition(metav1.ConditionTrue, reason, fmt.Sprintf("The node serves with %s. %s", j.instances[0].Name, message))
	case j.instances[0].Name != current.Name && rank(j.instances[0]) == 1: // it serves, if perhaps not all
		f := j.instances[0].fault
		if f.keep && j.known(v1alpha1.NodeReady) {
			return metav1.Condition{Type: v1alpha1.NodeReady}
		}
		return condition(f.status, f.reason, fmt.Sprintf("The node serves with %s. %s", j.instances[0].Name, f.message))
	case current.fault == nil: // it drains, and no previous one serves
		return condition(metav1.ConditionFalse, Outdated, current.Name+" is about to take new connections again.")
	case current.fault.keep && j.known(v1alpha1.NodeReady):
		return metav1.Condition{Type: v1alpha1.NodeReady}
	}
	return condition(current.fault.status, current.fault.reason, current.fault.message)
}

// drifted returns the condition Drifted: the first reason that applies, and the
// messages of all. It has no reason if nothing is known yet and the stored one
// stands.
func (j *judge) drifted() metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.NodeDrifted, Status: metav1.ConditionFalse, Reason: AsAsked, Message: "The node runs what was asked for."}
	add := func(status metav1.ConditionStatus, reason, format string, args ...any) {
		message := fmt.Sprintf(format, args...)
		if c.Reason == AsAsked {
			c.Status, c.Reason, c.Message = status, reason, message
		} else {
			c.Message += " " + message
		}
	}
	for _, i := range j.instances {
		if report := j.reports[i.at]; report != nil && report.Drift != "" {
			add(metav1.ConditionTrue, ForeignWriter, "Somebody else has written the maps of %s: %s. The agent of Blixt has written them again.", i.Name, strings.TrimSuffix(report.Drift, "."))
		}
	}
	if len(j.instances) > 0 && rank(j.instances[0]) == 0 && j.instances[0].Name != j.wanted {
		add(metav1.ConditionTrue, OtherBytecode, "%s serves the new connections, %s is asked for.", j.instances[0].Name, j.wanted)
	}
	current := j.current()
	switch {
	case current == nil && !j.selected(j.node):
	case current == nil:
		add(metav1.ConditionUnknown, NotLoaded, "There is nothing to compare with.")
	case current.fault == nil:
	case current.fault.keep && j.known(v1alpha1.NodeDrifted):
		return metav1.Condition{Type: v1alpha1.NodeDrifted}
	case current.fault.status == metav1.ConditionUnknown:
		add(metav1.ConditionUnknown, current.fault.reason, "What the kernel holds is unknown while the agent is not connected.")
	case slices.Contains([]string{LinksMissing, NotAttached}, current.fault.reason):
		add(metav1.ConditionTrue, current.fault.reason, "%s is not attached everywhere it should be.", current.Name)
	case slices.Contains([]string{NotLoaded, LoadFailed, StateStuck, ProgramGone}, current.fault.reason):
		add(metav1.ConditionTrue, current.fault.reason, "%s is not in the kernel, as far as can be seen.", current.Name)
	}
	if current != nil && j.c.NarrowLinkIDs && j.program(current.at) != nil {
		add(metav1.ConditionUnknown, Orphans, "The CRD clusterbpfapplicationstates.bpfman.io has linkId as int32: before bpfman could say that the program is loaded, it has probably loaded it more than once, and the copies stay attached for ever. "+
			"Change the format to int64, as Blixt's chart does, and restart the node to be rid of the copies.")
	}
	return c
}

// known reports whether the node has a stored condition of a type.
func (j *judge) known(condition string) bool {
	before := j.before[j.node]
	return before != nil && meta.FindStatusCondition(before.Conditions, condition) != nil
}

// event returns the event for a changed condition, if there is one. What passes
// by itself is no warning, as long as nothing was lost.
func (j *judge) event(c metav1.Condition, old *metav1.Condition) []Event {
	kind := corev1.EventTypeWarning
	switch c.Reason {
	case AsAsked:
		if old == nil {
			return nil
		}
		kind = corev1.EventTypeNormal
	case Serving, ServingPrevious, OtherBytecode, NotSelected:
		kind = corev1.EventTypeNormal
	case NotLoaded, NoAgent, Outdated:
		if old == nil {
			kind = corev1.EventTypeNormal
		}
	}
	return []Event{{"NodeDataplane", j.node, kind, c.Reason, c.Message}}
}
