// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// namesKept is how long names are known after their frontend is gone: its flows end with
// it, and their records come then.
const namesKept = 10 * time.Minute

// names are frontends by their keys. Frontends are never modified, but replaced.
type names struct {
	mu  sync.RWMutex
	all map[lb.Key]named
	// ranged are the keys of frontends with Ports, by address and protocol: the port of
	// a key is 0.
	ranged map[lb.Key][]lb.Key
}

type named struct {
	*lb.Frontend
	was  *lb.Frontend // which this one has replaced; nil: none
	gone time.Time    // since when it is not served; zero: it is
}

// replace takes over all frontends that are served now.
func (n *names) replace(all []*lb.Frontend, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := make(map[lb.Key]named, len(all))
	for _, f := range all {
		it := named{Frontend: f}
		if old, known := n.all[f.Key()]; known {
			if it.was = old.Frontend; old.Frontend == f {
				it.was = old.was
			}
		}
		next[f.Key()] = it
	}
	for key, old := range n.all {
		if _, served := next[key]; served {
			continue
		}
		if old.gone.IsZero() {
			old.gone = now
		}
		if now.Sub(old.gone) < namesKept {
			next[key] = old
		}
	}
	n.all, n.ranged = next, map[lb.Key][]lb.Key{}
	for key, f := range next {
		if f.Ports != nil {
			of := lb.Key{Addr: key.Addr, Protocol: key.Protocol}
			n.ranged[of] = append(n.ranged[of], key)
		}
	}
}

// of returns the frontend that serves a key, nil: there is none, and the one before it.
func (n *names) of(key lb.Key) (f, was *lb.Frontend) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	it, own := n.all[key]
	if own {
		return it.Frontend, it.was
	}
	for _, k := range n.ranged[lb.Key{Addr: key.Addr, Protocol: key.Protocol}] { // the smallest range comes first
		if other := n.all[k]; other.Ports.Has(k.Port, key.Port) && (it.Frontend == nil || other.Ports.Size(k.Port) < it.Ports.Size(it.Port)) {
			it = other
		}
	}
	return it.Frontend, it.was
}

// serviceOf returns the Service that has a backend of a frontend, "": not known.
func serviceOf(backend netip.AddrPort, frontends ...*lb.Frontend) string {
	for _, f := range frontends {
		if f == nil {
			continue
		}
		i, found := slices.BinarySearchFunc(f.Backends, backend, func(b lb.Backend, a netip.AddrPort) int { return b.Addr.Compare(a) })
		if !found && f.Ports != nil { // the port is another one
			i = slices.IndexFunc(f.Backends, func(b lb.Backend) bool { return b.Addr.Addr() == backend.Addr() })
			found = i >= 0
		}
		if found {
			return f.Backends[i].Service
		}
	}
	return ""
}
