// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

const (
	// contactGrace is how long an agent may be silent before it counts as lost,
	// and how long agents have to find an operator that has just started.
	contactGrace = time.Minute
	// outdatedAfter is how long an agent may take to write a state.
	outdatedAfter = 30 * time.Second
	// stuckAfter is the age at which an application that bpfman reports nothing
	// of is overdue.
	stuckAfter = 30 * time.Second
	// slowAfter is the age at which even a slow download should have ended.
	slowAfter = 2 * time.Minute
)

// diagnosis is why a program does not serve all that it should on a node.
type diagnosis struct {
	status          metav1.ConditionStatus
	reason, message string
	// phase is serving if the program serves in spite of the fault, or may. Otherwise
	// it serves nothing: it is absent, loading, unwritten or dead.
	phase phase
	// keep means that nothing is known yet, and that the stored conditions stand.
	keep bool
}

// broken is the fault of a program that serves nothing.
func broken(p phase, reason, format string, args ...any) *diagnosis {
	return &diagnosis{status: metav1.ConditionFalse, reason: reason, message: fmt.Sprintf(format, args...), phase: p}
}

// degraded is the fault of a program that serves, but perhaps not all that it
// should.
func degraded(status metav1.ConditionStatus, reason, format string, args ...any) *diagnosis {
	return &diagnosis{status: status, reason: reason, message: fmt.Sprintf(format, args...), phase: serving}
}

// isPermanent reports whether an instance will serve nothing until somebody
// acts. It blocks an upgrade then:
//
//	phase of its fault            permanent
//	none, Serving                 no
//	Dead                          yes
//	Absent, Loading, Unwritten    once the application is older than slowAfter; with the
//	                              reason ReloadedProgram never, as the pod is replaced
func (s *observed) isPermanent(i *instance) bool {
	switch f := i.fault; {
	case f == nil || f.phase == serving || f.reason == ReloadedProgram:
		return false
	case f.phase == dead:
		return true
	}
	return s.age(i.at.application) >= slowAfter
}

// fault returns what is wrong with an instance; nil: nothing. It looks from the
// program to the agent, as the first fault causes the others. links are what was
// asked for.
func (s *observed) fault(at instanceKey, links []bpfmanv1.ClTcxAttachInfo) *diagnosis {
	if f := s.loadFault(at); f != nil {
		return f
	}
	if f := linkFault(at, links, s.program(at)); f != nil {
		return f
	}
	if pod, before, after := s.reloaded(at); pod != "" {
		return broken(unwritten, ReloadedProgram, "bpfman has loaded the program anew (as %d, it was %d): pod %s had the maps of the one before, and is replaced.", after, before, pod)
	}
	return s.agentFault(at)
}

// loadFault returns why the program is not in the kernel; nil: it is.
func (s *observed) loadFault(at instanceKey) *diagnosis {
	state := s.states[at]
	switch {
	case state == nil && s.age(at.application) < stuckAfter:
		return broken(absent, NotLoaded, "bpfman has not looked at ClusterBpfApplication %s yet.", at.application)
	case state == nil:
		return broken(absent, NotLoaded, "bpfman has not looked at ClusterBpfApplication %s: is a pod of DaemonSet bpfman-daemon running on the node?", at.application)
	}
	switch state.Status.AppLoadStatus {
	case bpfmanv1.AppLoadError:
		return broken(dead, LoadFailed, "bpfman could not load the program of ClusterBpfApplication %s. The log of container bpfman-agent of the node's bpfman-daemon pod says why. "+
			"Usual causes: the image cannot be pulled (the registry needs HTTPS and a certificate that the node trusts, a private one bytecode.pullSecret); bpfman is configured to verify signatures and cannot reach the internet (set verify_enabled = false in its Config, as Blixt's chart does); the kernel is older than 6.6; "+
			"or, if the log has \"Operation not permitted\" for BPF_OBJ_PIN, bpfman was restarted without the fixes of Blixt's chart.", at.application)
	case bpfmanv1.ProgListChangedError:
		return broken(dead, LoadFailed, "Somebody has changed the programs of ClusterBpfApplication %s, which bpfman does not support while it is loaded. Blixt changes them back. If this stays, delete the ClusterBpfApplication: Blixt creates it again.", at.application)
	case bpfmanv1.AppLoadSuccess:
		if s.program(at) == nil {
			return broken(absent, NotLoaded, "bpfman says that ClusterBpfApplication %s is loaded, but lists no program. Delete it, and it is created again.", at.application)
		}
		return nil
	case bpfmanv1.AppLoadNotLoaded, "":
		switch age := s.now.Sub(state.CreationTimestamp.Time); {
		case s.c.NarrowLinkIDs && age >= stuckAfter:
			return broken(dead, StateStuck, "bpfman cannot say whether it has loaded ClusterBpfApplication %s: the CRD clusterbpfapplicationstates.bpfman.io has linkId as int32, and the API server refuses most of bpfman's ids. "+
				"bpfman loads the program again and again, and leaves every copy attached. Change the format to int64, as Blixt's chart does, and restart the node to be rid of the copies.", at.application)
		case age >= slowAfter:
			return broken(loading, NotLoaded, "bpfman has not loaded ClusterBpfApplication %s for more than %s. The log of container bpfman-agent of the node's bpfman-daemon pod says what it is doing: perhaps it still pulls the image.", at.application, slowAfter)
		}
		return broken(loading, NotLoaded, "bpfman is loading ClusterBpfApplication %s.", at.application)
	}
	return broken(absent, NotLoaded, "bpfman has unloaded ClusterBpfApplication %s (%s).", at.application, state.Status.AppLoadStatus)
}

