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
	r := &review{Memory: &Memory{}, options: o, at: at, files: index(&objects)}
	r.apply()
	for _, m := range r.translate() {
		m.Mild = true
		r.out.Mistakes = append(r.out.Mistakes, m)
	}
	return r.finish(r.out.Mistakes)
}

// Messages returns what is wrong, each with file, line and object: mistakes, and what is
// a state. more are problems that resolving has found.
func (r *Review) Messages(more []gateway.Problem) (_, _ []string) {
	var mistakes, states []line
	for _, refusal := range r.Refusals {
		mistakes = append(mistakes, line{refusal.Object, refusal.Value, refusal.String()})
	}
	known := map[gateway.Problem]bool{}
	noPort := map[string]bool{}
	for _, m := range r.Mistakes {
		known[m.Problem] = true
		noPort[m.Object] = noPort[m.Object] || m.Reason == gateway.ReasonNoEndpointPort
		said := line{m.Object, m.Value, m.Object + ": " + m.Message}
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
			states = append(states, line{p.Object, listenerOf(p.Object), p.Object + ": " + p.Message})
		}
	}
	return r.few(mistakes), r.few(states)
}

// few returns the lines with no more than a few of each object.
func (r *Review) few(lines []line) []string {
	var all []string
	count := map[string]int{}
	for _, l := range lines {
		subject, _, _ := strings.Cut(l.object, " listener ")
		if count[subject]++; count[subject] <= mostLines {
			all = append(all, r.locate(subject, l.value, l.text))
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(count)) {
		if more := count[subject] - mostLines; more > 0 {
			all = append(all, r.locate(subject, "", fmt.Sprintf("%s: %d more like these.", subject, more)))
		}
	}
	return all
}

// mostLines is how many problems of an object are told.
const mostLines = 8

// line is a message about an object.
type line struct{ object, value, text string }

// listenerOf returns the value of a problem: that of the listener which it is about.
func listenerOf(object string) string {
	_, name, _ := strings.Cut(object, " listener ")
	return "listeners/" + name
}

// locate puts file and line of an object before a message.
func (r *Review) locate(object, value, message string) string {
	if at := r.At(object, value); at != "" {
		return at + ": " + phrase.Printable(message)
	}
	return phrase.Printable(message)
}
