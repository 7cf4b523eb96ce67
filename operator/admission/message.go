// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Lenient returns the review of objects of which no mistake is refused.
func Lenient(objects Objects, o gateway.Options, at func(name, value string) string) Review {
	r := newReview(&Memory{}, objects, o, at)
	r.apply()
	for _, m := range r.translate() {
		m.Mild = true
		r.out.Mistakes = append(r.out.Mistakes, m)
	}
	return r.finish(r.out.Mistakes)
}

// Message is what is wrong with an object.
type Message struct {
	// At is the object's file and line, or those of the value that is wrong; "": not known.
	At string
	// Object is its kind and name, and the name of a listener.
	Object string
	Text   string
}

// String returns the message in one line, with nothing that a terminal obeys.
func (m Message) String() string {
	text := phrase.Printable(m.Object + ": " + m.Text)
	if m.At == "" {
		return text
	}
	return m.At + ": " + text
}

// Messages returns what is wrong: mistakes, and what is a state. more are problems that
// resolving has found.
func (r *Review) Messages(more []gateway.Problem) (mistakes, states []Message) {
	for i := range r.Refusals {
		m := &r.Refusals[i].Mistake
		mistakes = append(mistakes, r.message(m.Object, m.Value, r.Refusals[i].Text()))
	}
	known := map[gateway.Problem]bool{}
	noPort := map[string]bool{}
	for _, m := range r.Mistakes {
		known[m.Problem] = true
		noPort[m.Object] = noPort[m.Object] || m.Reason == gateway.ReasonNoEndpointPort
		said := r.message(m.Object, m.Value, m.Message)
		switch {
		case m.Reason == gateway.ReasonNoEndpointSlice: // that none is ready is said anyway
		case m.Mild:
			states = append(states, said)
		default:
			mistakes = append(mistakes, said)
		}
	}
	for _, p := range slices.Concat(r.Translation.States(), r.Translation.Remarks(&r.Objects.Objects, r.Objects.EndpointSlices), more, gateway.Unserved(r.Translation.Frontends, r.Endpoints)) {
		if !known[p] && !(noPort[p.Object] && strings.HasPrefix(p.Message, "No endpoint is ready")) {
			known[p] = true
			states = append(states, r.message(p.Object, listenerOf(p.Object), p.Message))
		}
	}
	return mistakes, states
}

func (r *Review) message(object, value, text string) Message {
	return Message{r.At(subjectOf(object), value), object, text}
}

// Few returns the messages, no more than a few of each object: these are for a log, in
// which one object must not hide the others.
func (r *Review) Few(all []Message) (lines []string) {
	count := map[string]int{}
	for _, m := range all {
		subject := subjectOf(m.Object)
		if count[subject]++; count[subject] <= mostLines {
			lines = append(lines, m.String())
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(count)) {
		if more := count[subject] - mostLines; more > 0 {
			lines = append(lines, r.message(subject, "", fmt.Sprintf("%d more like these.", more)).String())
		}
	}
	return lines
}

// mostLines is how many problems of an object are told.
const mostLines = 8

// subjectOf returns an object's name without that of a listener.
func subjectOf(object string) string {
	subject, _, _ := strings.Cut(object, " listener ")
	return subject
}

// listenerOf returns the value of a problem: that of the listener which it is about.
func listenerOf(object string) string {
	_, name, _ := strings.Cut(object, " listener ")
	return "listeners/" + name
}
