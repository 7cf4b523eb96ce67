// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// preferServing has each listener go on with the route that serves it: a new file takes no
// listener from an old one. Returned are the routes that serve from now on. It is for files
// only, whose objects have no age that means anything. In a cluster the oldest serves.
func preferServing(previous *Incumbents, gateways []*gateway) []ServingRoute {
	type listenerKey struct{ gateway, listener string }
	var atFrontend map[lb.Key]string
	var atListener map[listenerKey]string
	if previous != nil {
		atFrontend, atListener = make(map[lb.Key]string, len(previous.Routes)), make(map[listenerKey]string, len(previous.Routes))
		for _, r := range previous.Routes {
			atFrontend[r.Key], atListener[listenerKey{r.Gateway, r.Listener}] = r.Route, r.Route
		}
	}
	var now []ServingRoute
	for _, g := range gateways {
		name := g.key().String()
		for _, l := range g.all() {
			if len(l.attached) == 0 {
				continue
			}
			of := []string{atListener[listenerKey{name, l.id()}]}
			for _, key := range l.keys {
				of = append(of, atFrontend[key])
			}
			first := l.attached[0]
			if i := slices.IndexFunc(l.attached, func(r *route) bool { return slices.Contains(of, r.frontendName()) }); i >= 0 {
				first = l.attached[i]
				l.attached, l.incumbent = slices.Insert(slices.Delete(l.attached, i, i+1), 0, first), true
			}
			if g.isServed() {
				for _, key := range l.keys {
					now = append(now, ServingRoute{key, name, l.id(), first.frontendName()})
				}
			}
		}
	}
	slices.SortFunc(now, func(a, b ServingRoute) int { return a.Key.Compare(b.Key) })
	return now
}
