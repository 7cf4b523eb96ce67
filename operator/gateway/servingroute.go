// SPDX-License-Identifier: Apache-2.0

package gateway

import "slices"

// preferServing has each listener go on with the route that serves it: a new file takes no
// listener from an old one. Returned are the routes that serve from now on. It is for files
// only, whose objects have no age that means anything. In a cluster the oldest serves.
func preferServing(previous *Incumbents, gateways []*gateway) []ServingRoute {
	serving := map[any]string{} // by frontend and by listener
	type listenerKey struct{ gateway, listener string }
	if previous != nil {
		for _, r := range previous.Routes {
			serving[r.Key], serving[listenerKey{r.Gateway, r.Listener}] = r.Route, r.Route
		}
	}
	var now []ServingRoute
	for _, g := range gateways {
		for _, l := range g.all() {
			if len(l.attached) == 0 {
				continue
			}
			of := []string{serving[listenerKey{g.key().String(), l.id()}]}
			for _, key := range l.keys {
				of = append(of, serving[key])
			}
			first := l.attached[0]
			if i := slices.IndexFunc(l.attached, func(r *route) bool { return slices.Contains(of, r.frontendName()) }); i >= 0 {
				first = l.attached[i]
				l.attached, l.incumbent = slices.Insert(slices.Delete(l.attached, i, i+1), 0, first), true
			}
			if g.isServed() {
				for _, key := range l.keys {
					now = append(now, ServingRoute{key, g.key().String(), l.id(), first.frontendName()})
				}
			}
		}
	}
	slices.SortFunc(now, func(a, b ServingRoute) int { return a.Key.Compare(b.Key) })
	return now
}
