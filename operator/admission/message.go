// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Lenient returns the review of objects of which no mistake is refused.
func Lenient(objects Objects, o gateway.Options, at func(name string) string) Review {
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
func (r *Review) Messages(more []gateway.Problem) (mistakes, states []string) {
	for _, refusal := range r.Refusals {
		mistakes = append(mistakes, r.locate(refusal.Object, refusal.String()))
	}
	said := map[gateway.Problem]bool{}
	noPort := map[string]bool{}
	for _, m := range r.Mistakes {
		said[m.Problem] = true
		noPort[m.Object] = noPort[m.Object] || m.Reason == gateway.ReasonNoEndpointPort
		line := r.locate(m.Object, m.Object+": "+m.Message)
		switch {
		case m.Reason == gateway.ReasonNoEndpointSlice: // that none is ready is said anyway
		case m.Mild:
			states = append(states, line)
		default:
			mistakes = append(mistakes, line)
		}
	}
	for _, p := range slices.Concat(r.Translation.States(), r.Translation.Remarks(&r.Objects.Objects, r.Objects.EndpointSlices), more, gateway.Unserved(r.Translation.Frontends, r.Endpoints)) {
		if !said[p] && !(noPort[p.Object] && strings.HasPrefix(p.Message, "No endpoint is ready")) {
			said[p] = true
			states = append(states, r.locate(p.Object, p.Object+": "+p.Message))
		}
	}
	return mistakes, states
}

// locate puts file and line before a message about an object.
func (r *Review) locate(object, message string) string {
	object, _, _ = strings.Cut(object, " listener ")
	if at := r.at(object); at != "" {
		return at + ": " + phrase.Printable(message)
	}
	return phrase.Printable(message)
}
