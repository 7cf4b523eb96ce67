// SPDX-License-Identifier: Apache-2.0

package rollout

import "github.com/kubernetes-sigs/blixt/operator/lb"

// phase is how far an application has come on a node.
type phase string

const (
	// absent: bpfman has no program loaded, and is not loading one.
	absent phase = "Absent"
	// loading: bpfman is loading the program.
	loading phase = "Loading"
	// unwritten: the program is attached, but no agent has written its maps. It
	// passes every packet on.
	unwritten phase = "Unwritten"
	// serving: packets reach the program, and its maps hold a state. It accepts
	// new connections, though perhaps not all that it should: see the fault.
	serving phase = "Serving"
	// draining: as serving, but it serves only the flows that it has.
	draining phase = "Draining"
	// dead: bpfman could not load or attach the program, or it receives no packets
	// any more. Somebody has to act.
	dead phase = "Dead"
	// unknown: the program seems to serve nothing, but its agent contradicts that,
	// or has not had the time to connect to this operator.
	unknown phase = "Unknown"
)

// mayForward reports whether packets may reach a program that has flows or
// accepts new ones. A program that stands in front of it must not accept new
// connections then: it would take the flows of the other for new ones.
func (p phase) mayForward() bool { return p == serving || p == draining || p == unknown }

// instance is an application on a node, as bpfman, its agent and the stored
// status together describe it.
type instance struct {
	at    instanceKey
	phase phase
	// fault is why it does not serve all that it should; nil: it does.
	fault *diagnosis
	// runs reports whether the program is in the kernel, by any account.
	runs bool
	// written reports whether an agent has written its maps.
	written bool
	// mayHoldFlows reports whether it runs and its maps have been written, or
	// may have been.
	mayHoldFlows bool
	// drains reports whether it serves only the flows that it has, as last
	// reported. It says nothing about whether packets reach the program.
	drains bool
}

// instance derives the phase of an application on a node:
//
//	fault                                                    phase
//	none, or the program serves in spite of it:  drains      Draining
//	                                             does not    Serving
//	the program serves nothing:  contradicted                Unknown
//	                             not contradicted            that of the fault: Absent, Loading, Unwritten or Dead
func (s *observed) instance(a *Application, node string) *instance {
	at := instanceKey{a.Name, node}
	i := &instance{
		at: at, fault: s.fault(at, a.links()),
		runs: s.runs(at), written: s.written(at), drains: s.drains(at),
	}
	i.mayHoldFlows = i.runs && (i.written || s.reports[at] == nil && s.starting())
	switch serves := i.fault == nil || i.fault.phase == serving; {
	case serves && i.drains:
		i.phase = draining
	case serves:
		i.phase = serving
	case s.contradicted(at, i.fault):
		i.phase = unknown
	default:
		i.phase = i.fault.phase
	}
	return i
}

// contradicted reports whether a program that seems to serve nothing may still
// hold flows. While bpfman restarts, it reports much that is not so: its word
// counts only if the agent agrees, or is lost too. A program that is really
// gone soon stops the agent's heartbeat.
func (s *observed) contradicted(at instanceKey, f *diagnosis) bool {
	switch {
	case f.reason == ReloadedProgram: // its maps are new
		return false
	case s.reports[at] == nil:
		return s.starting()
	}
	a := s.agentFault(at)
	return a == nil || a.phase == serving && a.reason != AgentLost
}

// runs reports whether a program is in the kernel, by any account.
func (s *observed) runs(at instanceKey) bool {
	if s.program(at) != nil {
		return true
	}
	if report := s.reports[at]; report != nil {
		return report.Connected || s.now.Sub(report.LastContact) <= contactGrace
	}
	stored := s.stored(at)
	return s.starting() && stored != nil && stored.AckedAt != nil
}

// written reports whether an agent has written the maps of a program.
func (s *observed) written(at instanceKey) bool {
	if report := s.reports[at]; report != nil {
		// An error may have kept the agent from reading what the maps hold.
		return report.Version != (lb.Version{}) || report.Error != ""
	}
	stored := s.stored(at)
	return stored != nil && stored.AckedAt != nil
}

// drains reports whether a program serves only the flows that it has, by the
// last report.
func (s *observed) drains(at instanceKey) bool {
	if report := s.reports[at]; report != nil {
		return report.Draining
	}
	stored := s.stored(at)
	return stored != nil && stored.Draining
}
