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

// What a ClusterBpfApplication says about itself, so that an operator that has
// just started goes on where another stopped.
const (
	// snatAnnotation has the source ports that are its own for life.
	snatAnnotation = "blixt.x-k8s.io/snat-ports"
	// priorityAnnotation has the priority that was asked for, and what was added
	// to get behind another.
	priorityAnnotation = "blixt.x-k8s.io/priority"
	// sinceAnnotation is since when those before it drain everywhere.
	sinceAnnotation = "blixt.x-k8s.io/others-draining-since"
)

// Application is a ClusterBpfApplication of Blixt: one program, with maps of
// its own, on each selected node.
type Application struct {
	Name     string                 `json:"name"`
	Bytecode bpfmanv1.ByteCodeImage `json:"bytecode"`
	// SNAT are its source ports, which no other application has.
	SNAT lb.PortRange `json:"snat"`
	// Priority is the one asked for, or later, so that those that drain see
	// their packets first.
	Priority int32 `json:"priority"`
	// Drain is what to tell its agents, by node: true to serve only the
	// connections that there are, false to serve everything. Agents of nodes
	// that are not in it are left as they are: what they do is not known yet.
	Drain map[string]bool `json:"drain,omitempty"`
	// Agents tells whether its agents are to be as this version makes them. A
	// pod that mounts the maps of a program that is not loaded waits for up to
	// two minutes, and one that does not know their layout for ever.
	Agents bool `json:"agents,omitempty"`

	asked   int32     // priority for which Priority was chosen
	created time.Time // zero: not yet
	stored  *bpfmanv1.ClusterBpfApplication
}

// Name returns the name of the application that runs an image, which is named
// by digest: one digest, one application.
func Name(image string) string {
	hex := digest(image)
	return "blixt-" + hex[:min(len(hex), 12)]
}

// AgentsName returns the name of the DaemonSet of an application's agents.
func AgentsName(application string) string {
	return "blixt-agent-" + strings.TrimPrefix(application, "blixt-")
}

// digest returns the hexadecimal digits of an image's digest; "": it has none.
func digest(image string) string {
	_, hex, _ := strings.Cut(image, "@sha256:")
	return hex
}

// applications returns Blixt's own, in the order in which they see packets:
// those that stay, and those that are being deleted.
func (s *observed) applications() (live, leaving []Application) {
	for i := range s.c.Applications {
		stored := &s.c.Applications[i]
		if !v1alpha1.Managed(stored) || stored.Spec.ByteCode.Image == nil {
			continue
		}
		if a := parse(stored); stored.DeletionTimestamp == nil {
			live = append(live, a)
		} else {
			leaving = append(leaving, a)
		}
	}
	slices.SortFunc(live, inLine)
	slices.SortFunc(leaving, inLine)
	return live, leaving
}

// tell adds an order to an agent that has been heard of.
func (s *observed) tell(a *Application, node string, drain bool) {
	if s.reports[instanceKey{a.Name, node}] == nil {
		return
	}
	if a.Drain == nil {
		a.Drain = map[string]bool{}
	}
	a.Drain[node] = drain
}

// inLine orders applications as the kernel does: of one priority, the one that
// came first is first. One that is yet to be created is last.
func inLine(a, b Application) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), order(a.created, b.created), cmp.Compare(a.Name, b.Name))
}

func order(a, b time.Time) int {
	if a.IsZero() || b.IsZero() {
		return b.Compare(a)
	}
	return a.Compare(b)
}

// allPorts are those of an application of which nobody knows which it has.
var allPorts = lb.PortRange{First: 1, Last: 65535}

// parse takes what is missing or garbled for the worst.
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

func (a *Application) annotations(since time.Time) map[string]string {
	all := map[string]string{
		snatAnnotation:     fmt.Sprintf("%d-%d", a.SNAT.First, a.SNAT.Last),
		priorityAnnotation: fmt.Sprintf("%d+%d", a.asked, a.Priority-a.asked),
	}
	if !since.IsZero() {
		all[sinceAnnotation] = since.UTC().Format(time.RFC3339)
	}
	return all
}

// needsReorder tells whether its links are yet to get another priority.
func (a *Application) needsReorder() bool {
	return a.stored != nil && a.Priority != parse(a.stored).Priority
}

// since returns since when the others drain on every node, as stored. What was
// stored when there were others yet is void.
func (a *Application) since(others []Application) (time.Time, bool) {
	if a.stored == nil {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, a.stored.Annotations[sinceAnnotation])
	for _, o := range others {
		if t.Before(o.created) {
			return time.Time{}, false
		}
	}
	return t, err == nil
}

// links are the attachments that were asked for.
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

// portsOf are the source ports that a BlixtConfig gives, of which an application
// has one half.
func portsOf(r v1alpha1.PortRange) lb.PortRange {
	return lb.PortRange{First: uint16(r.First), Last: uint16(r.Last)}
}

// freeHalf returns the half that shares no port with the applications.
func freeHalf(r v1alpha1.PortRange, others []Application) (lb.PortRange, bool) {
	var taken []lb.PortRange
	for _, o := range others {
		taken = append(taken, o.SNAT)
	}
	return portsOf(r).FreeHalf(taken...)
}
