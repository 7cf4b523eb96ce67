// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
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
//	it can have flows on no node        delete
//	some node needs it, or none is ready    keep
//	otherwise                           delete
//
// All but the first are decided for all previous applications together.
func (p *planner) retire(current *Application, previous []Application) []Application {
	var needed []Application
	all := drainState{}
	for _, a := range previous {
		if p.mayHoldFlows(&a) {
			needed = append(needed, a)
		} else {
			p.delete(a.Name, corev1.EventTypeNormal, Unloading, "It has connections on no node, and was replaced by "+current.Name+".")
		}
	}
	began, known := current.began(needed)
	known = known && !began.After(p.now) // else a clock was wrong
	if !known {
		began = p.now.UTC().Truncate(time.Second)
	}
	for i := range needed {
		p.drain(current, &needed[i], began, &all)
	}
	if all.draining == 0 {
		return needed
	}
	p.out.DrainingSince = began
	timeout := p.spec.DrainTimeout.Duration
	if !known {
		p.event(needed[0].Name, corev1.EventTypeNormal, Draining, fmt.Sprintf("%s takes over the new connections, node by node. It keeps those that it has, for %s at most.", current.Name, timeout))
	}
	stuck := len(all.stuck)
	if stuck > 0 && !p.mayGiveUp(stuck) {
		p.problem(current.Name, UpgradeBlocked, fmt.Sprintf("Since %s, %d nodes have not changed over to it: too many to go on without them: %s. Mend what their NodeDataplanes say, take them out of spec.dataplane.nodes of the BlixtConfig, or name the previous bytecode again.",
			began.Format(time.RFC3339), stuck, phrase.Sample(all.stuck)))
		return needed
	}
	if all.needed {
		return needed
	}
	kind, message := corev1.EventTypeNormal, "Its last connection has ended. "+current.Name+" serves."
	if all.cut {
		kind, message = corev1.EventTypeWarning, fmt.Sprintf("drainTimeout of %s is over: what was left of its connections (%d at the last count) is cut.", timeout, all.flows)
	}
	if stuck > 0 {
		message += fmt.Sprintf(" Nodes that did not change over to %s in that time serve nothing until they do: %s.", current.Name, phrase.Sample(all.stuck))
	}
	for _, a := range needed {
		p.delete(a.Name, kind, Unloading, message)
	}
	return nil
}

// mayGiveUp reports whether the upgrade may end although this many nodes have not
// changed over: one, or a tenth of those that are selected and ready, and always
// fewer than half of them. What fails on more is the upgrade's own fault.
func (p *planner) mayGiveUp(stuck int) bool {
	total := 0
	for _, node := range p.names {
		if p.selected(node) && p.ready(node) {
			total++
		}
	}
	return stuck <= max(1, total/10) && 2*stuck < total
}

// drainState is how far the previous applications have drained, over the nodes
// where they may hold flows.
type drainState struct {
	draining int      // ready nodes that drain
	needed   bool     // some node still needs one
	cut      bool     // some node had connections left, or may have had
	stuck    []string // the ready nodes that could not change over in time
	flows    uint64
}

// hasCounted reports whether an agent that is connected has counted the flows of its
// program. One of layout 1 that has just started says that there are none.
func (p *planner) hasCounted(r *lb.Report) bool {
	return r.Connected && !p.now.Before(r.ConnectedAt.Add(settleTime))
}

// drain tells the agents of a previous application where to drain, and adds
// their state to d. The first line that applies decides what a node does:
//
//	it drains, its flows have ended, settleTime is over    needs it no more, if its agent has counted them
//	the operator has just started                          needs it: agents have not reported yet
//	it drains, and its deadline is not over                needs it
//	it does not drain yet, and the upgrade's is not over   needs it
//	not ready                                              needs it no more
//	does not drain, or the current one is Unknown there    is stuck
//	otherwise                                              needs it no more: what is left is cut
//
// A node that drains has drainTimeout. The upgrade's deadline is drainTimeout
// after the first node began. A node that drains for the first time after that, or
// again, has no more time than one that began to drain at that deadline.
func (p *planner) drain(current, previous *Application, began time.Time, d *drainState) {
	timeout := p.spec.DrainTimeout.Duration
	upgrade := lb.DrainingSince(began, timeout)
	for _, i := range p.on(previous.Name) {
		if !i.mayHoldFlows {
			continue
		}
		node := i.at.node
		ready, there := p.ready(node), p.instances[instanceKey{current.Name, node}]
		drains := p.shouldDrain(current, there, i)
		p.setDrain(previous, i, drains)
		own := upgrade
		if drains {
			since := p.drainingSince(i.at)
			own = lb.Draining{Since: since, Until: earlier(since, upgrade.Until).Add(timeout)}
		}
		report := p.reports[i.at]
		if report != nil {
			d.flows += report.Flows
		}
		if ready && drains {
			d.draining++
		}
		switch unknown := drains && p.selected(node) && there.phase == unknown; {
		case drains && ready && !unknown && report != nil && p.hasCounted(report) && report.Draining && report.Flows == 0 && own.Settled(p.now, settleTime):
		case p.starting() || !own.Expired(p.now):
			d.needed = true
			if ready && !drains && p.isPermanent(there) {
				p.problem(current.Name, UpgradeBlocked, fmt.Sprintf("Node %s goes on with %s. %s", node, previous.Name, there.fault.message))
			}
		case ready && (!drains || unknown):
			d.stuck, d.cut = append(d.stuck, node), true
		default:
			d.cut = true
		}
	}
}

// drainingSince returns since when an instance drains: if that is not stored, or a
// clock was wrong, since now.
func (s *observed) drainingSince(at instanceKey) time.Time {
	if stored := s.stored(at); stored != nil && stored.DrainingSince != nil && !stored.DrainingSince.After(s.now) {
		return stored.DrainingSince.Time
	}
	return s.now.UTC().Truncate(time.Second)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
