// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// loadTime is how long agents wait for the slowest node to load a program, if
// there is any that has.
const loadTime = 10 * time.Second

// maxPriority of bpfman's, which sees packets last.
const maxPriority = 1000

// Desired is which applications there are to be.
type Desired struct {
	// Applications are those to keep. The first takes new connections wherever
	// it serves; the others serve where it does not, and elsewhere drain.
	Applications []Application `json:"applications,omitempty"`
	// DrainingSince is since when the others drain on every node; zero: they
	// do not, or there are none.
	DrainingSince time.Time `json:"drainingSince,omitzero"`
	// Delete names the applications to delete.
	Delete []string `json:"delete,omitempty"`
	// Problems are what keeps it from what was asked for.
	Problems []Problem `json:"problems,omitempty"`
	// Events are what is new.
	Events []Event `json:"events,omitempty"`
}

// Plan returns which applications there are to be. spec must be complete, as
// Default returns it.
//
// A change of bytecode is an application beside the one that serves. On each
// node the old one drains once the new one is attached and holds the state,
// and serves on where the new one does not. It is deleted when it drains on
// all nodes and its connections have ended, or at the deadline. There are
// never more than two: a third waits, unless the second serves nowhere.
func Plan(now time.Time, spec v1alpha1.Dataplane, c Cluster) Desired {
	p := planner{observed: observe(now, spec, &c), spec: spec}
	p.live, p.leaving = p.applications()
	current, ok := p.current()
	for i := range p.leaving {
		p.stuck(&p.leaving[i])
	}
	if !ok {
		return p.out
	}
	var others []Application
	for _, o := range p.live {
		if o.Name != current.Name {
			others = append(others, o)
		}
	}
	p.settle(&current, others)
	others = p.retire(&current, others)
	p.takeOver(&current, others)
	p.out.Applications = append([]Application{current}, others...)
	return p.out
}

type planner struct {
	*observed
	spec          v1alpha1.Dataplane
	live, leaving []Application
	out           Desired
}

// current returns the application that is to take new connections, and false
// if there is none and cannot be one now.
func (p *planner) current() (Application, bool) {
	image := p.spec.Bytecode.Image
	wanted := Application{Name: Name(image), Bytecode: bpfmanv1.ByteCodeImage{Url: image, ImagePullPolicy: bpfmanv1.PullIfNotPresent}}
	if s := p.spec.Bytecode.PullSecret; s != nil {
		wanted.Bytecode.ImagePullSecret = &bpfmanv1.ImagePullSecretSelector{Name: s.Name, Namespace: s.Namespace}
	}
	isWanted := func(a Application) bool { return a.Name == wanted.Name }
	if i := slices.IndexFunc(p.live, isWanted); i >= 0 {
		have := p.live[i]
		have.Bytecode = wanted.Bytecode // the same digest, if perhaps from elsewhere
		return have, true
	}
	all := slices.Concat(p.live, p.leaving)
	half, free := freeHalf(p.spec.SNATPorts, all)
	switch {
	case len(digest(image)) != 64:
		p.problem(wanted.Name, BytecodeRefused, fmt.Sprintf("Name the image %s by digest, as repository@sha256:<64 hexadecimal digits>: a tag may mean something else tomorrow.", image))
	case p.c.Refused != "":
		p.problem(wanted.Name, BytecodeRefused, p.c.Refused)
	case slices.ContainsFunc(p.leaving, isWanted):
		p.problem(wanted.Name, UpgradeWaiting, "It is being deleted, and is created again when it is gone.")
	case len(all) >= 2:
		p.problem(wanted.Name, UpgradeWaiting, fmt.Sprintf("It waits until one of %s is gone: two can run at a time, each with one half of snatPorts.", names(all)))
	case !free:
		p.problem(wanted.Name, UpgradeWaiting, fmt.Sprintf("It waits for ports: %s has some of both halves of snatPorts %d-%d.", names(all), p.spec.SNATPorts.First, p.spec.SNATPorts.Last))
	default:
		wanted.SNAT = half
		p.event(wanted.Name, corev1.EventTypeNormal, Loading, "bpfman is asked to load "+image+".")
		return wanted, true
	}
	if len(p.live) == 0 {
		return Application{}, false
	}
	last := p.live[len(p.live)-1]
	for _, before := range slices.Backward(p.live[:len(p.live)-1]) {
		if len(p.filled(last)) == 0 && len(p.filled(before)) > 0 || p.failed(last, before) {
			return before, true // back, so that there is room for the third
		}
	}
	return last, true
}