// linkFault returns why packets do not reach the program on all interfaces; nil:
// they do.
func linkFault(at instanceKey, asked []bpfmanv1.ClTcxAttachInfo, p *bpfmanv1.ClBpfApplicationProgramState) *diagnosis {
	var links []bpfmanv1.ClTcxAttachInfoState
	if p != nil && p.TCX != nil {
		links = slices.DeleteFunc(slices.Clone(p.TCX.Links), func(l bpfmanv1.ClTcxAttachInfoState) bool { return !l.ShouldAttach })
	}
	attached, failed := false, []string{}
	for _, l := range links {
		if l.LinkStatus == bpfmanv1.ApAttachAttached {
			attached = true
		} else {
			failed = append(failed, fmt.Sprintf("%s of %s (%s)", strings.ToLower(string(l.Direction)), l.InterfaceName, l.LinkStatus))
		}
	}
	f := (*diagnosis)(nil)
	if missing := missingLinks(asked, links); len(failed) > 0 {
		f = broken(dead, NotAttached, "bpfman has not attached the program of ClusterBpfApplication %s at %s. If this stays, check that the interface exists: bpfman tries again when a pod of the node changes. "+
			"If the log of bpfman-agent says \"bpf_mprog_attach failed\", bpfman's database has programs that are gone: delete /run/bpfman/db on the node, and the node's bpfman-daemon pod.", at.application, phrase.Join(failed))
	} else if len(missing) > 0 {
		f = broken(dead, LinksMissing, "bpfman says Success, but the program of ClusterBpfApplication %s is not attached at %s. If this stays, check that the interface exists, "+
			"and that bpfman-agent may open the host's network namespace (/proc/1/ns/net): otherwise it attaches nothing and reports no error.", at.application, phrase.Join(missing))
	}
	if f != nil && attached {
		f.phase = serving
	}
	return f
}

// missingLinks names the attachments that were asked for and are not among the
// links.
func missingLinks(asked []bpfmanv1.ClTcxAttachInfo, links []bpfmanv1.ClTcxAttachInfoState) []string {
	found := map[string]bool{} // interfaces that bpfman chose
	for _, l := range links {
		found[l.InterfaceName] = true
	}
	for _, a := range asked {
		for _, name := range a.InterfaceSelector.Interfaces {
			delete(found, name)
		}
	}
	var missing []string
	for _, a := range asked {
		want := a.InterfaceSelector.Interfaces
		if want == nil {
			want = slices.Sorted(maps.Keys(found))
		}
		direction := strings.ToLower(string(a.Direction))
		for _, name := range want {
			i := slices.IndexFunc(links, func(l bpfmanv1.ClTcxAttachInfoState) bool {
				return l.InterfaceName == name && l.Direction == a.Direction
			})
			if i < 0 {
				missing = append(missing, direction+" of "+name)
			} else if a.Priority != nil && links[i].Priority != *a.Priority {
				missing = append(missing, fmt.Sprintf("%s of %s with priority %d", direction, name, *a.Priority))
			}
		}
		switch {
		case len(want) > 0:
		case a.InterfaceSelector.PrimaryNodeInterface != nil:
			missing = append(missing, direction+" of the primary interface")
		default:
			missing = append(missing, direction+" of any interface")
		}
	}
	return missing
}

// reloaded returns the agent's pod if it has the maps of an earlier program and no
// other pod has reported yet, and the ids of both programs; else "".
func (s *observed) reloaded(at instanceKey) (pod string, before, after int64) {
	stored, p := s.stored(at), s.program(at)
	if stored == nil || stored.ProgramID == nil || p == nil || stored.Pod == "" ||
		*stored.ProgramID == int64(*p.ProgramId) || s.replaced(at) {
		return "", 0, 0
	}
	return stored.Pod, *stored.ProgramID, int64(*p.ProgramId)
}

