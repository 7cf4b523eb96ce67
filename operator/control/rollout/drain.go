// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// settleTime is how long an application drains at least: for connections that
// have begun but are not in its table yet.
const settleTime = 30 * time.Second

// retire has the others drain, and returns those that are still needed.
func (p *planner) retire(current *Application, others []Application) []Application {
	var needed []Application
	all := drain{everywhere: true, ended: true}
	for _, o := range others {
		if places := p.filled(o); len(places) > 0 {
			p.drain(current, &o, places, &all)
			needed = append(needed, o)
		} else {
			p.delete(o.Name, corev1.EventTypeNormal, Unloading, "It has connections on no node, and was replaced by "+current.Name+".")
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
	deadline := since.Add(p.spec.DrainTimeout.Duration)
	if !known {
		p.event(needed[0].Name, corev1.EventTypeNormal, Draining, fmt.Sprintf("%s takes the new connections on every node. It keeps those that it has, until %s at the latest.", current.Name, deadline.Format(time.RFC3339)))
	}
	kind, message := corev1.EventTypeNormal, "Its last connection has ended. "+current.Name+" serves."
	switch {
	case all.doubted: // bpfman may yet say who is needed
		return needed
	case all.ended && !p.now.Before(since.Add(settleTime)):
	case p.starting(): // agents may yet say so
		return needed
	case !p.now.Before(deadline):
		kind, message = corev1.EventTypeWarning, fmt.Sprintf("drainTimeout of %s is over: what was left of its connections (%d at the last count) is cut.", p.spec.DrainTimeout.Duration, all.flows)
	default:
		return needed
	}
	for _, o := range needed {
		p.delete(o.Name, kind, Unloading, message)
	}
	return nil
}

// drain is how far the others have come.
type drain struct {
	everywhere bool // on each node that is ready
	ended      bool // on all nodes, for sure
	doubted    bool // bpfman says that the current one is not there
	flows      uint64
}

// drain tells the agents of an old application where it is to drain.
func (p *planner) drain(current, old *Application, places []string, d *drain) {
	ready := 0
	for _, node := range places {
		hands := p.shouldDrain(current, old, node)
		p.tell(old, node, hands)
		if p.ready(node) {
			f := p.fault(instanceKey{current.Name, node}, current.links())
			d.doubted = d.doubted || hands && p.selected(node) && f != nil && f.dead
			ready++
			d.everywhere = d.everywhere && hands
		}
		report := p.reports[instanceKey{old.Name, node}]
		d.ended = d.ended && p.ready(node) && report != nil && report.Connected && report.Draining && report.Flows == 0
		if report != nil {
			d.flows += report.Flows
		}
	}
	d.everywhere = d.everywhere && ready > 0
}

// shouldDrain tells whether the old application drains on a node.
func (p *planner) shouldDrain(current, old *Application, node string) bool {
	if !p.selected(node) {
		return true
	}
	at := instanceKey{current.Name, node}
	f := p.fault(at, current.links())
	switch {
	case f == nil && !current.needsReorder() && !p.drains(at):
		return true
	case f != nil && f.dead && p.drains(instanceKey{old.Name, node}) && p.mayHoldFlows(at, f):
		return true
	case f != nil && f.dead:
		if p.ready(node) && p.isPermanent(current.Name, f) {
			p.problem(current.Name, UpgradeBlocked, fmt.Sprintf("Node %s goes on with %s. %s", node, old.Name, f.message))
		}
		return false
	}
	return p.drains(instanceKey{old.Name, node}) // nothing new is known
}

// mayHoldFlows tells whether a program that looks dead has what another gave up for
// it: that one would take its connections for its own. bpfman alone is not
// believed, which says much while it is restarted. Where its program is really
// gone, the agent soon misses the packets, or is not heard of either.
func (p *planner) mayHoldFlows(at instanceKey, f *diagnosis) bool {
	if f.reason == ReloadedProgram {
		return false
	}
	if p.reports[at] == nil {
		return p.starting()
	}
	a := p.agentFault(at)
	return a == nil || !a.dead && a.reason != AgentLost
}

// takeOver has a current application that drains, as it was to be replaced,
// go on draining until it is behind the others: before, it would take their
// connections for its own.
func (p *planner) takeOver(current *Application, others []Application) {
	for _, node := range p.places(*current) {
		at := instanceKey{current.Name, node}
		behind := !current.needsReorder() && linkFault(at, current.links(), p.program(at)) == nil
		p.tell(current, node, p.drains(at) && !behind && p.selected(node) && slices.ContainsFunc(others, func(o Application) bool {
			at := instanceKey{o.Name, node}
			f := p.fault(at, o.links())
			return f == nil || !f.dead || p.mayHoldFlows(at, f)
		}))
	}
}
