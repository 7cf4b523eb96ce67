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

// loadTime is how long agents wait for the slowest node to load a program, once
// some node has.
const loadTime = 10 * time.Second

// maxPriority is the highest number that bpfman knows: such a program receives
// packets last.
const maxPriority = 1000

// Desired are the applications that there are to be.
type Desired struct {
	// Applications are those to keep. The first is the current one: it accepts
	// new connections wherever it serves. The others are previous ones: they
	// serve where it does not, and elsewhere drain.
	Applications []Application `json:"applications,omitempty"`
	// DrainingSince is since when the previous applications drain on some node;
	// zero: they do not, or there are none.
	DrainingSince time.Time `json:"drainingSince,omitzero"`
	// Delete names the applications to delete.
	Delete []string `json:"delete,omitempty"`
	// Problems are why it is not all that was asked for.
	Problems []Problem `json:"problems,omitempty"`
	// Events report what is new.
	Events []Event `json:"events,omitempty"`
}

// Plan returns the applications that there are to be. spec must be complete, as
// Default returns it.
//
// Another bytecode image is another application, beside the one that serves. On
// each node the previous one drains once the current one is attached and its
// maps are written; where the current one does not serve, the previous one goes
// on. It is deleted when no node needs it any more: its flows there have ended, or
// the node's deadline is over. There are never more than two: a third waits, unless
// the second serves nowhere, or fails on many nodes. The decisions for each node are
// tables in drain.go.
func Plan(now time.Time, spec v1alpha1.Dataplane, c Cluster) Desired {
	p := planner{observed: observe(now, spec, &c), spec: spec}
	current, ok := p.current()
	for i := range p.leaving {
		p.reportStuck(&p.leaving[i])
	}
	if !ok {
		return p.out
	}
	var previous []Application
	for _, a := range p.live {
		if a.Name != current.Name {
			previous = append(previous, a)
		}
	}
	p.complete(&current, previous)
	previous = p.retire(&current, previous)
	p.resume(&current, previous)
	p.out.Applications = append([]Application{current}, previous...)
	return p.out
}

type planner struct {
	*observed
	spec v1alpha1.Dataplane
	out  Desired
}

// current returns the application that is to accept new connections, and false
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
	end, free := freeEnd(p.spec.SNATPorts, all)
	switch {
	case len(digest(image)) != 64:
		p.problem(wanted.Name, BytecodeRefused, fmt.Sprintf("Name the image %s by digest, as repository@sha256:<64 hexadecimal digits>: a tag may mean something else tomorrow.", image))
	case p.c.Refused != "":
		p.problem(wanted.Name, BytecodeRefused, p.c.Refused)
	case slices.ContainsFunc(p.leaving, isWanted):
		p.problem(wanted.Name, UpgradeWaiting, "It is being deleted, and is created again when it is gone.")
	case len(all) >= 2:
		p.problem(wanted.Name, UpgradeWaiting, fmt.Sprintf("It waits until one of %s is gone: two can run at a time, each with one end of snatPorts.", names(all)))
	case !free:
		p.problem(wanted.Name, UpgradeWaiting, fmt.Sprintf("It waits for ports: %s has some of both ends of snatPorts %d-%d.", names(all), p.spec.SNATPorts.First, p.spec.SNATPorts.Last))
	default:
		wanted.SNAT = end
		p.event(wanted.Name, corev1.EventTypeNormal, Loading, "bpfman is asked to load "+image+".")
		return wanted, true
	}
	if len(p.live) == 0 {
		return Application{}, false
	}
	last := p.live[len(p.live)-1]
	for _, previous := range slices.Backward(p.live[:len(p.live)-1]) {
		if !p.mayHoldFlows(&last) && p.mayHoldFlows(&previous) || p.cannotReplace(&last, &previous) {
			return previous, true // so that the last one goes, and makes room for the wanted one
		}
	}
	return last, true
}

// cannotReplace reports whether the last application cannot take over on nodes
// where a previous one serves, and these are too many to be given up.
func (p *planner) cannotReplace(last, previous *Application) bool {
	stuck := 0
	for _, i := range p.on(previous.Name) {
		if p.ready(i.at.node) && i.runs && !i.drains && p.isPermanent(p.instances[instanceKey{last.Name, i.at.node}]) {
			stuck++
		}
	}
	return stuck > 0 && !p.mayGiveUp(stuck)
}

// complete fills in the ports and the priority of the current application, and
// whether it is time for its agents. It has more ports while there is no other.
func (p *planner) complete(current *Application, previous []Application) {
	others := slices.Concat(previous, p.leaving)
	if end, free := freeEnd(p.spec.SNATPorts, others); free && current.SNAT == allPorts {
		current.SNAT = end
	}
	if len(others) == 0 {
		current.SNAT = portsOf(p.spec.SNATPorts).Alone(current.SNAT)
	}
	p.reorder(current, previous)
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

// reorder moves the current application behind the previous ones: of equal
// priority, the one that was attached last receives packets last. An application
// that was current before has to move, or it would take the flows of the
// previous ones for new ones. It is moved at most once, as packets pass
// unhandled during a move. A priority that is asked for meanwhile takes effect
// afterwards.
func (p *planner) reorder(current *Application, previous []Application) {
	drains := slices.ContainsFunc(p.on(current.Name), func(i *instance) bool { return i.runs && i.drains })
	previous = slices.DeleteFunc(slices.Clone(previous), func(a Application) bool {
		return !slices.ContainsFunc(p.on(a.Name), func(i *instance) bool { return i.runs && (drains || i.written) })
	})
	if current.created.IsZero() || len(previous) == 0 && current.asked != *p.spec.Priority {
		current.Priority, current.asked = *p.spec.Priority, *p.spec.Priority
	}
	for _, a := range previous {
		switch {
		case current.created.IsZero():
			current.Priority = max(current.Priority, a.Priority)
		case compare(*current, a) < 0:
			current.Priority = min(a.Priority+1, maxPriority)
		}
	}
}

// loaded reports whether any node has loaded the program of an application, and
// whether all have that should.
func (p *planner) loaded(a *Application) (some, all bool) {
	all = true
	for _, node := range p.names {
		loaded := p.program(instanceKey{a.Name, node}) != nil
		some = some || loaded
		all = all && (loaded || !p.selected(node) || !p.ready(node))
	}
	return some, some && all
}

func names(all []Application) string {
	var words []string
	for _, a := range all {
		words = append(words, a.Name)
	}
	return strings.Join(words, " and ")
}
