// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// settleTime is how long an application drains at least (lb.Draining). It is longer
// than on a host alone (writer.Linger, 5 s): it begins with the decision, which
// agents carry out later, and their counts of flows are up to 15 s old.
const settleTime = 30 * time.Second

// shouldDrain decides whether a previous application drains on a node. The
// first line that applies decides:
//
//	current application there                       previous application
//	node is not selected                            drains
//	Serving without a fault, behind the previous    drains
//	Serving otherwise, Draining, Unknown            goes on as it is
//	Absent, Loading, Unwritten, Dead                serves
//
// Where it does not drain on a ready node, and the fault of the current
// application is permanent, the upgrade is blocked.
func (p *planner) shouldDrain(current *Application, there, previous *instance) bool {
	switch {
	case !p.selected(there.at.node):
		return true
	case there.phase == serving && there.fault == nil && !current.needsReorder():
		return true
	case there.phase.mayForward():
		return previous.drains
	}
	return false
}

// mustKeepDraining decides whether the current application, on a node where it
// drains because it was to be replaced, goes on drain. The first line that
// applies decides:
//
//	node is not selected                                     no
//	it is behind the previous applications                   no
//	a previous one there is Serving, Draining or Unknown     yes: it would lose its flows to the current one
//	each is Absent, Loading, Unwritten or Dead               no
func (p *planner) mustKeepDraining(current *Application, there *instance, previous []Application) bool {
	behind := !current.needsReorder() && linkFault(there.at, current.links(), p.program(there.at)) == nil
	return there.drains && p.selected(there.at.node) && !behind && slices.ContainsFunc(previous, func(a Application) bool {
		return p.instances[instanceKey{a.Name, there.at.node}].phase.mayForward()
	})
}

// resume tells the agents of the current application where to accept new
// connections, and where to go on drain.
func (p *planner) resume(current *Application, previous []Application) {
	for _, i := range p.on(current.Name) {
		if i.runs {
			p.setDrain(current, i, p.mustKeepDraining(current, i, previous))
		}
	}
}

// retire tells the agents of the previous applications where to drain. It
// deletes those that are no longer needed and returns the others. The first
// line that applies decides:
//
//	it can have flows on no node                           delete
//	some ready node does not drain, or none is ready       keep
//	the current application is Unknown where it drains     keep: bpfman may be wrong
//	no flows on any node, and settleTime is over           delete
//	the operator has just started                          keep: agents have not reported yet
//	drainTimeout is over                                   delete, with a warning
//	otherwise                                              keep
//
// All but the first are decided for all previous applications together.
func (p *planner) retire(current *Application, previous []Application) []Application {
	var needed []Application
	all := drainState{everywhere: true, ended: true}
	for _, a := range previous {
		if p.mayHoldFlows(&a) {
			p.drain(current, &a, &all)
			needed = append(needed, a)
		} else {
			p.delete(a.Name, corev1.EventTypeNormal, Unloading, "It has connections on no node, and was replaced by "+current.Name+".")
		}
	}
	if len(needed) == 0 || !all.everywhere {
		return needed
	}
	since, known := current.since(needed)
	if !known {
		since = p.now.UTC().Truncate(time.Second)
	}
	p.out.DrainingSince = since
	drain := lb.DrainingSince(since, p.spec.DrainTimeout.Duration)
	if !known {
		p.event(needed[0].Name, corev1.EventTypeNormal, Draining, fmt.Sprintf("%s takes the new connections on every node. It keeps those that it has, until %s at the latest.", current.Name, drain.Until.Format(time.RFC3339)))
	}
	kind, message := corev1.EventTypeNormal, "Its last connection has ended. "+current.Name+" serves."
	switch {
	case all.unknown:
		return needed
	case all.ended && drain.Settled(p.now, settleTime):
	case p.starting():
		return needed
	case drain.Expired(p.now):
		kind, message = corev1.EventTypeWarning, fmt.Sprintf("drainTimeout of %s is over: what was left of its connections (%d at the last count) is cut.", p.spec.DrainTimeout.Duration, all.flows)
	default:
		return needed
	}
	for _, a := range needed {
		p.delete(a.Name, kind, Unloading, message)
	}
	return nil
}

// drainState is how far the previous applications have drained, over the nodes
// where they may hold flows.
type drainState struct {
	everywhere bool // on each ready node, of which there is one
	ended      bool // on all nodes, as their agents report
	unknown    bool // the current application is Unknown on a node that drains
	flows      uint64
}

// drain tells the agents of a previous application where to drain, and adds
// their state to d.
func (p *planner) drain(current, previous *Application, d *drainState) {
	ready := 0
	for _, i := range p.on(previous.Name) {
		if !i.mayHoldFlows {
			continue
		}
		node := i.at.node
		there := p.instances[instanceKey{current.Name, node}]
		drains := p.shouldDrain(current, there, i)
		p.setDrain(previous, i, drains)
		if p.ready(node) {
			ready++
			d.everywhere = d.everywhere && drains
			d.unknown = d.unknown || drains && p.selected(node) && there.phase == unknown
			if !drains && p.isPermanent(there) {
				p.problem(current.Name, UpgradeBlocked, fmt.Sprintf("Node %s goes on with %s. %s", node, previous.Name, there.fault.message))
			}
		}
		report := p.reports[i.at]
		d.ended = d.ended && p.ready(node) && report != nil && report.Connected && report.Draining && report.Flows == 0
		if report != nil {
			d.flows += report.Flows
		}
	}
	d.everywhere = d.everywhere && ready > 0
}
