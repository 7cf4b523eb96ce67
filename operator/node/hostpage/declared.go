// SPDX-License-Identifier: Apache-2.0

package hostpage

import (
	"cmp"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// declared are the Gateways that files declare.
type declared struct {
	from     *standalone.Declared
	gateways []page.Declared
}

// update makes the list again if files say something else.
func (d *declared) update(from *standalone.Declared) {
	if from == nil || from == d.from {
		return
	}
	d.from, d.gateways = from, list(from)
}

// list returns the Gateways of the files and of what is served, in the order of names.
func list(from *standalone.Declared) []page.Declared {
	byName := map[string]*page.Declared{}
	var all []*page.Declared
	of := func(name string) *page.Declared {
		g := byName[name]
		if g == nil {
			g = &page.Declared{Name: name, Verdict: finding.OK}
			byName[name], all = g, append(all, g)
		}
		return g
	}
	for i := range from.State.Frontends {
		f := &from.State.Frontends[i]
		g := of(f.Gateway)
		if a := f.Addr.String(); !slices.Contains(g.Addresses, a) {
			g.Addresses = append(g.Addresses, a)
		}
		n := slices.IndexFunc(g.Listeners, func(l page.DeclaredListener) bool { return l.Name == f.Listener && l.Port == f.Port })
		if n < 0 {
			n = len(g.Listeners)
			g.Listeners = append(g.Listeners, page.DeclaredListener{Name: f.Listener, Protocol: f.Protocol.String(), Port: f.Port})
		}
		if l := &g.Listeners[n]; f.Route != "" && !slices.Contains(l.Routes, f.Route) {
			l.Routes = append(l.Routes, f.Route)
		}
	}
	gateways := make([]page.Declared, 0, len(all))
	for _, g := range all {
		slices.SortFunc(g.Listeners, func(a, b page.DeclaredListener) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port))
		})
		gateways = append(gateways, *g)
	}
	slices.SortFunc(gateways, func(a, b page.Declared) int { return strings.Compare(a.Name, b.Name) })
	return gateways
}
