// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Annotations of a ClusterBpfApplication, from which an operator that has just
// started continues what another began.
const (
	// snatAnnotation has its source ports.
	snatAnnotation = "blixt.x-k8s.io/snat-ports"
	// priorityAnnotation has the priority that was asked for, and what was added
	// to get behind another application.
	priorityAnnotation = "blixt.x-k8s.io/priority"
	// sinceAnnotation has the time since when the previous applications drain on
	// some node, and their names.
	sinceAnnotation = "blixt.x-k8s.io/others-draining-since"
)

// Application is a ClusterBpfApplication of Blixt: one program, with maps of
// its own, on each selected node.
type Application struct {
	Name     string                 `json:"name"`
	Bytecode bpfmanv1.ByteCodeImage `json:"bytecode"`
	// SNAT are its source ports, which it shares with no other application.
	SNAT lb.PortRange `json:"snat"`
	// Priority is the one asked for, or a higher number, so that packets reach
	// the applications that drain first.
	Priority int32 `json:"priority"`
	// Drain is what its agents are told, by node: true to serve only the flows
	// that there are, false to serve everything. Agents of other nodes are told
	// nothing, as they have not reported yet.
	Drain map[string]bool `json:"drain,omitempty"`
	// Agents reports whether its agents are to be made as this version makes
	// them. A pod that mounts the maps of a program that is not loaded waits for
	// up to two minutes, and one that does not know their layout for ever.
	Agents bool `json:"agents,omitempty"`

	asked   int32     // the priority that was asked for when Priority was chosen
	created time.Time // zero: not yet
	stored  *bpfmanv1.ClusterBpfApplication
}

// Name returns the name of the application that runs a bytecode image, which is
// named by digest: one digest, one application.
func Name(image string) string {
	hex := digest(image)
	return "blixt-" + hex[:min(len(hex), 12)]
}

// AgentsName returns the name of the DaemonSet of an application's agents.
func AgentsName(application string) string {
	return "blixt-agent-" + strings.TrimPrefix(application, "blixt-")
}

// digest returns the hexadecimal digits of an image's digest, "" if it is named
// without one.
func digest(image string) string {
	_, hex, _ := strings.Cut(image, "@sha256:")
	return hex
}

// applications returns the applications of Blixt, in the order in which they
// receive packets: those that stay, and those that are being deleted.
func applications(all []bpfmanv1.ClusterBpfApplication) (live, leaving []Application) {
	for i := range all {
		stored := &all[i]
		if !v1alpha1.Managed(stored) || stored.Spec.ByteCode.Image == nil {
			continue
		}
		if a := parse(stored); stored.DeletionTimestamp == nil {
			live = append(live, a)
		} else {
			leaving = append(leaving, a)
		}
	}
	slices.SortFunc(live, compare)
	slices.SortFunc(leaving, compare)
	return live, leaving
}

// setDrain tells the agent of an instance whether to drain, if it has reported
// at all.
func (s *observed) setDrain(a *Application, i *instance, drain bool) {
	if s.reports[i.at] == nil {
		return
	}
	if a.Drain == nil {
		a.Drain = map[string]bool{}
	}
	a.Drain[i.at.node] = drain
}

// compare orders applications as the kernel does: of equal priority, the one
// that was created first receives packets first. One that is yet to be created
// is last.
func compare(a, b Application) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), compareTimes(a.created, b.created), cmp.Compare(a.Name, b.Name))
}

// compareTimes orders times, zero last.
func compareTimes(a, b time.Time) int {
	if a.IsZero() || b.IsZero() {
		return b.Compare(a)
	}
	return a.Compare(b)
}

// allPorts is assumed for an application whose ports are unknown: the worst
// case.
var allPorts = lb.PortRange{First: 1, Last: 65535}

// parse reads what a stored application says of itself. Where its ports are
// missing or garbled, it assumes all; where the priority that was asked for is,
// one that nobody asks for.
func parse(stored *bpfmanv1.ClusterBpfApplication) Application {
	a := Application{
		Name: stored.Name, Bytecode: *stored.Spec.ByteCode.Image, SNAT: allPorts,
		created: stored.CreationTimestamp.Time, stored: stored,
	}
	var snat lb.PortRange
	if _, err := fmt.Sscanf(stored.Annotations[snatAnnotation], "%d-%d", &snat.First, &snat.Last); err == nil && snat.First <= snat.Last {
		a.SNAT = snat
	}
	var later int32
	if _, err := fmt.Sscanf(stored.Annotations[priorityAnnotation], "%d+%d", &a.asked, &later); err == nil {
		a.Priority = a.asked + later
	} else if links := a.links(); len(links) > 0 && links[0].Priority != nil {
		a.Priority, a.asked = *links[0].Priority, -1
	}
	return a
}

func (a *Application) annotations(since time.Time, previous []Application) map[string]string {
	all := map[string]string{
		snatAnnotation:     fmt.Sprintf("%d-%d", a.SNAT.First, a.SNAT.Last),
		priorityAnnotation: fmt.Sprintf("%d+%d", a.asked, a.Priority-a.asked),
	}
	if !since.IsZero() {
		words := []string{since.UTC().Format(time.RFC3339)}
		for _, o := range previous {
			words = append(words, o.Name)
		}
		all[sinceAnnotation] = strings.Join(words, " ")
	}
	return all
}

// needsReorder reports whether its links are yet to be given another priority.
func (a *Application) needsReorder() bool {
	return a.stored != nil && a.Priority != parse(a.stored).Priority
}

// began returns the stored time since when the previous applications drain on
// some node, and false if there is none. A time that was stored for others, or
// before one of them was the current one again, does not count.
func (a *Application) began(previous []Application) (time.Time, bool) {
	t, names := a.storedSince()
	for _, o := range previous {
		if other, _ := o.storedSince(); !slices.Contains(names, o.Name) || other.After(t) {
			return time.Time{}, false
		}
	}
	return t, !t.IsZero()
}

// storedSince returns what sinceAnnotation has; zero: nothing.
func (a *Application) storedSince() (since time.Time, previous []string) {
	if a.stored == nil {
		return time.Time{}, nil
	}
	words := strings.Fields(a.stored.Annotations[sinceAnnotation])
	if len(words) == 0 {
		return time.Time{}, nil
	}
	since, err := time.Parse(time.RFC3339, words[0])
	if err != nil {
		return time.Time{}, nil
	}
	return since, words[1:]
}

// links returns the attachments that were asked for.
func (a *Application) links() []bpfmanv1.ClTcxAttachInfo {
	if a.stored != nil {
		for _, p := range a.stored.Spec.Programs {
			if p.TCX != nil {
				return p.TCX.Links
			}
		}
	}
	return nil
}

// portsOf returns the source ports that a BlixtConfig gives.
func portsOf(r v1alpha1.PortRange) lb.PortRange {
	return lb.PortRange{First: uint16(r.First), Last: uint16(r.Last)}
}

// freeEnd returns an end that shares no port with the applications, and false if
// there is none.
func freeEnd(r v1alpha1.PortRange, applications []Application) (lb.PortRange, bool) {
	var taken []lb.PortRange
	for _, a := range applications {
		taken = append(taken, a.SNAT)
	}
	return portsOf(r).FreeEnd(taken...)
}