// replaced reports whether the agent has another pod than the stored one, and
// that pod has reported.
func (s *observed) replaced(at instanceKey) bool {
	stored, pod, report := s.stored(at), s.pods[at], s.reports[at]
	return stored != nil && pod != nil && pod.Name != stored.Pod && report != nil && path.Base(report.Pod) == pod.Name
}

// agentFault returns why the maps do not hold what they should; nil: they do.
func (s *observed) agentFault(at instanceKey) *diagnosis {
	report, stored, pod := s.reports[at], s.stored(at), s.pods[at]
	served := stored != nil && stored.AckedAt != nil
	switch {
	case report == nil && served && s.starting():
		return &diagnosis{status: metav1.ConditionUnknown, reason: AgentLost, message: "The operator has just started, and waits for the node's agent.", phase: serving, keep: true}
	case report == nil && !served:
		return s.noAgent(at, pod)
	case report == nil || !report.Connected && s.now.Sub(report.LastContact) > contactGrace:
		name := AgentsName(at.application)
		if pod != nil {
			name = pod.Name
		}
		return degraded(metav1.ConditionUnknown, AgentLost, "The node's agent (%s) is not connected. The kernel goes on serving what it has.", name)
	case report.HeartbeatLost:
		return broken(dead, ProgramGone, "The program sees no packets any more, though bpfman says that it is attached: it was perhaps lost with a restart of bpfman's container, which the fixes of Blixt's chart prevent. "+
			"Delete /run/bpfman/db on the node, the node's bpfman-daemon pod, and pod %s. If bpftool net shows the program attached, deleting pod %s is enough.", report.Pod, report.Pod)
	case report.Error != "":
		return writeFault(report)
	case report.Version == (lb.Version{}):
		return broken(unwritten, Outdated, "The agent has not written its first state yet.")
	case s.outdated(report.Version):
		return degraded(metav1.ConditionFalse, Outdated, "The maps hold an older state than they should for more than %s. The log of pod %s may say why.", outdatedAfter, report.Pod)
	}
	return nil
}

// noAgent returns why no agent has ever written the maps.
func (s *observed) noAgent(at instanceKey, pod *corev1.Pod) *diagnosis {
	switch {
	case pod == nil:
		return broken(unwritten, NoAgent, "The program is loaded, but DaemonSet %s has no pod on the node yet, which fills its maps. If this stays, describe the DaemonSet.", AgentsName(at.application))
	case pod.Status.Phase != corev1.PodRunning:
		return broken(unwritten, NoAgent, "Pod %s, which fills the program's maps, does not run yet (%s). If it waits for its volume for more than two minutes: does the node's bpfman-daemon pod have csi.bpfman.io? "+
			"And does blixt bytecode inspect show layout %d for the image, which this version of Blixt writes? If it shows another, name the bytecode of this version, or install the version of that bytecode.", pod.Name, pod.Status.Phase, bpf.Layout)
	}
	return broken(unwritten, NoAgent, "Pod %s, which fills the program's maps, runs but has not reached the operator. Its log says why.", pod.Name)
}

// writeFault returns why the agent could not write the maps.
func writeFault(report *lb.Report) *diagnosis {
	f := report.TableFull
	switch {
	case f == nil:
		return degraded(metav1.ConditionFalse, WriteFailed, "The agent could not write the program's maps: %s.", strings.TrimSuffix(report.Error, "."))
	case !f.RestHolds(): // an agent of an earlier version
		return degraded(metav1.ConditionFalse, TableFull, "Not all fits into the program's tables, and the node serves what it served before: %s. Table %s can have %d entries. Serve less, or build bytecode with a larger one.", report.Error, f.Table, f.Size)
	}
	return degraded(metav1.ConditionFalse, TableFull, "Not all fits into the program's tables, and the node serves the rest: %s. Serve less, or build bytecode with a larger table.", f)
}

// outdated reports whether an agent has lacked a version for longer than
// outdatedAfter. What it has of another leader is not what this one has issued:
// epochs are times, and the clock of either may be wrong.
func (s *observed) outdated(have lb.Version) bool {
	for _, issued := range s.c.Issued {
		v := issued.Version
		if v.Epoch != have.Epoch || v.Sequence > have.Sequence {
			return s.now.Sub(issued.At) > outdatedAfter // the first that it lacks
		}
	}
	return false
}