// failed tells whether the last application cannot take over on a node where
// the one before serves.
func (p *planner) failed(last, before Application) bool {
	for node := range p.nodes {
		at := instanceKey{before.Name, node}
		if p.ready(node) && p.runs(at) && !p.drains(at) &&
			p.isPermanent(last.Name, p.fault(instanceKey{last.Name, node}, last.links())) {
			return true
		}
	}
	return false
}

// settle completes the current application.
func (p *planner) settle(current *Application, others []Application) {
	rest := slices.Concat(others, p.leaving)
	mine := portsOf(p.spec.SNATPorts).Halves()
	if half, free := freeHalf(p.spec.SNATPorts, rest); free &&
		(current.SNAT == allPorts || len(rest) == 0 && !slices.Contains(mine[:], current.SNAT)) {
		current.SNAT = half
	}
	p.reorder(current, others)
	some, all := p.loaded(current)
	current.Agents = all || some && !p.now.Before(current.created.Add(loadTime))
	if layout := p.layout(current.Name); layout != 0 && layout != bpf.Layout {
		current.Agents = false // those of this version would not know its maps
		if current.Name == Name(p.spec.Bytecode.Image) {
			p.problem(current.Name, OtherLayout, fmt.Sprintf("Its maps have layout %d, and this version of Blixt writes layout %d: its agents stay as they were made, and go on. "+
				"Name the bytecode of this version in spec.dataplane.bytecode.image of the BlixtConfig, or install the version of that bytecode.", layout, bpf.Layout))
		}
	}
}

// reorder puts the current application behind the others: of one priority, the
// one that came last is. One that takes over again has to move, or it would
// take the other's connections for its own. Moved once, it stays there: each
// move lets packets by. A priority that is asked for meanwhile waits.
func (p *planner) reorder(current *Application, others []Application) {
	drains := slices.ContainsFunc(p.places(*current), func(node string) bool { return p.drains(instanceKey{current.Name, node}) })
	others = slices.DeleteFunc(slices.Clone(others), func(o Application) bool {
		return !slices.ContainsFunc(p.places(o), func(node string) bool { return drains || p.acked(instanceKey{o.Name, node}) })
	})
	if current.created.IsZero() || len(others) == 0 && current.asked != *p.spec.Priority {
		current.Priority, current.asked = *p.spec.Priority, *p.spec.Priority
	}
	for _, o := range others {
		switch {
		case current.created.IsZero():
			current.Priority = max(current.Priority, o.Priority)
		case inLine(*current, o) < 0:
			current.Priority = min(o.Priority+1, maxPriority)
		}
	}
}

// loaded tells whether any node, and every one that is to, has loaded a program.
func (p *planner) loaded(a *Application) (some, all bool) {
	all = true
	for node := range p.nodes {
		loaded := p.program(instanceKey{a.Name, node}) != nil
		some = some || loaded
		all = all && (loaded || !p.selected(node) || !p.ready(node))
	}
	return some, some && all
}

// places are the nodes that an application runs on, sorted.
func (p *planner) places(a Application) []string {
	var nodes []string
	for node := range p.nodes {
		if p.runs(instanceKey{a.Name, node}) {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// filled are the places where an application may have connections: somebody has
// filled its maps.
func (p *planner) filled(a Application) []string {
	return slices.DeleteFunc(p.places(a), func(node string) bool {
		at := instanceKey{a.Name, node}
		return !p.acked(at) && (p.reports[at] != nil || !p.starting())
	})
}

func names(all []Application) string {
	var words []string
	for _, a := range all {
		words = append(words, a.Name)
	}
	return strings.Join(words, " and ")
}
